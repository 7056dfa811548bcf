"""The graph as people and orchestrators read it."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import load_config
from pipeline.graph import drawing
from pipeline.graph.plan import path_beside, plan, text
from pipeline.running.nodes import Graph

CONFIG = Path(__file__).parents[3] / "configs" / "movielens.yaml"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return load_config(CONFIG, [f"runs.folder={tmp_path_factory.mktemp('runs')}"])


def test_the_committed_graph_is_the_graph(config):
    committed = Path(path_beside(load_config(CONFIG))).read_text(encoding="utf-8")
    assert committed == text(plan(config)), "run `make docs` and commit configs/movielens.graph.json"


def test_a_plan_has_every_edge_and_an_order_that_works(config):
    graph, drawn = Graph(config), json.loads(text(plan(config)))
    nodes = [node["id"] for node in drawn["nodes"]]
    assert nodes == graph.nodes
    assert [(up, node["id"]) for node in drawn["nodes"] for up in node["needs"]] == graph.edges()
    for number, node in enumerate(drawn["nodes"]):
        assert set(node["needs"]) <= set(nodes[:number])
    assert {n["id"] for n in drawn["nodes"] if n["gate"]} == {"DataGate", "Evaluator", "ServingCheck"}
    assert "DataGate" in graph.needs("Transform")


def drawn_edges(picture: str) -> set[str]:
    return {
        e.find(f"{SVG}title").text
        for e in ET.fromstring(picture).iter(f"{SVG}path")
        if e.find(f"{SVG}title") is not None
    }


def test_the_picture_has_every_node_and_edge(config):
    picture = drawing.svg(plan(config))
    names = {e.text for e in ET.fromstring(picture).iter(f"{SVG}text")}
    assert set(Graph(config).nodes) <= names
    assert drawn_edges(picture) == {f"{up} to {down}" for up, down in Graph(config).edges()}


@st.composite
def plans(draw):
    count = draw(st.integers(1, 12))
    needs = [draw(st.sets(st.integers(0, n - 1))) if n else set() for n in range(count)]
    nodes = [
        {
            "id": f"n<{n}>",
            "kind": f"n<{n}>",
            "needs": [f"n<{m}>" for m in sorted(needs[n])],
            "gate": False,
            "always": False,
        }
        for n in range(count)
    ]
    return {"name": "a&b", "nodes": nodes}


@settings(max_examples=50)
@given(plans())
def test_any_graph_is_drawn_whole_and_no_box_covers_another(plan):
    picture = drawing.svg(plan)
    root = ET.fromstring(picture)
    assert drawn_edges(picture) == {f"{up} to {node['id']}" for node in plan["nodes"] for up in node["needs"]}
    boxes = [tuple(float(r.get(k)) for k in ("x", "y", "width", "height")) for r in root.iter(f"{SVG}rect")]
    assert len(boxes) == len(plan["nodes"])
    for one, (x, y, width, height) in enumerate(boxes):
        assert x >= 0
        assert x + width <= float(root.get("width"))
        assert y >= 0
        assert y + height <= float(root.get("height"))
        for other in boxes[:one]:
            assert abs(x - other[0]) >= width or abs(y - other[1]) >= height
