"""`recsys run` and `recsys run-node`: from logs to a pushed version, whole or node by node."""

from __future__ import annotations

import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from pipeline.nodes import Outcome

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="The recommender's YAML file.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override a value of the config.")
]


def run(config: ConfigPath, set_: Overrides = None) -> None:
    """Run everything: read the logs, judge them, train, judge the model, push it.

    Steps whose inputs, code and config did not change are taken from cache. A run that was killed goes on where it
    was when it is called again.
    """
    from rich.console import Console

    from components.refusal import RefusedError
    from configs import load_config
    from pipeline.quiet import quiet

    settings = load_config(config, set_ or [])
    log = f"{settings.runs_folder}/logs/{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}.log"
    began = time.monotonic()
    with quiet(log) as terminal:
        screen = _Screen(Console(file=terminal, highlight=False, soft_wrap=not terminal.isatty()))
        screen.console.print(f"[bold]{settings.name}[/bold]  {settings.path}  log: {log}")
        with screen.waiting("loading TFX"):
            from pipeline.run import Watcher
            from pipeline.run import run as run_all

        watcher = Watcher(screen.started, screen.said, screen.ended, screen.failed, screen.cleaned)
        try:
            result = run_all(settings, watcher)
        except Exception as error:
            if isinstance(error, RefusedError) and "Evaluator" in screen.outcomes:
                # What the refused model is like is what its maker asks next.
                _metrics(screen.console, settings, screen.outcomes)
            _report(screen.console, screen.outcomes)
            raise
        finally:
            screen.stop()
        _closing(screen.console, settings, result, time.monotonic() - began)


def run_node(
    config: ConfigPath,
    node: Annotated[str, typer.Option(help="The node to run.")],
    run_id: Annotated[str, typer.Option(help="The run it belongs to; all nodes of a run share it.")],
    set_: Overrides = None,
) -> None:
    """Run one node of a run, as an orchestrator does. Running a finished node again does nothing."""
    from components.refusal import RefusedError
    from configs import ConfigError, load_config

    settings = load_config(config, set_ or [])
    from pipeline.nodes import Graph, State
    from pipeline.says import what_it_found, why_refused

    graph = Graph(settings)
    if node not in graph.nodes:
        raise ConfigError(f"--node {node}: no such node; choose from {', '.join(graph.nodes)}")
    outcome = graph.run_node(node, run_id)
    typer.echo(f"{node}: {outcome.state.value} {what_it_found(outcome)}".rstrip())
    for name, artifacts in outcome.outputs.items():
        for artifact in artifacts:
            typer.echo(f"  {name}: {artifact.uri}")
    if outcome.state is State.REFUSED:
        raise RefusedError(why_refused(outcome))


class _Screen:
    """The terminal during a run: a finished node is a line, the one under way a spinner with its time."""

    def __init__(self, console: Console):
        self.console = console
        self.outcomes: dict[str, Outcome] = {}
        self._status: Any = None

    def waiting(self, what: str) -> Any:
        return self.console.status(what) if self.console.is_terminal else nullcontext()

    def started(self, node: str) -> None:
        if self.console.is_terminal:
            from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

            columns = (
                SpinnerColumn(),
                TextColumn("{task.description}"),
                TimeElapsedColumn(),
                TextColumn("{task.fields[line]}"),
            )
            self._status = Progress(*columns, console=self.console, transient=True)
            self._status.add_task(node, total=None, line="")
            self._status.start()

    def said(self, node: str, line: str) -> None:
        if self._status:
            self._status.update(self._status.task_ids[0], line=line)

    def ended(self, outcome: Outcome, found: str) -> None:
        from rich.markup import escape
        from rich.table import Table

        from pipeline.nodes import State

        self.stop()
        self.outcomes[outcome.node] = outcome
        marks = {
            State.DONE: "[green]done   [/green]",
            State.CACHED: "[cyan]cached [/cyan]",
            State.REFUSED: "[red]refused[/red]",
        }
        head = f"  {marks[outcome.state]} {outcome.node:<18} {outcome.seconds:6.1f} s"
        if not self.console.is_terminal:
            self.console.print(f"{head}  {escape(found)}")
            return
        line = Table.grid(padding=(0, 2))  # what was found wraps beside the node's name, not below it
        line.add_column(no_wrap=True)
        line.add_row(head, escape(found))
        self.console.print(line)

    def failed(self, node: str, error: Exception) -> None:
        from rich.markup import escape

        self.stop()
        self.console.print(f"  [red]failed [/red] {node:<18} {escape(str(error))} (the run's log says more)")

    def cleaned(self, count: int) -> None:
        self.console.print(
            f"  cleaned up after {count} step{'s' if count > 1 else ''} that an earlier run left unfinished"
        )

    def stop(self) -> None:
        if self._status:
            self._status.stop()
            self._status = None


def _metrics(console: Console, settings: Any, outcomes: dict[str, Outcome]) -> None:
    """Print the metrics of the model and of those it is compared with."""
    from rich.table import Table

    from pipeline.says import counts, verdict

    judged = verdict(outcomes["Evaluator"])
    table = Table(
        "model", "AUC", "GAUC", "LogLoss", "PR AUC", "calibration", box=None, pad_edge=False, header_style="bold"
    )
    for column in table.columns[1:]:
        column.justify = "right"
    titles = {"candidate": f"{settings.model.type} (this run)", "blessed": "last blessed"}
    for name, metrics in judged["metrics"].items():
        figures = [f"{metrics[m]:.4f}" for m in ("auc", "gauc", "logloss", "prauc", "calibration")]
        table.add_row(titles.get(name, name), *figures)
    tally = counts(outcomes["Ingest"])
    rows = tally["test.rows"]
    console.print()
    console.print(table)
    console.print(
        f"on {rows:,} test rows, split by {settings.data.split.by}; cold: "
        f"{tally['test.cold_user'] / rows:.1%} of rows have a user unseen in training, "
        f"{tally['test.cold_item'] / rows:.1%} an item"
    )


def _report(console: Console, outcomes: dict[str, Outcome]) -> None:
    """Print where the run's page is, or that there is none."""
    if "Report" in outcomes:
        console.print(f"report        {outcomes['Report'].uri('run_report')}/report.html")
    elif "Ingest" not in outcomes:
        console.print("report        none: nothing was ingested, so there is nothing to report on")


def _closing(console: Console, settings: Any, result: Any, seconds: float) -> None:
    """Print metrics with baselines, the verdict, and where things lie."""
    from rich.markup import escape

    from pipeline.says import verdict

    _metrics(console, settings, result.outcomes)
    judged = verdict(result.outcomes["Evaluator"])
    console.print("\n[bold]gates[/bold]")
    for judgement in judged["judgements"]:
        mark = "[green]holds[/green]" if judgement["passed"] else "[red]fails[/red]"
        console.print(
            f"  {mark}  {escape(judgement['gate'])}  ({escape(judgement['slice'])}: {escape(judgement['why'])})"
        )
    if not judged["judgements"]:
        console.print("  none in the config: every model is blessed")
    pushed = result.outcomes["Pusher"].outputs["pushed_model"][0].custom_properties["pushed_destination"].string_value
    console.print(f"\nserved model  {pushed}")
    console.print(f"artifacts     {settings.runs_folder}/artifacts")
    _report(console, result.outcomes)
    console.print(f"TensorBoard   tensorboard --logdir {settings.runs_folder}/artifacts/Trainer/model_run")
    console.print(f"run {result.run}, {seconds:.0f} s")
