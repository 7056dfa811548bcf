"""Running one node of a run: the one way that local runs and every orchestrator share."""

from __future__ import annotations

import copy
import json
import os
import shutil
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import ml_metadata as mlmd
from ml_metadata.proto import metadata_store_pb2
from tfx.dsl.compiler.compiler import Compiler
from tfx.dsl.compiler.constants import PIPELINE_RUN_ID_PARAMETER_NAME
from tfx.orchestration import metadata
from tfx.orchestration.local import runner_utils
from tfx.orchestration.pipeline import Pipeline
from tfx.orchestration.portable import launcher, runtime_parameter_utils
from tfx.orchestration.portable.mlmd import event_lib
from tfx.proto.orchestration import pipeline_pb2

from components.artifacts import PUSHED, VERDICT
from components.outcomes import ALWAYS_RUN, RESOLVERS, NodeState
from components.profiles import PROPERTY
from components.refusal import RefusedError
from components.verdict import Verdict, read_verdict
from configs import Config
from pipeline.graph.build import create_pipeline
from pipeline.graph.digests import add_digests
from pipeline.running.profile import Profile, profiled

_EXECUTION = metadata_store_pb2.Execution
_FINISHED = (_EXECUTION.COMPLETE, _EXECUTION.CACHED)
_UNFINISHED = (_EXECUTION.NEW, _EXECUTION.RUNNING)
_ARTIFACT = metadata_store_pb2.Artifact
_BLESSING = "blessing"


class NodeFailedError(Exception):
    """A node did not end well, and no exception of its own said why."""


@dataclass(frozen=True)
class Outcome:
    """What a node that ended has made: artifacts by output, and how long it took. `why` says why it was skipped.

    `profile` is what was measured, where that was asked for when the node ran.
    """

    node: str
    state: NodeState
    seconds: float
    outputs: Mapping[str, list[metadata_store_pb2.Artifact]]
    why: str = ""
    profile: Mapping[str, Any] | None = None

    def uri(self, output: str) -> str:
        """Return where an output's only artifact lies."""
        return self.outputs[output][0].uri

    @property
    def verdict(self) -> Verdict | None:
        """What a gate decided; None for other nodes, and where what it wrote is gone."""
        artifacts = [] if self.node in RESOLVERS else [*self.outputs.get(_BLESSING, [])]
        return read_verdict(artifacts[0].uri) if artifacts and os.path.isdir(artifacts[0].uri) else None


