"""What runs without a report are said to be."""

import ml_metadata as mlmd
import pytest
from ml_metadata.proto import metadata_store_pb2

from configs import load_config
from pipeline.running import history
from pipeline.running.locks import whole_folder
from pipeline.running.store import connection

CONFIG = """\
name: shop
data: {source: logs.csv, user: u, item: i, split: {by: hash}}
features: {u: {kind: vocabulary, of: user}, i: {kind: vocabulary, of: item}}
runs: {folder: runs}
"""
_Execution, _Context = metadata_store_pb2.Execution, metadata_store_pb2.Context


@pytest.fixture
def runs(tmp_path):
    """Keep runs in a store as TFX does: a context a run and a node, an execution of both."""
    (tmp_path / "shop.yaml").write_text(CONFIG)
    config = load_config(tmp_path / "shop.yaml")
    (tmp_path / "runs").mkdir()
    store = mlmd.MetadataStore(connection(config))
    kinds = {
        kind: store.put_context_type(metadata_store_pb2.ContextType(name=kind))
        for kind in ("pipeline", "pipeline_run", "node")
    }
    executed = store.put_execution_type(metadata_store_pb2.ExecutionType(name="Step"))

    def context(kind, name):
        (found,) = store.put_contexts([_Context(type_id=kinds[kind], name=name)])
        return found

    pipeline, nodes = context("pipeline", "shop"), {}

    def keep(run: str, **ended: str) -> None:
        of_run = context("pipeline_run", run)
        store.put_parent_contexts([metadata_store_pb2.ParentContext(child_id=of_run, parent_id=pipeline)])
        for node, state in ended.items():
            execution = _Execution(type_id=executed, last_known_state=_Execution.State.Value(state.split()[0]))
            if state.startswith("FAILED"):
                execution.custom_properties["error"].string_value = state.partition(" ")[2]
            if node not in nodes:
                nodes[node] = context("node", f"shop.{node}")
            contexts = [_Context(id=i, type_id=kinds[k], name=n) for i, k, n in (
                (of_run, "pipeline_run", run), (nodes[node], "node", f"shop.{node}"))]  # fmt: skip
            store.put_execution(execution, [], contexts, reuse_context_if_already_exist=True)

    return config, keep


def test_runs_without_a_report_are_told_apart(runs):
    config, keep = runs
    keep("1", Ingest="COMPLETE", Transform="CACHED")
    keep("2", Ingest="COMPLETE", Transform="COMPLETE", Trainer="FAILED KeyboardInterrupt")
    keep("3", Ingest="COMPLETE", Trainer="RUNNING")
    keep("4", Ingest="FAILED out of memory")
    keep("5", Ingest="COMPLETE")
    found = {run.id: (run.state, run.by) for run in history.runs(config)}
    assert found == {
        "1": ("prepared", None),
        "2": ("interrupted", "Trainer"),
        "3": ("interrupted", "Trainer"),
        "4": ("broke", "Ingest"),
        "5": ("no report", None),
    }
    with whole_folder(config.runs_folder):
        assert {run.id: run.state for run in history.runs(config)}["3"] == "under way"
