"""`recsys run` and `recsys run-node`: from logs to a pushed version, whole or node by node."""

from __future__ import annotations

import json
import re
import sys
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer

from components.outcomes import ExitCode, NodeId, NodeState
from pipeline.commands.context import ConfigPath, Overrides, console_on, logged
from pipeline.quiet import quiet

if TYPE_CHECKING:
    from rich.console import Console

    from pipeline.running.nodes import Outcome

Span = Annotated[
    str | None,
    typer.Option(metavar="SPAN", help="The day or number to run for, where logs come in spans; default: the newest."),
]


def run(
    config: ConfigPath,
    set_: Overrides = None,
    span: Span = None,
    profile: Annotated[
        bool,
        typer.Option(
            "--profile", help="Measure time, CPU, memory and bytes of each step, shown here and in the report."
        ),
    ] = False,
) -> None:
    """Run everything: read the logs, judge them, train, judge the model, push it.

    Steps whose inputs, code and config did not change are taken from cache. A run that was killed goes on where it
    was when it is called again.
    """

    from components.refusal import RefusedError
    from configs import load_config

    settings = load_config(config, [*(set_ or []), *of_span(span)])
    began = time.monotonic()
    with logged(settings) as (log, terminal):
        screen = _Screen(console_on(terminal))
        screen.console.print(f"[bold]{settings.name}[/bold]  {settings.path}  log: {log}")
        with screen.waiting("loading TFX"):
            from pipeline.running.locks import BusyError
            from pipeline.running.run import Watcher
            from pipeline.running.run import run as run_all

        watcher = Watcher(screen.started, screen.said, screen.ended, screen.failed, screen.cleaned)
        try:
            result = run_all(settings, watcher, profile=profile)
        except Exception as error:
            if isinstance(error, RefusedError) and NodeId.EVALUATOR in screen.outcomes:
                # What the refused model is like is what its maker asks next.
                _metrics(screen.console, settings, screen.outcomes)
            if not isinstance(error, BusyError):  # which says nothing of this run: it never began
                _profile(screen.console, screen.outcomes)
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
    span: Span = None,
    before: Annotated[
        str | None,
        typer.Option(metavar="SPAN", help="Run for the span before this one: for schedulers that only know today."),
    ] = None,
    skip_code: Annotated[int, typer.Option(help="Exit code of a node that was skipped.")] = ExitCode.SKIPPED,
    as_json: Annotated[bool, typer.Option("--json", help="What became of it, and what it made, as JSON.")] = False,
) -> None:
    """Run one node of a run, as an orchestrator does. Running a finished node again does nothing.

    Exit codes: 0 done, 3 this node is a gate and said no, 4 skipped: a gate before it said no in this run, or a newer
    span is served than the one to push.
    """
    from components.refusal import RefusedError
    from configs import ConfigError, load_config

    settings = load_config(config, [*(set_ or []), *of_span(span, before)])
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}", run_id):
        raise ConfigError(f"--run-id {run_id}: expected letters, digits, `_`, `.` and `-`")
    with quiet(None) as terminal:
        from pipeline.running.locks import one_node
        from pipeline.running.nodes import Graph
        from pipeline.running.summaries import as_values, failed_values, what_it_found, why_refused

        graph = Graph(settings)
        if node not in graph.nodes:
            raise ConfigError(f"--node {node}: no such node; choose from {', '.join(graph.nodes)}")
        alone = settings.metadata.type == "sqlite"
        try:
            with one_node(settings.runs_folder, node, alone, lambda line: print(line, file=sys.stderr, flush=True)):
                outcome = graph.run_node(node, run_id)
        except Exception as error:
            if as_json:
                print(json.dumps({"run": run_id, **failed_values(node, error)}, ensure_ascii=False), file=terminal)
            raise
        if as_json:
            print(json.dumps({"run": run_id, **as_values(outcome)}, ensure_ascii=False), file=terminal)
        else:
            print(f"{node}: {outcome.state.value} {outcome.why or what_it_found(outcome)}".rstrip(), file=terminal)
            for name, artifacts in outcome.outputs.items():
                for artifact in artifacts:
                    print(f"  {name}: {artifact.uri}", file=terminal)
    if outcome.state is NodeState.REFUSED:
        raise RefusedError(why_refused(outcome))
    if outcome.state is NodeState.SKIPPED:
        raise typer.Exit(skip_code)


