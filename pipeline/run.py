"""A whole run on this machine: every node in order, in one process, under one lock."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from components.refusal import RefusedError
from configs import Config
from pipeline.locks import whole_folder
from pipeline.nodes import Graph, Outcome, State, new_run_id
from pipeline.says import what_it_found, why_refused

progress = logging.getLogger("recsys.progress")


@dataclass
class Watcher:
    """What a run tells while it goes on. Every call is optional to answer."""

    started: Callable[[str], None] = lambda node: None
    said: Callable[[str, str], None] = lambda node, line: None
    ended: Callable[[Outcome, str], None] = lambda outcome, found: None
    cleaned: Callable[[int], None] = lambda count: None


@dataclass
class Result:
    """How the nodes of a run ended, in order."""

    run: str
    outcomes: dict[str, Outcome] = field(default_factory=dict)


def run(config: Config, watcher: Watcher, last: str | None = None) -> Result:
    """Run every node, or those up to `last`. Raises RefusedError where a gate says no, and whatever a node raises."""
    with whole_folder(config.runs_folder):
        graph = Graph(config)
        if count := graph.clean_up():
            watcher.cleaned(count)
        result = Result(new_run_id())
        nodes = graph.nodes
        for node in nodes[: nodes.index(last) + 1] if last else nodes:
            watcher.started(node)
            began = time.monotonic()
            with _listening(partial(watcher.said, node)):
                outcome = graph.run_node(node, result.run)
            seconds = time.monotonic() - began
            outcome = Outcome(node, outcome.state, seconds, outcome.outputs)
            result.outcomes[node] = outcome
            watcher.ended(outcome, what_it_found(outcome))
            if outcome.state is State.REFUSED:
                raise RefusedError(why_refused(outcome))
    return result


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
