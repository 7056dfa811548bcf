"""`recsys init`: from a file of logs to a first config and schema."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from configs.data import FileFormat, TimeUnit

if TYPE_CHECKING:
    from pipeline.proposal import Proposal


def init(
    data: Annotated[Path, typer.Option(help="The logs: a file, a folder or a glob.")],
    output: Annotated[Path | None, typer.Option(help="Config to write; default: configs/NAME.yaml.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the recommender; default: from the file's.")] = None,
    user: Annotated[str | None, typer.Option(help="Column of the user, if the guess is wrong.")] = None,
    item: Annotated[str | None, typer.Option(help="Column of the item, if the guess is wrong.")] = None,
    time: Annotated[str | None, typer.Option(help="Column of the event's time, if the guess is wrong.")] = None,
    label: Annotated[str | None, typer.Option(help="Column of the label, if the guess is wrong.")] = None,
    positive: Annotated[
        str | None, typer.Option(metavar="CONDITION", help="What makes a row positive: '>= 4', '== click'.")
    ] = None,
    positives_only: Annotated[
        bool, typer.Option("--positives-only", help="There is no label: every row is a positive.")
    ] = False,
    timeless: Annotated[bool, typer.Option("--timeless", help="There is no time: the rows have no order.")] = False,
    time_format: Annotated[
        str | None, typer.Option(metavar="FORMAT", help="With --time: how it is written, as '%d/%m/%Y %H:%M'.")
    ] = None,
    time_unit: Annotated[TimeUnit | None, typer.Option(help="With --time: its unit since 1970, or iso8601.")] = None,
    format_: Annotated[
        FileFormat | None, typer.Option("--format", help="Format of the logs, if their name does not say it.")
    ] = None,
    delimiter: Annotated[
        str | None, typer.Option(help="CSV only: what parts the columns, if the guess is wrong.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the config.")] = False,
) -> None:
    """Look at logs, propose a config and a first schema, and say what was guessed."""
    from configs import ConfigError
    from pipeline.quiet import quiet

    for one, other, both in (
        ("--label", "--positives-only", label and positives_only),
        ("--positive", "--positives-only", positive and positives_only),
        ("--time", "--timeless", time and timeless),
        ("--time-format", "--time-unit", time_format and time_unit),
    ):
        if both:
            raise ConfigError(f"{one} and {other} exclude each other")
    if (time_format or time_unit) and not time:
        raise ConfigError("--time-format and --time-unit say how the column of --time is written: name it too")
    with quiet(os.devnull):
        from pipeline.proposal import Given, propose

        given = Given(
            user, item, time, label, positive, positives_only, timeless, time_format, time_unit, format_, delimiter
        )
        proposal = propose(str(data), name, given)
        target = output or Path("configs") / f"{proposal.name}.yaml"
        schema = proposal.write(target, overwrite=force)
    _show(proposal)
    print(f"\nwritten: {target} and {schema}")
    print(f"Look both over: guesses are guesses. Then: recsys run {target}")


def _show(proposal: Proposal) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    table = Table("column", "role", "why", box=None, pad_edge=False, header_style="bold")
    for guess in proposal.guesses:
        table.add_row(escape(guess.column), escape(guess.role), escape(guess.why))
    console.print(table)
    for warning in proposal.warnings:
        console.print(f"\n[yellow]warning[/yellow]  {escape(warning)}")
