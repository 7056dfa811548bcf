"""Which slices come first, which are too small to say anything, and how much of them a page has room for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from components.evaluator.gates import CANDIDATE, OVERALL
from configs.gates import lower_is_better

FEW_EXAMPLES, FEW_LABELS = 100, 10
MOST_ROWS = 400
_MOST_CURVE_NUMBERS = 120_000  # some 1.3 MB of the page


def worst_first(
    slices: Mapping[str, Mapping[str, Any]], judgements: Sequence[Mapping[str, Any]], metric: str
) -> list[str]:
    """Return the slices' names but OVERALL: those that fail a gate by their margin, the others by `metric`, then those
    too small to say anything.
    """
    failed: dict[str, float] = {}
    for judgement in judgements:
        if not judgement["passed"]:
            margin = judgement["margin"]
            failed[judgement["slice"]] = min(
                failed.get(judgement["slice"], 0.0), -math.inf if margin is None else margin
            )

    def rank(name: str) -> tuple:
        if name in failed:
            return 0, failed[name], name
        value = slices[name]["metrics"][CANDIDATE].get(metric, [None])[0]
        if value is None:
            return 3, 0.0, name
        return (2 if slices[name]["few"] else 1), -badness(metric, value), name

    return sorted((name for name in slices if name != OVERALL), key=rank)


def badness(metric: str, value: float) -> float:
    """Return a number that grows as the metric gets worse."""
    if metric == "calibration":
        return abs(math.log(value)) if value > 0 else math.inf
    return value if lower_is_better(metric) else -value


def kept_curves(slices: Mapping[str, Mapping[str, Any]], order: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the curves by slice and model, of all examples and as many slices in order as the page has room for."""
    kept: dict[str, dict[str, Any]] = {}
    numbers = 0
    for name in [OVERALL, *order]:
        drawn = slices[name]["curves"]
        if not drawn:
            continue
        numbers += sum(5 * len(c["buckets"]) + 5 * len(c["matrices"]) for c in drawn.values())
        if numbers > _MOST_CURVE_NUMBERS and kept:
            break
        kept[name] = drawn
    return kept
