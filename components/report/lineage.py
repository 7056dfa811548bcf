"""Where a run comes from: nodes and times, config and its difference, logs, versions, and the chain of what serves."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from ml_metadata.proto import metadata_store_pb2
from tfx.orchestration.portable.mlmd import event_lib

from components.artifacts import RunReport
from components.outcomes import NodeState
from components.profiles import PROPERTY
from components.versions import manifest_of, versions

REPORT_JSON = "report.json"
_LIBRARIES = (
    "tfx-recsys", "tfx", "tensorflow", "tf-keras", "tensorflow-data-validation", "tensorflow-transform",
    "tensorflow-model-analysis", "apache-beam", "ml-metadata", "pyarrow", "numpy",
)  # fmt: skip
_STATES = {
    metadata_store_pb2.Execution.COMPLETE: NodeState.DONE,
    metadata_store_pb2.Execution.CACHED: NodeState.CACHED,
    metadata_store_pb2.Execution.FAILED: NodeState.FAILED,
    metadata_store_pb2.Execution.RUNNING: NodeState.RUNNING,
    metadata_store_pb2.Execution.NEW: NodeState.RUNNING,
    metadata_store_pb2.Execution.CANCELED: NodeState.FAILED,
}


def node_history(store: Any, pipeline: str, run: str, nodes: Sequence[str]) -> list[dict[str, Any]]:
    """Return how each of `nodes` went in a run, as the metadata store has it: state, seconds, start and error."""
    context = store.get_context_by_type_and_name("pipeline_run", run)
    in_run = {e.id: e for e in store.get_executions_by_context(context.id)} if context else {}
    found = []
    for node in nodes:
        of_node = store.get_context_by_type_and_name("node", f"{pipeline}.{node}")
        executions = [e for e in store.get_executions_by_context(of_node.id) if e.id in in_run] if of_node else []
        entry: dict[str, Any] = {"node": node, "state": NodeState.NOT_RUN, "seconds": None, "started": None}
        if executions:
            last = max(executions, key=lambda e: e.id)
            entry |= {
                "state": _STATES.get(last.last_known_state, NodeState.UNKNOWN),
                "seconds": (last.last_update_time_since_epoch - last.create_time_since_epoch) / 1000,
                "started": last.create_time_since_epoch / 1000,
            }
            if PROPERTY in last.custom_properties:
                entry[PROPERTY] = json.loads(last.custom_properties[PROPERTY].string_value)
            if "error" in last.custom_properties:
                entry["error"] = last.custom_properties["error"].string_value
                entry["refused"] = bool(last.custom_properties["refused"].int_value)
        found.append(entry)
    return found


def producer(store: Any, uri: str) -> metadata_store_pb2.Execution | None:
    """Return the execution that wrote the artifact at `uri`."""
    artifacts = store.get_artifacts_by_uri(uri)
    events = store.get_events_by_artifact_ids([a.id for a in artifacts]) if artifacts else []
    made = [e.execution_id for e in events if event_lib.is_valid_output_event(e)]
    return store.get_executions_by_id([min(made)])[0] if made else None


def log_files(store: Any, examples: str) -> list[dict[str, Any]]:
    """Return the log files that the examples at `examples` were read from: path, bytes, modified, span."""
    execution = producer(store, examples)
    text = execution.custom_properties["files"].string_value if execution else ""
    return json.loads(text) if text else []


def previous_report(store: Any, run: str) -> str | None:
    """Return the folder of the newest report of another run, if it is still there."""
    reports = store.get_artifacts_by_type(RunReport.TYPE_NAME)
    for artifact in sorted(reports, key=lambda a: a.id, reverse=True):
        if artifact.custom_properties["run"].string_value not in ("", run) and os.path.exists(artifact.uri):
            return artifact.uri
    return None


def served(folder: str) -> dict[str, Any] | None:
    """Return the manifest of the newest version in a model folder, and where it lies."""
    for version in reversed(versions(folder).values()):
        if manifest := manifest_of(version):
            return {**manifest, "path": str(version)}
    return None


def chain(store: Any, manifest: Mapping[str, Any] | None) -> list[dict[str, str]]:
    """Return the way from a served version back to its logs, a step each: what, where, and what made it."""
    if manifest is None:
        return []
    artifacts = manifest.get("artifacts", {})
    steps = [
        {"what": "version", "name": f"{manifest.get('model')} {manifest.get('version')}", "where": manifest["path"]},
        {"what": "run", "name": str(manifest.get("run")), "where": f"config {manifest.get('config_digest')}"},
    ]
    for what in ("model", "examples"):
        if what in artifacts:
            execution = producer(store, artifacts[what])
            made = f"execution {execution.id} ({execution.type})" if execution else "its execution is not in this store"
            steps.append({"what": what, "name": made, "where": artifacts[what]})
    for file in log_files(store, artifacts["examples"]) if "examples" in artifacts else []:
        span = f", span {file['span']}" if file.get("span") else ""
        steps.append({"what": "logs", "name": f"{file['bytes']:,} bytes{span}", "where": file["path"]})
    return steps


def libraries() -> dict[str, str]:
    """Return the versions of what computes."""
    found = {"python": platform.python_version(), "platform": f"{platform.system()} {platform.machine()}"}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
