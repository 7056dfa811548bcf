"""`recsys train`: the candidate alone, on what the last run has transformed."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from pipeline.commands.context import ConfigPath, Overrides, console_on, logged

# What TensorFlow says of every machine it starts on; the log has it.
_CHATTER = re.compile(r"[IWE]\d{4} |[IWE]0000 |WARNING:|To enable the following instr")


def train(
    config: ConfigPath,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Worker processes; default: `training.workers` of the config.")
    ] = None,
    set_: Overrides = None,
) -> None:
    """Train the config's model on the examples that the last run transformed; nothing is judged or pushed.

    With several workers each is a process of its own; one that dies is started again and training goes on from the last
    checkpoint. Called again after it was broken off, it goes on too. Where TF_CONFIG is set, this machine is one worker
    of a cluster.
    """
    from rich.markup import escape
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.table import Table

    from configs import load_config

    settings = load_config(config, [*(set_ or []), *([f"training.workers={workers}"] if workers else [])])
    with logged(settings, "train-") as (log, terminal):
        console = console_on(terminal)
        strategy = settings.training.chosen_strategy
        many = f"{settings.training.workers} workers, {strategy}" if strategy != "none" else "1 process"
        console.print(f"[bold]{settings.name}[/bold]  {settings.model.type}, {many}  log: {log}")
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=console, transient=True, disable=not terminal.isatty()) as progress:
            bar = progress.add_task("loading TFX", total=None)

            def report(line: str) -> None:
                progress.update(bar, description=line)
                print(line)  # to the log
                if not (isinstance(line, ProgressLine) and line.passing):
                    console.print(f"  {escape(line)}")

            def say(worker: str, line: str) -> None:
                print(f"{worker}: {line}")
                if _CHATTER.match(line):
                    return
                console.print(f"  [dim]{worker}  {escape(line)}[/dim]")

            from models.training.workers import ProgressLine
            from pipeline.running.summaries import training as summary
            from pipeline.training import train_candidate

            trained = train_candidate(settings, report, say)
        if not trained.history:
            console.print("done: the chief exports the model")
            return
        history = trained.history
        console.print(f"\n{summary(history)}, {history['seconds']:.0f} s")
        if "tables" in history:
            console.print(_tables(history["tables"], Table))
            console.print(_workers(history["workers"], Table))
        console.print(f"\nmodel        {trained.folder}/model")
        console.print(f"TensorBoard  recsys tensorboard {settings.path}")


def _tables(tables, make):
    table = make("table", "rows", "dim", "MiB", "filled", "OOV of eval", box=None, pad_edge=False, header_style="bold")
    for t in tables:
        table.add_row(
            t["feature"], f"{t['rows']:,}", str(t["dim"]), f"{t['bytes'] / 2**20:,.2f}", f"{t['fill']:.1%}",
            f"{t['oov_rate']:.2%}",
        )  # fmt: skip
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def _workers(workers, make):
    table = make("worker", "examples/s", "seconds", "waiting for data", box=None, pad_edge=False, header_style="bold")
    for w in workers:
        table.add_row(
            str(w["index"]), f"{w['examples_per_second']:,}", f"{w['seconds']:.1f}", f"{w['waiting_share']:.1%}"
        )
    for column in table.columns[1:]:
        column.justify = "right"
    return table
