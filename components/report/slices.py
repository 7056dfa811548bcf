"""Metrics of every model on every slice, and their curves, as TFMA returns them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from components.evaluator.component import load_result
from components.evaluator.gates import slice_name
from components.evaluator.metrics import COMPARED
from components.report.order import FEW_EXAMPLES, FEW_LABELS
from configs.gates import at_k

Estimate = list[float | None]  # value, lower and upper bound; None where TFMA has none


def read_slices(folder: str, models: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return each slice by name: columns, examples, positives, metrics by model, differences by other model, curves.

    `models` are TFMA's names of them, the candidate first.
    """
    slices: dict[str, dict[str, Any]] = {}
    for model in models:
        result = load_result(folder, model, models)
        for key, outputs in result.slicing_metrics:
            name = slice_name([c for c, _ in key], [_text(v) for _, v in key])
            slice_ = slices.setdefault(
                name, {"name": name, "columns": [c for c, _ in key], "metrics": {}, "differences": {}, "curves": {}}
            )
            values = next(iter(next(iter(outputs.values())).values()))
            of_lists = [metric for metric in values if at_k(metric)]
            slice_["metrics"][model] = {metric: estimate(values.get(metric)) for metric in (*COMPARED, *of_lists)}
            if model == models[0]:
                slice_["examples"] = int(estimate(values["example_count"])[0] or 0)
                mean = estimate(values["mean_label"])[0]
                slice_["positives"] = round(slice_["examples"] * (mean or 0.0))
                slice_["ranked_users"] = estimate(values.get("ranked_users"))[0]
            else:
                slice_["differences"][model] = {m: estimate(values.get(f"{m}_diff")) for m in (*COMPARED, *of_lists)}
        for key, outputs in result.plots:
            name = slice_name([c for c, _ in key], [_text(v) for _, v in key])
            slices[name]["curves"][model] = _curves(next(iter(next(iter(outputs.values())).values())))
    one_label = all(slice_["examples"] == slice_["positives"] for slice_ in slices.values())
    for slice_ in slices.values():
        if one_label:
            _leave_to_lists(slice_)
        labels = (slice_["positives"], slice_["examples"] - slice_["positives"])
        slice_["few"] = slice_["examples"] < FEW_EXAMPLES or (min(labels) < FEW_LABELS and not one_label)
    return slices


def _leave_to_lists(slice_: dict[str, Any]) -> None:
    """Take out what tells positives from negatives: of one label it says nothing."""
    for found in (*slice_["metrics"].values(), *slice_["differences"].values()):
        found.update({metric: [None, None, None] for metric in COMPARED})
    slice_["curves"] = {}


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