def of_span(span: str | None, before: str | None = None) -> list[str]:
    """Return what `--span` and `--before` set in the config. Raises ConfigError."""
    from pydantic import TypeAdapter, ValidationError

    from configs import ConfigError
    from configs.data import Span as SpanText
    from configs.data import span_before

    if span and before:
        raise ConfigError("--span and --before exclude each other")
    for option, text in (("--span", span), ("--before", before)):
        if text:
            try:
                known = TypeAdapter(SpanText).validate_python(text)
                return [f"data.span='{span_before(known) if option == '--before' else known}'"]
            except ValidationError:
                raise ConfigError(f"{option} {text}: expected a day as 20260131 or 2026-01-31, or a number") from None
            except ValueError as error:
                raise ConfigError(f"{option} {text}: {error}") from None
    return []


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

        self.stop()
        self.outcomes[outcome.node] = outcome
        marks = {
            NodeState.DONE: "[green]done   [/green]",
            NodeState.CACHED: "[cyan]cached [/cyan]",
            NodeState.REFUSED: "[red]refused[/red]",
            NodeState.SKIPPED: "[yellow]skipped[/yellow]",
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

    from components.evaluator.shown import shown_metrics
    from pipeline.running.summaries import counts, evaluation

    judged = evaluation(outcomes[NodeId.EVALUATOR])
    shown = shown_metrics(judged["metrics"]["candidate"])
    table = Table("model", *shown.values(), box=None, pad_edge=False, header_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    trained = _trained_type(outcomes)
    titles = {
        "candidate": f"{of if (of := settings.model.type) == trained else f'{of}: {trained}'} (this run)",
        "blessed": "last blessed",
        "blessed_best": "best of the last blessed",
    }
    for name, metrics in judged["metrics"].items():
        table.add_row(titles.get(name, name), *(_figure(metrics.get(m)) for m in shown))
    tally = counts(outcomes[NodeId.INGEST])
    rows = tally["test.rows"]
    console.print()
    console.print(table)
    console.print(
        f"on {rows:,} test rows, split by {settings.data.split.by}; cold: "
        f"{tally['test.cold_user'] / rows:.1%} of rows have a user unseen in training, "
        f"{tally['test.cold_item'] / rows:.1%} an item"
    )


def _trained_type(outcomes: dict[str, Outcome]) -> str:
    """Return the type of the model that was trained: of `auto` the one that it chose."""
    from components.verdict import read_json
    from models.training.history import HISTORY_FILE

    return read_json(f"{outcomes[NodeId.TRAINER].uri('model_run')}/{HISTORY_FILE}")["model"]["type"]


def _figure(value: float | None) -> str:
    return "–" if value is None or value != value else f"{value:.4f}"


def _profile(console: Console, outcomes: dict[str, Outcome]) -> None:
    """Print what the nodes took, where that was measured."""
    from rich.table import Table

    from components.profiles import with_rows
    from pipeline.running.summaries import counts

    measured = {node: o.profile for node, o in outcomes.items() if o.profile}
    if not measured:
        return
    tally = counts(outcomes[NodeId.INGEST]) if NodeId.INGEST in outcomes else {}
    rows = {split: tally.get(f"{split}.rows", 0) for split in ("train", "eval", "test")}
    columns = ("profile", "seconds", "CPU s", "rows/s", "peak MiB", "read MiB", "written MiB")
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for column in table.columns:
        column.no_wrap = True
        column.justify = "left" if column.header == columns[0] else "right"
    steps: list[str] = []
    for node, profile in measured.items():
        full = with_rows(profile, node, rows)
        table.add_row(
            node,
            f"{full['seconds']:.1f}",
            f"{full['cpu']:.1f}",
            "" if full["rows_per_second"] is None else f"{full['rows_per_second']:,}",
            *("" if full[f] is None else f"{full[f] / 2**20:,.1f}" for f in ("peak", "read", "written")),
        )
        steps += [
            f"  {node}: {step['step']} {step['seconds']:.1f} s" for step in full["steps"] if step["seconds"] >= 0.1
        ]
    console.print()
    console.print(table)
    if steps:
        console.print("\n[bold]Beam steps[/bold]")
        console.print("\n".join(steps), markup=False)


def _report(console: Console, outcomes: dict[str, Outcome]) -> None:
    """Print where the run's page is, or that there is none."""
    if NodeId.REPORT in outcomes:
        console.print(f"report        {outcomes['Report'].uri('run_report')}/report.html")
    elif NodeId.INGEST not in outcomes:
        console.print("report        none: nothing was ingested, so there is nothing to report on")


def _closing(console: Console, settings: Any, result: Any, seconds: float) -> None:
    """Print metrics with baselines, the verdict, and where things lie."""
    from rich.markup import escape

    from pipeline.running.summaries import evaluation

    _metrics(console, settings, result.outcomes)
    judged = evaluation(result.outcomes[NodeId.EVALUATOR])
    console.print("\n[bold]gates[/bold]")
    for judgement in judged["judgements"]:
        mark = "[green]holds[/green]" if judgement["passed"] else "[red]fails[/red]"
        if not judgement.get("judged", True):
            mark = "[yellow]  -  [/yellow]"
        console.print(
            f"  {mark}  {escape(judgement['gate'])}  ({escape(judgement['slice'])}: {escape(judgement['why'])})"
        )
    if not judged["judgements"]:
        console.print("  none in the config: every model is blessed")
    for note in judged.get("notes", []):
        console.print(f"\n[yellow]{escape(note)}[/yellow]", soft_wrap=True)
    pushed = result.outcomes[NodeId.PUSHER].outputs["pushed_model"][0].custom_properties
    served = (
        pushed["pushed_destination"].string_value if "pushed_destination" in pushed else pushed["summary"].string_value
    )
    _profile(console, result.outcomes)
    console.print(f"\nserved model  {served}")
    console.print(f"artifacts     {settings.runs_folder}/artifacts")
    _report(console, result.outcomes)
    console.print(f"TensorBoard   recsys tensorboard {settings.path}")
    console.print(f"run {result.run}, {seconds:.0f} s")
