"""`recsys init`: from a file of logs to a first config and schema."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer


def init(
    data: Annotated[Path, typer.Option(help="The logs: a file, a folder or a glob.")],
    output: Annotated[Path | None, typer.Option(help="Config to write; default: configs/NAME.yaml.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the recommender; default: from the file's.")] = None,
    user: Annotated[str | None, typer.Option(help="Column of the user, if the guess is wrong.")] = None,
    item: Annotated[str | None, typer.Option(help="Column of the item, if the guess is wrong.")] = None,
    time: Annotated[str | None, typer.Option(help="Column of the event's time, if the guess is wrong.")] = None,
    label: Annotated[str | None, typer.Option(help="Column of the label, if the guess is wrong.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the config.")] = False,
) -> None:
    """Look at logs, propose a config and a first schema, and say what was guessed."""
    from rich.console import Console
    from rich.table import Table

    from pipeline.quiet import quiet

    with quiet(os.devnull) as terminal:
        from pipeline.proposal import propose

        proposal = propose(str(data), name, {"user": user, "item": item, "time": time, "label": label})
        target = output or Path("configs") / f"{proposal.name}.yaml"
        schema = proposal.write(target, overwrite=force)
    console = Console(highlight=False)
    del terminal
    table = Table("column", "role", "why", box=None, pad_edge=False, header_style="bold")
    for guess in proposal.guesses:
        table.add_row(guess.column, guess.role, guess.why)
    console.print(table)
    console.print(f"\nwritten: {target} and {schema}")
    console.print(f"Look both over: guesses are guesses. Then: recsys run {target}")
