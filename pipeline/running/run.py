"""A whole run on this machine: every node in order, in one process, under one lock."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from components.outcomes import ALWAYS_RUN, NodeId, NodeState
from components.refusal import RefusedError
from configs import Config
from pipeline.running.locks import whole_folder
from pipeline.running.nodes import Graph, Outcome, new_run_id
from pipeline.running.summaries import what_it_found, why_refused
from pipeline.running.under_way import UnderWay

progress = logging.getLogger("recsys.progress")


@dataclass
class Watcher:
    """What a run tells while it goes on. Every call is optional to answer."""

    started: Callable[[str], None] = lambda node: None
    said: Callable[[str, str], None] = lambda node, line: None
    ended: Callable[[Outcome, str], None] = lambda outcome, found: None
    failed: Callable[[str, Exception], None] = lambda node, error: None
    cleaned: Callable[[int], None] = lambda count: None


@dataclass
class Result:
    """How the nodes of a run ended, in order."""

    run: str
    outcomes: dict[str, Outcome] = field(default_factory=dict)


def run(config: Config, watcher: Watcher, last: str | None = None, profile: bool = False) -> Result:
    """Run every node, or those up to `last`. Raises RefusedError where a gate says no, and whatever a node raises.

    Nodes of ALWAYS_RUN run after a refusal or an error too, once there is something to tell of, and what becomes of
    them changes nothing: `watcher.failed` hears where one fails. With `profile` what each node takes is measured.
    """
    with whole_folder(config.runs_folder):
        graph = Graph(config)
        if count := graph.clean_up():
            watcher.cleaned(count)
        result = Result(new_run_id())
        nodes = graph.nodes[: graph.nodes.index(last) + 1] if last else graph.nodes
        under_way = UnderWay(config.runs_folder, result.run, nodes)
        try:
            stopped = _run_nodes(graph, nodes, result, watcher, under_way, profile)
        finally:
            under_way.over()
        if stopped is not None:
            raise stopped
    return result


def _run_nodes(
    graph: Graph, nodes: Sequence[str], result: Result, watcher: Watcher, under_way: UnderWay, profile: bool
) -> Exception | None:
    """Run the nodes and return what stopped them, if anything did."""
    stopped: Exception | None = None
    for node in nodes:
        if node in ALWAYS_RUN:
            if NodeId.INGEST in result.outcomes:
                _tell(graph, node, result, watcher, under_way)
        elif stopped is None:
            try:
                outcome = _run_node(graph, node, result, watcher, under_way, profile)
            except Exception as error:
                under_way.node(node, NodeState.FAILED)
                stopped = error
            else:
                if outcome.state is NodeState.REFUSED:
                    stopped = RefusedError(why_refused(outcome))
    return stopped


def _run_node(
    graph: Graph, node: str, result: Result, watcher: Watcher, under_way: UnderWay, profile: bool = False
) -> Outcome:
    def said(line: str) -> None:
        under_way.line(line)
        watcher.said(node, line)

    watcher.started(node)
    under_way.node(node, NodeState.RUNNING)
    began = time.monotonic()
    with _listening(said):
        outcome = graph.run_node(node, result.run, profile)
    seconds = time.monotonic() - began
    outcome = replace(outcome, seconds=seconds)
    result.outcomes[node] = outcome
    under_way.node(node, outcome.state.value, seconds)
    watcher.ended(outcome, what_it_found(outcome))
    return outcome


def _tell(graph: Graph, node: str, result: Result, watcher: Watcher, under_way: UnderWay) -> None:
    try:
        _run_node(graph, node, result, watcher, under_way)
    except Exception as error:
        logging.getLogger(__name__).exception("%s failed", node)
        watcher.failed(node, error)


@contextmanager
def _listening(say: Callable[[str], None]) -> Iterator[None]:
    handler = _Handler(say)
    progress.addHandler(handler)
    progress.setLevel(logging.INFO)
    try:
        yield
    finally:
        progress.removeHandler(handler)


class _Handler(logging.Handler):
    def __init__(self, say: Callable[[str], None]):
        super().__init__()
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        self._say(record.getMessage())