class Graph:
    """A config's compiled pipeline, run node by node, and what its metadata store knows."""

    def __init__(self, config: Config, pipeline: Pipeline | None = None):
        self._pipeline: pipeline_pb2.Pipeline = Compiler().compile(pipeline or create_pipeline(config))
        add_digests(self._pipeline)
        self._root = config.runs_folder
        os.makedirs(self._root, exist_ok=True)

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return self._pipeline.pipeline_info.id

    @property
    def nodes(self) -> list[str]:
        """The nodes' ids, each after those it needs."""
        return [node.pipeline_node.node_info.id for node in self._pipeline.nodes]

    def needs(self, node: str) -> list[str]:
        """Return the nodes that `node` waits for."""
        return sorted(self._node(node).upstream_nodes, key=self.nodes.index)

    def edges(self) -> list[tuple[str, str]]:
        """Return (upstream, downstream) pairs."""
        return [(up, node) for node in self.nodes for up in self.needs(node)]

    def kind(self, node: str) -> str:
        """Return what a node is: its component's type."""
        return self._node(node).node_info.type.name.rpartition(".")[2]

    def is_gate(self, node: str) -> bool:
        """Whether a node gives a verdict that can stop the run."""
        return _BLESSING in self._node(node).outputs.outputs and self.kind(node) != "Resolver"

    def outcome(self, node: str, run: str) -> Outcome | None:
        """Return how `node` ended in `run`; None where it did not, not yet, or what it made has been freed since."""
        with metadata.Metadata(self._connection()) as handle:
            return self._outcome(handle.store, node, run)

    def latest(self, node: str) -> tuple[Outcome, Mapping[str, metadata_store_pb2.Value]] | None:
        """Return how `node` last ended well, in any run, and the properties it ran with.

        None where it never did, or nothing that it made is left.
        """
        with metadata.Metadata(self._connection()) as handle:
            of_node = handle.store.get_context_by_type_and_name("node", f"{self._pipeline.pipeline_info.id}.{node}")
            executions = handle.store.get_executions_by_context(of_node.id) if of_node else []
            for execution in sorted(executions, key=lambda e: -e.id):
                if execution.last_known_state in _FINISHED:
                    outcome = _outcome(handle.store, node, execution)
                    if all(os.path.exists(a.uri) for artifacts in outcome.outputs.values() for a in artifacts):
                        return outcome, execution.custom_properties
        return None

    def run_node(self, node: str, run: str, profile: bool = False) -> Outcome:
        """Run `node` as part of `run` and return how it ended; do nothing where it has ended well already.

        A node behind a gate that said no in this run is skipped. What a call that was killed has left is cleaned up
        first. Nodes of ALWAYS_RUN run again, as what they tell of may have changed, and replace what they wrote. Raises
        what the node raised, or NodeFailedError; what a failed node has written is removed, and the metadata store
        keeps the error's words. With `profile` it keeps what the node took as well, unless that came
        from cache. No other process may run the same node at the same time.
        """
        with metadata.Metadata(self._connection()) as handle:
            before = self._executions(handle.store, node, run)
            if node in ALWAYS_RUN:
                self._discard(handle.store, before)
            else:
                if known := self._outcome(handle.store, node, run):
                    return known
                # TFX takes up a step's own execution again, but not one that counts as done: its artifacts were freed.
                self._discard(handle.store, before)
                if gate := self._refused_before(handle.store, node, run):
                    return Outcome(node, NodeState.SKIPPED, 0.0, {}, f"{gate} said no in this run")
        ir = copy.deepcopy(self._pipeline)
        runtime_parameter_utils.substitute_runtime_parameter(ir, {PIPELINE_RUN_ID_PARAMETER_NAME: run})
        pipeline_node = next(n.pipeline_node for n in ir.nodes if n.pipeline_node.node_info.id == node)
        deployment = runner_utils.extract_local_deployment_config(ir)
        connection = self._connection()
        try:
            with profiled() if profile else nullcontext() as measured:
                launcher.Launcher(
                    pipeline_node=pipeline_node,
                    mlmd_connection=metadata.Metadata(connection),
                    pipeline_info=ir.pipeline_info,
                    pipeline_runtime_spec=ir.runtime_spec,
                    executor_spec=runner_utils.extract_executor_spec(deployment, node),
                    custom_driver_spec=runner_utils.extract_custom_driver_spec(deployment, node),
                ).launch()
        except BaseException as error:
            with metadata.Metadata(connection) as handle:
                failed = [e for e in self._executions(handle.store, node, run) if e.last_known_state not in _FINISHED]
                for execution in failed:
                    execution.custom_properties["error"].string_value = str(error) or type(error).__name__
                    execution.custom_properties["refused"].int_value = int(isinstance(error, RefusedError))
                self._discard(handle.store, failed)
            raise
        if measured is not None:
            self._keep(measured, node, run)
        # The launcher returns without a word where a node's inputs do not resolve: only the metadata store is believed.
        ended = self.outcome(node, run)
        if ended is None:
            raise NodeFailedError(
                f"{node} did not run: its inputs are not there, or it ended without success. "
                "Have the nodes before it run in the same run?"
            )
        return ended

    def clean_up(self) -> int:
        """Mark what an earlier run left unfinished as failed, remove what it wrote, and return how many steps it was.

        Call it only while nothing runs in this folder.
        """
        with metadata.Metadata(self._connection()) as handle:
            of_pipeline = handle.store.get_context_by_type_and_name("pipeline", self.name)
            known = handle.store.get_executions_by_context(of_pipeline.id) if of_pipeline else []
            unfinished = [e for e in known if e.last_known_state in _UNFINISHED]
            self._discard(handle.store, unfinished)
        return len(unfinished)

    def _keep(self, profile: Profile, node: str, run: str) -> None:
        with metadata.Metadata(self._connection()) as handle:
            for execution in self._executions(handle.store, node, run)[-1:]:
                if execution.last_known_state == _EXECUTION.COMPLETE:
                    execution.custom_properties[PROPERTY].string_value = json.dumps(asdict(profile))
                    handle.store.put_executions([execution])

    def _node(self, node: str) -> pipeline_pb2.PipelineNode:
        return next(n.pipeline_node for n in self._pipeline.nodes if n.pipeline_node.node_info.id == node)

    def _refused_before(self, store: mlmd.MetadataStore, node: str, run: str) -> str | None:
        """Return the first gate that `node` depends on, however far up, and that said no in `run`."""
        above: set[str] = set()
        todo = [node]
        while todo:
            fresh = set(self.needs(todo.pop())) - above
            above |= fresh
            todo.extend(fresh)
        for gate in self.nodes:
            if gate in above and self.is_gate(gate):
                outcome = self._outcome(store, gate, run)
                if outcome is not None and outcome.state is NodeState.REFUSED:
                    return gate
        return None

    def _outcome(self, store: mlmd.MetadataStore, node: str, run: str) -> Outcome | None:
        for execution in reversed(self._executions(store, node, run)):
            if execution.last_known_state in _FINISHED:
                outcome = _outcome(store, node, execution)
                # What a resolver found is another run's; that it has gone since changes nothing about this one.
                freed = self.kind(node) != "Resolver" and not all(outcome.outputs.values())
                return None if freed else outcome
        return None

    def _discard(self, store: mlmd.MetadataStore, executions: list[metadata_store_pb2.Execution]) -> None:
        """Mark executions as failed and remove their outputs."""
        for execution in executions:
            for folder in self._output_folders(execution.id):
                shutil.rmtree(folder, ignore_errors=True)
            execution.last_known_state = _EXECUTION.FAILED
        if executions:
            store.put_executions(executions)

    def _output_folders(self, execution: int) -> list[str]:
        root = f"{self._root}/artifacts"
        found = []
        for node in os.listdir(root) if os.path.isdir(root) else []:
            for output in os.listdir(f"{root}/{node}"):
                for base in (f"{root}/{node}/{output}", f"{root}/{node}/.system/executor_execution"):
                    if os.path.isdir(f"{base}/{execution}"):
                        found.append(f"{base}/{execution}")
        return found

    def _connection(self) -> metadata_store_pb2.ConnectionConfig:
        config = runner_utils.extract_local_deployment_config(self._pipeline).metadata_connection_config
        return getattr(config, config.WhichOneof("connection_config"))

    def _executions(self, store: mlmd.MetadataStore, node: str, run: str) -> list[metadata_store_pb2.Execution]:
        """Return the executions of a node in a run, oldest first."""
        of_run = store.get_context_by_type_and_name("pipeline_run", run)
        of_node = store.get_context_by_type_and_name("node", f"{self._pipeline.pipeline_info.id}.{node}")
        if of_run is None or of_node is None:
            return []
        in_run = {e.id for e in store.get_executions_by_context(of_run.id)}
        return sorted((e for e in store.get_executions_by_context(of_node.id) if e.id in in_run), key=lambda e: e.id)


