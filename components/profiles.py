"""What the nodes of a run took, beside the last run's: the table that `recsys run --profile` and the report show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from components.outcomes import NodeId

PROPERTY = "profile"  # custom property of an execution: what was measured, as JSON
_LONGEST = 8  # steps of a node


def with_rows(profile: Mapping[str, Any], node: str, rows: Mapping[str, int]) -> dict[str, Any]:
    """Return a profile with its rows a second, where a node goes over rows once; `rows` are those of each split."""
    over_all = node in (NodeId.INGEST, NodeId.STATISTICS, NodeId.TRANSFORM)
    gone_over = sum(rows.values()) if over_all else rows.get("test", 0) if node == NodeId.EVALUATOR else 0
    per_second = round(gone_over / profile["seconds"]) if gone_over and profile["seconds"] else None
    return {**profile, "rows_per_second": per_second, "steps": list(profile.get("steps", []))[:_LONGEST]}


def by_node(nodes: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the profiles in a report's history of nodes."""
    return {n["node"]: n[PROPERTY] for n in nodes if n.get(PROPERTY)}
