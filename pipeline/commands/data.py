"""`recsys data`: fetch a public data set, or generate logs."""

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
    from interactions.movielens import FetchError, fetch

    try:
        fetch(folder, say=typer.echo)
    except FetchError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


@app.command()
def synthetic(
    rows: Annotated[int, typer.Option(min=1, help="How many rows.")] = 1_000_000,
    out: Annotated[
        Path, typer.Option(help="File to write; its ending chooses CSV, TSV, JSONL (each also .gz) or Parquet.")
    ] = Path("data/synthetic/logs.csv"),
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same logs.")] = 1,
    files: Annotated[int, typer.Option(min=1, help="Write so many files, NAME-00000-of-00004.EXT and so on.")] = 1,
    users: Annotated[int | None, typer.Option(min=2, help="How many users; default: a fortieth of the rows.")] = None,
    items: Annotated[int | None, typer.Option(min=2, help="How many items; default: a hundredth of the rows.")] = None,
    days: Annotated[float, typer.Option(help="Length of the logs in days.")] = 28.0,
    click_rate: Annotated[float, typer.Option(help="Share of rows clicked.")] = 0.2,
    probability: Annotated[bool, typer.Option(help="Write each row's true click_probability too.")] = False,
    config: Annotated[bool, typer.Option(help="Write synthetic.yaml beside it, ready for `recsys run`.")] = False,
) -> None:
    """Generate interaction logs of any size, and tell the best scores that any model could reach on them."""
    from rich.console import Console
    from rich.progress import Progress

    from interactions.synthetic import config_text, generate

    config_path = out.parent / "synthetic.yaml"
    try:
        text = config_text(out, files)
        if config and config_path.exists() and config_path.read_text(encoding="utf-8") != text:
            raise ValueError(f"{config_path}: is there already and differs; remove it or leave out --config")
        with Progress(console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("generating", total=rows)
            made = generate(
                out,
                rows,
                seed,
                files=files,
                users=users,
                items=items,
                days=days,
                click_rate=click_rate,
                probability=probability,
                advance=lambda count: progress.advance(task, count),
            )
        if config:
            config_path.write_text(text, encoding="utf-8")
    except ValueError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    except OSError as error:
        typer.echo(f"error: {error.filename or out}: {error.strerror}", err=True)
        raise typer.Exit(1) from None
    for path in made.files:
        typer.echo(f"{path}: {path.stat().st_size / 1e6:,.1f} MB")
    typer.echo("What the true probabilities score on these labels; no model does better but by chance:")
    for name, ceiling in (("all rows", made.all), ("newest tenth", made.newest)):
        typer.echo(
            f"  {name + ':':<14} {ceiling.rows:>12,} rows, {ceiling.click_rate:.4f} clicked, "
            f"LogLoss {ceiling.logloss:.5f}, AUC {ceiling.auc:.5f} (± {ceiling.auc_error:.0e})"
        )
    if config:
        typer.echo(f"{config_path}: recsys run {config_path}")
