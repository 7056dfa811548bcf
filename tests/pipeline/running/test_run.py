"""What a whole run does around its nodes: refusals, errors, and the nodes that run all the same."""

from __future__ import annotations

import pytest

from components.outcomes import NodeState
from components.refusal import RefusedError
from configs import load_config
from pipeline.running import run as run_module
from pipeline.running import under_way
from pipeline.running.nodes import Outcome
from pipeline.running.run import Watcher, run

NODES = ["Ingest", "DataGate", "Trainer", "Report"]


@pytest.fixture
def config(tmp_path):
    text = """
name: shop
data: {source: logs.csv, user: u, item: i, time: t, label: {column: y}, split: {by: time}}
features: {u: {kind: vocabulary, of: user}, i: {kind: vocabulary, of: item}}
runs: {folder: runs}
"""
    (tmp_path / "shop.yaml").write_text(text)
    return load_config(tmp_path / "shop.yaml")


@pytest.fixture
def graph(monkeypatch):
    """A graph whose nodes end as `ends` says: in a state, or by raising; `ran` are those that were asked to run."""

    class Graph:
        nodes = NODES
        ends: dict = {}
        ran: list = []

        def __init__(self, config):
            Graph.ran = []

        def clean_up(self):
            return 0

        def run_node(self, node, run_id, profile=False):
            self.ran.append(node)
            end = self.ends.get(node, NodeState.DONE)
            if isinstance(end, Exception):
                raise end
            return Outcome(node, end, 0.0, {})

    monkeypatch.setattr(run_module, "Graph", Graph)
    monkeypatch.setattr(run_module, "why_refused", lambda outcome: f"by {outcome.node}")
    return Graph


def test_a_refused_run_is_told_of_and_stays_refused(config, graph):
    graph.ends = {"DataGate": NodeState.REFUSED}
    with pytest.raises(RefusedError, match="by DataGate"):
        run(config, Watcher())
    assert graph.ran == ["Ingest", "DataGate", "Report"]


def test_a_broken_run_is_told_of_and_stays_broken(config, graph):
    graph.ends = {"Trainer": ValueError("out of memory")}
    with pytest.raises(ValueError, match="out of memory"):
        run(config, Watcher())
    assert graph.ran == NODES


def test_where_nothing_was_ingested_there_is_nothing_to_tell(config, graph):
    graph.ends = {"Ingest": RefusedError("no rows")}
    with pytest.raises(RefusedError, match="no rows"):
        run(config, Watcher())
    assert graph.ran == ["Ingest"]


@pytest.mark.parametrize("gate", [NodeState.DONE, NodeState.REFUSED])
def test_a_report_that_cannot_be_made_is_heard_of_and_changes_nothing(config, graph, gate):
    graph.ends = {"DataGate": gate, "Report": KeyError("slices")}
    heard = []
    watcher = Watcher(failed=lambda node, error: heard.append((node, str(error))))
    if gate is NodeState.REFUSED:
        with pytest.raises(RefusedError, match="by DataGate"):
            run(config, watcher)
    else:
        assert set(run(config, watcher).outcomes) == {"Ingest", "DataGate", "Trainer"}
    assert heard == [("Report", "'slices'")]


def test_others_can_read_how_far_it_is_while_it_goes_on_and_not_after(config, graph):
    graph.ends = {}
    seen = []
    run(config, Watcher(started=lambda node: seen.append(under_way.read(config.runs_folder))))
    assert [[n["state"] for n in said["nodes"]] for said in seen] == [
        ["done"] * i + ["waiting"] * (len(NODES) - i) for i in range(len(NODES))
    ]
    assert under_way.read(config.runs_folder) is None
