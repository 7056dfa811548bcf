"""`recsys data`: fetch a public data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Get interaction logs: a public data set, or generated ones.", no_args_is_help=True)


@app.callback()
def _data() -> None:
    """Get interaction logs: a public data set, or generated ones."""


@app.command()
def movielens(
    folder: Annotated[Path, typer.Option(help="Where interactions.tsv goes.")] = Path("data/movielens"),
) -> None:
    """Fetch MovieLens-100K (research use only) and join it into interaction logs."""
    from datasets.movielens import FetchError, fetch

    try:
        fetch(folder, say=typer.echo)
    except FetchError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
