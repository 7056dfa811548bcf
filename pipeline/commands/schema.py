"""`recsys schema`: what the last run's data look like against the curated schema, and taking the new look."""

from __future__ import annotations

import typer

from pipeline.commands.context import ConfigPath, Overrides, command

app = typer.Typer(help="Compare the curated schema with the newest data, and accept changes.", no_args_is_help=True)


@app.command()
def diff(config: ConfigPath, set_: Overrides = None) -> None:
    """Show how the newest data's schema differs from the curated one. Exit code 3 where it does."""
    with command(config, set_, "schema") as (settings, terminal):
        from pipeline.curation import schema_change

        change = schema_change(settings)
        print(change.text(), file=terminal)
    if change.lines:
        raise typer.Exit(3)


@app.command()
def accept(config: ConfigPath, set_: Overrides = None) -> None:
    """Write the newest data's schema beside the config, where git keeps it."""
    with command(config, set_, "schema") as (settings, terminal):
        from pipeline.curation import schema_change

        change = schema_change(settings)
        change.accept()
        print(change.text(), file=terminal)
        print(f"written: {change.path} - look it over and commit it", file=terminal)