def new_run_id() -> str:
    """Return a run id that sorts by time."""
    now = time.time()
    return time.strftime("%Y%m%dT%H%M%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}"


def _outcome(store: mlmd.MetadataStore, node: str, execution: metadata_store_pb2.Execution) -> Outcome:
    events = [e for e in store.get_events_by_execution_ids([execution.id]) if event_lib.is_valid_output_event(e)]
    artifacts = {a.id: a for a in store.get_artifacts_by_id([e.artifact_id for e in events])}
    outputs: dict[str, list[metadata_store_pb2.Artifact]] = {}
    for event in events:
        made = outputs.setdefault(event.path.steps[0].key, [])
        if artifacts[event.artifact_id].state != _ARTIFACT.DELETED:
            made.append(artifacts[event.artifact_id])
    state = NodeState.CACHED if execution.last_known_state == _EXECUTION.CACHED else NodeState.DONE
    # Only a gate has this output of its own; a resolver's is an earlier run's, which does not stop this one.
    if "Resolver" not in execution.type and any(
        a.custom_properties[VERDICT].int_value == 0 for a in outputs.get(_BLESSING, [])
    ):
        state = NodeState.REFUSED
    why = ""
    for artifact in outputs.get("pushed_model", []):
        if artifact.custom_properties[PUSHED].int_value == 0:
            state, why = NodeState.SKIPPED, artifact.custom_properties["summary"].string_value
    seconds = (execution.last_update_time_since_epoch - execution.create_time_since_epoch) / 1000
    measured = execution.custom_properties[PROPERTY].string_value if PROPERTY in execution.custom_properties else ""
    return Outcome(node, state, seconds, outputs, why, json.loads(measured) if measured else None)
