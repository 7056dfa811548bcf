"""`recsys runs` and `recsys report`: what came of the runs, and the page of one or two of them."""

from __future__ import annotations

import json
import time
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from components.outcomes import RunState
from pipeline.commands.context import ConfigPath, Overrides

if TYPE_CHECKING:
    from pipeline.running.history import Run

_STYLES = {
    RunState.BLESSED: "green",
    RunState.REFUSED: "red",
    RunState.BROKE: "red",
    RunState.UNDER_WAY: "cyan",
    RunState.INTERRUPTED: "yellow",
}


def runs(
    config: ConfigPath,
    last: Annotated[int, typer.Option(min=1, help="How many, the newest first.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    set_: Overrides = None,
) -> None:
    """List the runs of a config with verdict, metrics and age, the newest first."""
    from rich.console import Console
    from rich.table import Table

    from configs import load_config
    from pipeline.running import history

    settings = load_config(config, set_ or [])
    known = history.runs(settings, last)
    if as_json:
        values = [
            {
                "run": r.id, "state": r.state, "by": r.by, "began": r.began, "ended": r.ended,
                "version": r.version, "report": r.page, "metrics": r.metrics,
            }
            for r in known
        ]  # fmt: skip
        typer.echo(json.dumps(values))
        return
    console = Console(highlight=False)
    if not known:
        console.print(f"no run of {settings.name} yet; `recsys run {config}` makes one")
        return
    shown = history.shown(known)
    table = Table("run", "age", "verdict", *shown.values(), "version", box=None, pad_edge=False)
    table.header_style = "bold"
    table.columns[0].no_wrap = True
    for column in table.columns[3:-1]:
        column.justify = "right"
    for r in known:
        said = _said(r)
        figures = [f"{v:.4f}" if (v := r.metrics.get(m)) is not None else "" for m in shown]
        style = _STYLES.get(RunState(r.state), "dim")
        table.add_row(r.id, history.age(time.time() - r.ended), f"[{style}]{said}[/{style}]", *figures, r.version or "")
    console.print(table)
    console.print(f"`recsys report {config} --run RUN --open` opens the page of one", soft_wrap=True)


def _said(run: Run) -> str:
    """Return how a run stands, as people say it."""
    if run.state == RunState.INTERRUPTED:
        return f"interrupted in {run.by}"
    if run.state == RunState.PREPARED:
        return "data for compare, tune or train"
    return f"{run.state} by {run.by}" if run.by else run.state


def report(
    config: ConfigPath,
    run: Annotated[str | None, typer.Option(help="The run; default: the newest with a report.")] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    compare: Annotated[tuple[str, str], typer.Option(metavar="RUN RUN", help="Two runs to put beside each other.")] = (
        "",
        "",
    ),
    set_: Overrides = None,
) -> None:
    """Print where the page of a run is, or make one that compares two runs."""
    from configs import ConfigError, load_config
    from pipeline.running import history

    settings = load_config(config, set_ or [])
    if any(compare):
        if run:
            raise ConfigError("--run and --compare exclude each other")
        one, other = (history.find(settings, name) for name in compare)
        from components.report.compare import render

        folder = Path(settings.runs_folder) / "compared"
        folder.mkdir(parents=True, exist_ok=True)
        page = folder / f"{one.id}--{other.id}.html"
        unfinished = page.with_suffix(".partial")
        unfinished.write_text(render(one.facts(), other.facts()), encoding="utf-8")
        unfinished.rename(page)
    else:
        found = history.find(settings, run)
        found.facts()
        page = Path(f"{found.report}/report.html")
    typer.echo(page)
    if open_ and not webbrowser.open(page.absolute().as_uri()):
        typer.echo("no browser could be started here; open that file in one", err=True)
