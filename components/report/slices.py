"""Metrics of every model on every slice as TFMA returns them, the worst of the candidate first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow_model_analysis as tfma

from components.evaluator.gates import CANDIDATE, OVERALL, slice_name
from components.evaluator.metrics import COMPARED
from configs.gates import LOWER_IS_BETTER

FEW_EXAMPLES, FEW_LABELS = 100, 10
MOST_ROWS = 400
_MOST_CURVE_NUMBERS = 120_000  # some 1.3 MB of the page

Estimate = list[float | None]  # value, lower and upper bound; None where TFMA has none


def read_slices(folder: str, models: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return each slice by name: columns, examples, positives, metrics by model, differences by other model, curves.

    `models` are TFMA's names of them, the candidate first.
    """
    slices: dict[str, dict[str, Any]] = {}
    for model in models:
        result = tfma.load_eval_result(folder, model_name=model)
        for key, outputs in result.slicing_metrics:
            name = slice_name([c for c, _ in key], [_text(v) for _, v in key])
            slice_ = slices.setdefault(
                name, {"name": name, "columns": [c for c, _ in key], "metrics": {}, "differences": {}, "curves": {}}
            )
            values = next(iter(next(iter(outputs.values())).values()))
            slice_["metrics"][model] = {metric: estimate(values.get(metric)) for metric in COMPARED}
            if model == models[0]:
                slice_["examples"] = int(estimate(values["example_count"])[0] or 0)
                mean = estimate(values["mean_label"])[0]
                slice_["positives"] = round(slice_["examples"] * (mean or 0.0))
            else:
                slice_["differences"][model] = {m: estimate(values.get(f"{m}_diff")) for m in COMPARED}
        for key, outputs in result.plots:
            name = slice_name([c for c, _ in key], [_text(v) for _, v in key])
            slices[name]["curves"][model] = _curves(next(iter(next(iter(outputs.values())).values())))
    for slice_ in slices.values():
        negatives = slice_["examples"] - slice_["positives"]
        slice_["few"] = slice_["examples"] < FEW_EXAMPLES or min(slice_["positives"], negatives) < FEW_LABELS
    return slices


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
        value = slices[name]["metrics"][CANDIDATE][metric][0]
        if value is None:
            return 3, 0.0, name
        return (2 if slices[name]["few"] else 1), -badness(metric, value), name

    return sorted((name for name in slices if name != OVERALL), key=rank)


def badness(metric: str, value: float) -> float:
    """Return a number that grows as the metric gets worse."""
    if metric == "calibration":
        return abs(math.log(value)) if value > 0 else math.inf
    return value if metric in LOWER_IS_BETTER else -value


def kept_curves(slices: Mapping[str, Mapping[str, Any]], order: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the curves by slice and model, of all examples and as many slices in order as the page has room for."""
    kept: dict[str, dict[str, Any]] = {}
    numbers = 0
    for name in [OVERALL, *order]:
        drawn = slices[name]["curves"]
        numbers += sum(5 * len(c["buckets"]) + 5 * len(c["matrices"]) for c in drawn.values())
        if numbers > _MOST_CURVE_NUMBERS and kept:
            break
        kept[name] = drawn
    return kept


def estimate(value: Mapping[str, Any] | None) -> Estimate:
    """Return one of TFMA's metric values as value, lower and upper bound."""
    value = value or {}
    if "boundedValue" in value:
        bounded = value["boundedValue"]
        return [number(bounded.get(part, 0.0)) for part in ("value", "lowerBound", "upperBound")]
    return [number(value.get("doubleValue")), None, None]


def number(value: Any) -> float | None:
    """Return a number of TFMA's JSON; None for one that is not finite."""
    return None if value is None or not math.isfinite(float(value)) else float(value)


def _curves(plot: Mapping[str, Any]) -> dict[str, list[list[float | None]]]:
    """Buckets: lower and upper score, examples, positives, sum of scores. Matrices: threshold, true and false
    positives, true and false negatives.
    """
    buckets = plot.get("calibrationHistogramBuckets", {}).get("buckets", [])
    matrices = plot.get("confusionMatrixAtThresholds", {}).get("matrices", [])
    sums = ("numWeightedExamples", "totalWeightedLabel", "totalWeightedRefinedPrediction")
    counts = ("threshold", "truePositives", "falsePositives", "trueNegatives", "falseNegatives")
    return {
        "buckets": [
            [
                short(b.get("lowerThresholdInclusive", 0.0)),
                short(b.get("upperThresholdExclusive", 0.0)),
                *(short(b.get(s, 0.0)) for s in sums),
            ]
            for b in buckets
        ],
        "matrices": [[short(m.get(c, 0.0)) for c in counts] for m in matrices],
    }


def short(value: Any) -> float | None:
    """Return a number in six digits: what a picture can show."""
    exact = number(value)
    return None if exact is None else float(f"{exact:.6g}")


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
