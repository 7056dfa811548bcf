"""The graph as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any
from xml.sax.saxutils import escape

from fast_sugiyama import from_edges

_BOX = (148, 40)  # px
_STEP = (206, 64)  # px between centres: along the way of the data, and across it
_MARGIN = 24
_UNIT = 72  # what the layout takes for one step

Bend = tuple[int, int]  # the part of the graph, and the layout's number in it: parts count anew

_STYLE = """\
svg { font: 13px system-ui, sans-serif; background: #fff; color: #1b1f24 }
rect { fill: #f3f5f8; stroke: #57606a } .gate rect { fill: #fff4d6; stroke: #9a6700 }
.always rect { stroke-dasharray: 4 3 } path { fill: none; stroke: #8c959f; stroke-width: 1.3 }
text { fill: currentColor; text-anchor: middle } .kind { font-size: 10px; fill: #57606a } marker path { fill: #8c959f }
@media (prefers-color-scheme: dark) { svg { background: #0d1117; color: #e6edf3 }
rect { fill: #1c2330; stroke: #8b949e }
.gate rect { fill: #3a2d0a; stroke: #d29922 } path { stroke: #6e7681 } .kind { fill: #9da7b3 } }"""


def svg(plan: Mapping[str, Any]) -> str:
    """Return a plan's nodes and edges as SVG, the data going from left to right. Gates are amber."""
    nodes = {node["id"]: node for node in plan["nodes"]}
    edges = [(up, node["id"]) for node in plan["nodes"] for up in node["needs"]]
    places, steps = _layout(list(nodes), edges)
    width = max(x for x, _ in places.values()) + _BOX[0] / 2 + _MARGIN
    height = max(y for _, y in places.values()) + _BOX[1] / 2 + _MARGIN
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" role="img" aria-label="Graph of {escape(plan["name"])}">',
        f"<style>{_STYLE}</style>",
        '<marker id="end" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 8 4 0 8z"/></marker>',
        *(_edge(up, down, way, places) for up, down, way in steps),
    ]
    for name, node in nodes.items():
        x, y = places[name]
        kinds = [kind for kind in ("gate", "always") if node[kind]]
        lines.append(
            f'<g class="{" ".join(["node", *kinds])}"><title>{escape(name)}, a {escape(node["kind"])}'
            f"{', a gate' if node['gate'] else ''}</title>"
            f'<rect x="{x - _BOX[0] / 2:.1f}" y="{y - _BOX[1] / 2:.1f}" width="{_BOX[0]}" height="{_BOX[1]}" rx="6"/>'
            f'<text x="{x:.1f}" y="{y + (-1 if node["kind"] != name else 4):.1f}">{escape(name)}</text>'
            + (
                f'<text class="kind" x="{x:.1f}" y="{y + 13:.1f}">{escape(node["kind"])}</text>'
                if node["kind"] != name
                else ""
            )
            + "</g>"
        )
    return "\n".join([*lines, "</svg>", ""])


def _layout(
    nodes: list[str], edges: list[tuple[str, str]]
) -> tuple[dict[str | Bend, tuple[float, float]], list[tuple[str, str, list[Bend]]]]:
    """Return centres by node, and each edge with the bends it takes around the nodes between."""
    places: dict[str | Bend, tuple[float, float]] = {}
    onward: dict[str | Bend, list[str | Bend]] = {}
    below = _BOX[1] / 2 + _MARGIN - _STEP[1]
    # A part at a time: of several, the layout may give a bend the number of another part's node.
    for number, part in enumerate(_parts(edges)):
        ((found, *_, ways),) = from_edges(part, ranking_type="down").dot_layout()
        left, top = max(y for _, (_, y) in found), min(x for _, (x, _) in found)
        at_top = below + _STEP[1]
        for node, (x, y) in found:
            across = at_top + (x - top) / _UNIT * _STEP[1]
            places[_own(number, node)] = _BOX[0] / 2 + _MARGIN + (left - y) / _UNIT * _STEP[0], across
            below = max(below, across)
        for up, down in ways:
            onward.setdefault(_own(number, up), []).append(_own(number, down))
    for number, node in enumerate(node for node in nodes if node not in places):
        places[node] = (_BOX[0] / 2 + _MARGIN, below + (number + 1) * _STEP[1])
    steps = []
    for up in nodes:
        for first in onward.get(up, []):
            way, at = [], first
            while isinstance(at, tuple):  # a bend: it has one way in and one way out
                way.append(at)
                (at,) = onward[at]
            steps.append((up, at, way))
    return places, steps


def _parts(edges: list[tuple[str, str]]) -> list[list[tuple[str, str]]]:
    """Return the edges of each part of the graph that hangs together."""
    parts: list[set[str]] = []
    for edge in edges:
        touched = [nodes for nodes in parts if nodes & set(edge)]
        parts = [nodes for nodes in parts if nodes not in touched] + [set(edge).union(*touched)]
    return [[edge for edge in edges if edge[0] in nodes] for nodes in parts]


def _own(part: int, node: str | int) -> str | Bend:
    return node if isinstance(node, str) else (part, node)


def _edge(up: str, down: str, way: list[Bend], places: Mapping[str | Bend, tuple[float, float]]) -> str:
    half = _BOX[0] / 2
    points = [(places[up][0] + half, places[up][1])]
    for bend in way:
        x, y = places[bend]
        points += [(x - half, y), (x + half, y)]
    points.append((places[down][0] - half, places[down][1]))
    path = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    for (x0, y0), (x1, y1) in pairwise(points):
        middle = (x0 + x1) / 2
        path += (
            f" L{x1:.1f} {y1:.1f}" if y0 == y1 else f" C{middle:.1f} {y0:.1f} {middle:.1f} {y1:.1f} {x1:.1f} {y1:.1f}"
        )
    return f'<path d="{path}" marker-end="url(#end)"><title>{escape(up)} to {escape(down)}</title></path>'
