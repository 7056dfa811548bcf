"""Which artifacts nobody needs any more, and freeing them.

Needed is what belongs to one of the newest runs or to a run that is not over, what a version that serves was made of,
and what the next run is compared with. The pages of runs stay, as does everything the store says about the rest.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Set
from dataclasses import dataclass
from pathlib import Path

from ml_metadata.proto import metadata_store_pb2
from tfx.orchestration import metadata

from components.artifacts import SPAN, VERDICT
from components.outcomes import ALWAYS_RUN, NodeState
from components.versions import artifacts_of, versions
from configs import Config
from pipeline.running.nodes import Graph
from pipeline.running.store import connection
from serving.release import Release

_ARTIFACT = metadata_store_pb2.Artifact


@dataclass(frozen=True)
class Run:
    """A run as freeing sees it: the artifacts it made or read, whether it is over, and when it last did something."""

    name: str
    artifacts: frozenset[int]
    over: bool
    last_sign: float  # seconds since 1970


@dataclass(frozen=True)
class Leftover:
    """An artifact that nobody needs, or one freed earlier whose files were not all gone."""

    id: int
    node: str
    uri: str
    bytes: int


def unneeded(
    artifacts: Iterable[int], runs: list[Run], keep: int, needed: Set[int], now: float, patience: float
) -> set[int]:
    """Return the artifacts to free. `runs` are oldest first; a run not over is waited for `patience` seconds."""
    kept = set(needed)
    for place, run in enumerate(runs):
        if place >= len(runs) - keep or (not run.over and now - run.last_sign <= patience):
            kept |= run.artifacts
    return set(artifacts) - kept


def find(config: Config, keep: int, patience: float) -> list[Leftover]:
    """Return what can be freed while the `keep` newest runs stay whole."""
    graph, root = Graph(config), f"{config.runs_folder}/artifacts/"
    with metadata.Metadata(connection(config)) as handle:
        store = handle.store
        pipeline = store.get_context_by_type_and_name("pipeline", graph.name)
        if pipeline is None:
            return []
        made = {a.id: a for a in store.get_artifacts_by_context(pipeline.id) if a.uri.startswith(root)}
        executions = {e.id for e in store.get_executions_by_context(pipeline.id)}
        runs = [_run(store, graph, id_, name) for id_, name in sorted(_runs_of(store, executions))]
        live = {id_ for id_, a in made.items() if a.state == _ARTIFACT.LIVE and _node(a, root) not in ALWAYS_RUN}
        free = unneeded(live, runs, keep, _served(config, made) | _compared(made), time.time(), patience)
        # A call that was killed half way has marked artifacts whose files are still there.
        free |= {id_ for id_, a in made.items() if a.state == _ARTIFACT.DELETED and os.path.exists(a.uri)}
    return [Leftover(i, _node(made[i], root), made[i].uri, _size(made[i].uri)) for i in sorted(free)]


def free(config: Config, leftovers: list[Leftover]) -> None:
    """Mark artifacts as gone, so that their nodes are run again where they are asked for, and remove the files."""
    with metadata.Metadata(connection(config)) as handle:
        marked = handle.store.get_artifacts_by_id([leftover.id for leftover in leftovers])
        for artifact in marked:
            artifact.state = _ARTIFACT.DELETED
        handle.store.put_artifacts(marked)
    for leftover in leftovers:
        shutil.rmtree(leftover.uri, ignore_errors=True)


def _runs_of(store, executions: Set[int]) -> list[tuple[int, str]]:
    """Return (id, name) of the runs that hold any of these executions."""
    contexts = store.get_contexts_by_type("pipeline_run")
    return [(c.id, c.name) for c in contexts if executions & {e.id for e in store.get_executions_by_context(c.id)}]


def _run(store, graph: Graph, context: int, name: str) -> Run:
    executions = store.get_executions_by_context(context)
    events = store.get_events_by_execution_ids([e.id for e in executions]) if executions else []
    ends = [graph.outcome(node, name) for node in graph.nodes if node not in ALWAYS_RUN]
    over = all(ends) or any(end is not None and end.state is NodeState.REFUSED for end in ends)
    last = max((e.last_update_time_since_epoch for e in executions), default=0) / 1000
    return Run(name, frozenset(e.artifact_id for e in events), over, last)


def _served(config: Config, artifacts: dict[int, metadata_store_pb2.Artifact]) -> set[int]:
    """Return what the newest version and those with a label were made of."""
    there = versions(config.model_folder)
    wanted = {*list(there)[-1:]}
    if os.path.exists(config.release_file):
        standing = Release.of(config).standing()
        wanted |= {*standing.labels.values(), *standing.versions}
    uris = {uri for version in wanted & there.keys() for uri in artifacts_of(there[version]).values()}
    return {id_ for id_, artifact in artifacts.items() if artifact.uri in uris}


def _compared(artifacts: dict[int, metadata_store_pb2.Artifact]) -> set[int]:
    """Return the verdicts that the next run may be held to, and the blessed models: the newest, and of each span."""
    needed: set[int] = set()
    newest: dict[tuple[str, int], int] = {}
    for id_, artifact in sorted(artifacts.items()):
        properties = artifact.custom_properties
        if artifact.state == _ARTIFACT.LIVE and VERDICT in properties and properties[VERDICT].int_value == 1:
            newest[artifact.type, properties[SPAN].int_value if SPAN in properties else 0] = id_
    for type_ in {type_ for type_, _ in newest}:
        spans = {span: id_ for (t, span), id_ in newest.items() if t == type_}
        # The last one made, and the one of the newest span where an old day was run again after it.
        needed |= {max(spans.values()), spans[max(spans)]}
    for id_ in list(needed):
        properties = artifacts[id_].custom_properties
        if "current_model_id" in properties:
            needed.add(properties["current_model_id"].int_value)
    return needed


def _node(artifact: metadata_store_pb2.Artifact, root: str) -> str:
    return artifact.uri.removeprefix(root).partition("/")[0]


def _size(folder: str) -> int:
    return sum(p.lstat().st_size for p in Path(folder).rglob("*") if p.is_file() or p.is_symlink())
