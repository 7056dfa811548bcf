"""The runs of a config, from its metadata store and their reports. TFX is not needed to look."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ml_metadata as mlmd
from ml_metadata.proto import metadata_store_pb2

from components.evaluator.shown import shown_metrics
from components.outcomes import NodeId, RunState
from components.report import REPORT_TYPE
from configs import Config, ConfigError
from pipeline.running.store import connection, store_exists

_ARTIFACT, _EXECUTION = metadata_store_pb2.Artifact, metadata_store_pb2.Execution


@dataclass(frozen=True)
class Run:
    """One run: how it stands (a RunState; reports of later versions may know others), when it began and
    last did something (seconds since 1970), the folder of its report, and figures of its model on all test examples.
    """

    id: str
    state: str
    by: str | None
    began: float
    ended: float
    report: str | None
    metrics: Mapping[str, float | None]
    version: str | None

    def facts(self) -> dict[str, Any]:
        """Return what the report says. Raises ConfigError where there is none."""
        if self.report is None:
            raise ConfigError(f"run {self.id} left no report: it ended before anything was ingested, or is not over")
        return read_facts(self.report)

    @property
    def page(self) -> str | None:
        """The report's file."""
        return f"{self.report}/report.html" if self.report else None


def read_facts(folder: str) -> dict[str, Any]:
    """Read the report's JSON in a folder."""
    with open(f"{folder}/report.json", encoding="utf-8") as stream:
        return json.load(stream)


def runs(config: Config, last: int | None = None) -> list[Run]:
    """Return the runs of a config, the newest first; at most `last` of them."""
    if not store_exists(config):
        return []
    store = mlmd.MetadataStore(connection(config))
    pipeline = store.get_context_by_type_and_name("pipeline", config.name)
    if pipeline is None:
        return []
    kind = store.get_context_type("pipeline_run").id
    contexts = [c for c in store.get_children_contexts_by_context(pipeline.id) if c.type_id == kind]
    contexts.sort(key=lambda c: c.id, reverse=True)
    reports = _reports(store)
    # Where SQLite keeps the store, whoever works in it holds the folder: what else says it runs was killed.
    killed = config.metadata.type == "sqlite" and not busy(config)
    return [_run(store, context, reports, killed) for context in contexts[:last]]


def find(config: Config, run: str | None) -> Run:
    """Return the run of that id, or the newest with a report. Raises ConfigError where there is none."""
    known = runs(config)
    if run is None:
        found = next((r for r in known if r.report), None)
        if found is None:
            raise ConfigError(f"no run of {config.name} has left a report yet; `recsys run {config.path}` makes one")
        return found
    for candidate in known:
        if candidate.id == run:
            return candidate
    newest = ", ".join(r.id for r in known[:5]) or "none yet"
    raise ConfigError(f"--run {run}: no such run of {config.name}; the newest are {newest}")


def shown(runs: Sequence[Run], most: int = 3) -> dict[str, str]:
    """Return the metrics to show of runs and their titles: those that the newest evaluated model has."""
    newest = next((r.metrics for r in runs if r.metrics), {})
    return dict(list(shown_metrics(newest).items())[:most])


def busy(config: Config) -> bool:
    """Whether a whole run holds the config's folder on this machine."""
    path = f"{config.runs_folder}/.lock"
    if not os.path.exists(path):
        return False
    with open(path) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _reports(store: mlmd.MetadataStore) -> dict[str, metadata_store_pb2.Artifact]:
    """Return the newest report artifact of each run whose folder is still there."""
    found = {}
    for artifact in sorted(store.get_artifacts_by_type(REPORT_TYPE), key=lambda a: a.id):
        if artifact.state == _ARTIFACT.LIVE and os.path.exists(f"{artifact.uri}/report.json"):
            found[artifact.custom_properties["run"].string_value] = artifact
    return found


def _run(
    store: mlmd.MetadataStore,
    context: metadata_store_pb2.Context,
    reports: Mapping[str, metadata_store_pb2.Artifact],
    killed: bool,
) -> Run:
    run = context.name
    executions: Sequence[metadata_store_pb2.Execution] = store.get_executions_by_context(context.id)
    times = [(e.create_time_since_epoch / 1000, e.last_update_time_since_epoch / 1000) for e in executions]
    began = min((t for t, _ in times), default=context.create_time_since_epoch / 1000)
    ended = max((t for _, t in times), default=began)
    if run not in reports:
        state, by = _without_report(store, executions, killed)
        return Run(run, state, by, began, ended, None, {}, None)
    folder = reports[run].uri
    facts = read_facts(folder)
    overall = next((s for s in facts["slices"] if s["name"] == "all"), None)
    metrics = {m: e[0] for m, e in overall["metrics"]["candidate"].items()} if overall else {}
    outcome = facts["outcome"]
    return Run(run, outcome["state"], outcome["by"], began, ended, folder, metrics, facts["pushed"])


def _without_report(
    store: mlmd.MetadataStore, executions: Sequence[metadata_store_pb2.Execution], killed: bool
) -> tuple[RunState, str | None]:
    """Return how a run stands that left no report, and the node by which it does."""
    nodes = {_node(store, execution): execution for execution in executions}
    for node, execution in nodes.items():
        if execution.last_known_state == _EXECUTION.RUNNING:
            return (RunState.INTERRUPTED, node) if killed else (RunState.UNDER_WAY, None)
        if execution.last_known_state == _EXECUTION.FAILED:
            if execution.custom_properties["error"].string_value == KeyboardInterrupt.__name__:
                return RunState.INTERRUPTED, node
            refused = execution.custom_properties["refused"].int_value
            return (RunState.REFUSED if refused else RunState.BROKE), node
    if NodeId.TRANSFORM in nodes and NodeId.TRAINER not in nodes:
        return RunState.PREPARED, None
    return RunState.NO_REPORT, None


def _node(store: mlmd.MetadataStore, execution: metadata_store_pb2.Execution) -> str:
    """Return the node that an execution is of: the name of its context of that kind, less the pipeline's."""
    kinds = {context.id: context for context in store.get_contexts_by_execution(execution.id)}
    node = store.get_context_type("node").id
    return next((c.name.partition(".")[2] for c in kinds.values() if c.type_id == node), "")


def age(seconds: float) -> str:
    """Return a time span as people say it: `3 min`, `5 h`, `2 days`."""
    for unit, name in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= unit:
            count = int(seconds // unit)
            return f"{count} {'day' if name == 'days' and count == 1 else name}"
    return "now"
