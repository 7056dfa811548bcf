"""The words in which runs are told: ids of nodes, how nodes and runs end, and exit codes. Their one home.

Orchestrators find them in the graph file, which `pipeline/graph/plan.py` makes of them.
"""

from __future__ import annotations

import enum


class NodeId(enum.StrEnum):
    """The nodes of every graph; baselines have ids of their own, see `baseline_node`."""

    INGEST = "Ingest"
    STATISTICS = "StatisticsGen"
    SCHEMA = "CuratedSchema"
    VALIDATOR = "ExampleValidator"
    ACCEPTED_DATA = "LastAcceptedData"
    DATA_GATE = "DataGate"
    TRANSFORM = "Transform"
    TRAINER = "Trainer"
    RETRIEVAL = "Retrieval"
    ASSEMBLER = "Assembler"
    BLESSED_MODEL = "LastBlessedModel"
    EVALUATOR = "Evaluator"
    SERVING_CHECK = "ServingCheck"
    PUSHER = "Pusher"
    REPORT = "Report"


ALWAYS_RUN: frozenset[str] = frozenset({NodeId.REPORT})  # whatever became of the nodes before; they judge nothing
RESOLVERS: frozenset[str] = frozenset({NodeId.ACCEPTED_DATA, NodeId.BLESSED_MODEL})  # their outputs are earlier runs'
_BASELINE = "Baseline."


def baseline_node(name: str) -> str:
    """Return the id of the node that trains a baseline."""
    return f"{_BASELINE}{name}"


def baseline_of(node: str) -> str | None:
    """Return the name of the baseline that a node trains; None for other nodes."""
    return node.removeprefix(_BASELINE) if node.startswith(_BASELINE) else None


class NodeState(enum.StrEnum):
    """How a node of a run stands."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    CACHED = "cached"
    REFUSED = "refused"
    SKIPPED = "skipped"
    FAILED = "failed"
    NOT_RUN = "not run"
    UNKNOWN = "unknown"


class RunState(enum.StrEnum):
    """How a run stands."""

    BLESSED = "blessed"
    REFUSED = "refused"
    BROKE = "broke"
    UNFINISHED = "unfinished"
    UNDER_WAY = "under way"
    INTERRUPTED = "interrupted"
    PREPARED = "prepared"  # data only, for compare, tune or train
    NO_REPORT = "no report"


class ExitCode(enum.IntEnum):
    """What `recsys` exits with."""

    DONE = 0
    BROKE = 1
    WRONG_CALL = 2
    REFUSED = 3
    SKIPPED = 4
    INTERRUPTED = 130  # as shells have it: 128 and SIGINT's number

    @property
    def means(self) -> str:
        """One line for people."""
        return _MEANINGS[self]

    @property
    def final(self) -> bool:
        """Whether the same call would end the same way again."""
        return self in (ExitCode.DONE, ExitCode.WRONG_CALL, ExitCode.REFUSED, ExitCode.SKIPPED)


_MEANINGS = {
    ExitCode.DONE: "done",
    ExitCode.BROKE: "something broke",
    ExitCode.WRONG_CALL: "the call or the config is wrong",
    ExitCode.REFUSED: "a gate said no",
    ExitCode.SKIPPED: "skipped: a gate before it said no, or a newer span is served",
    ExitCode.INTERRUPTED: "interrupted; the same call goes on where it was",
}
