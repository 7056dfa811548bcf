"""Every metric of a binary label as one TFMA metric: gathered once, computed exactly, with intervals and curves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
import pandas as pd
from tensorflow_model_analysis.metrics import metric_types
from tensorflow_model_analysis.proto import config_pb2

from components.evaluator.curves import CURVES, curves
from components.evaluator.gauc import grouped_auc
from components.evaluator.intervals import leave_one_out, with_interval
from components.evaluator.logloss import log_losses
from components.evaluator.prauc import area_under_precision_recall
from configs.metrics import METRICS as OTHERS

METRICS = (
    "auc", "gauc", "prauc", "logloss", "calibration", "mean_label", "mean_prediction", "example_count", *OTHERS,
)  # fmt: skip
COMPARED = (
    "auc", "gauc", "prauc", "logloss", "calibration", *(name for name, metric in OTHERS.items() if metric.intervals),
)  # fmt: skip


def of_one_label(overall: Mapping[str, float]) -> bool:
    """Say whether the examples that these metrics are of are all positives, or all negatives."""
    return overall.get("mean_label") in (0.0, 1.0)


Gathered = tuple[np.ndarray, np.ndarray, np.ndarray]  # hashed users and labels [examples], scores [models, examples]


def binary_metrics(users: np.ndarray, labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Return METRICS of examples, arrays of shape [examples]; NaN for what cannot be computed.

    `auc` and `prauc` use every score as a threshold, so they are the values that bucketed ones tend to. Ties count half
    in `auc`; `prauc` interpolates between thresholds as Davis and Goadrich 2006 do. `calibration` is the sum of scores
    over the sum of labels.
    """
    count = len(labels)
    if not count:
        return {**dict.fromkeys(METRICS, float("nan")), "example_count": 0.0}
    labels, scores = labels.astype(np.float64), scores.astype(np.float64)
    positives = labels.sum()
    return {
        "auc": grouped_auc(np.zeros(count, np.int8), labels, scores),
        "gauc": grouped_auc(users, labels, scores),
        "prauc": area_under_precision_recall(labels, scores),
        "logloss": float(log_losses(labels, scores).mean()),
        "calibration": float(scores.sum() / positives) if positives else float("nan"),
        "mean_label": float(positives / count),
        "mean_prediction": float(scores.mean()),
        "example_count": float(count),
        **{name: metric.compute(users, labels, scores) for name, metric in OTHERS.items()},
    }


class BinaryMetrics(metric_types.Metric):
    """METRICS, INTERVALS' confidence intervals and CURVES in one pass, for batches as `SliceBatches` makes them.

    Every other model also gets the first model's difference from it, as TFMA names differences: `auc_diff`.

    A slice costs 16 bytes an example, and 4 for each model after the first, while it is gathered, and some 150 bytes an
    example for one model at a time while its metrics are computed: 10 million examples and 4 models need 1.8 GB.
    """

    def __init__(self, user: str, name: str = "binary_metrics"):
        """`user` is the column of the user's id."""
        super().__init__(_computations, name=name, user=user)


metric_types.register_metric(BinaryMetrics)


def _computations(
    user: str,
    name: str = "",
    eval_config: config_pb2.EvalConfig | None = None,
    model_names: list[str] | None = None,
    example_weighted: bool = False,
) -> metric_types.MetricComputations:
    models = model_names or [""]

    def key(model: str, metric: str, is_diff: bool = False) -> metric_types.MetricKey:
        return metric_types.MetricKey(name=metric, model_name=model, example_weighted=example_weighted, is_diff=is_diff)

    def plot(model: str, curve: str) -> metric_types.PlotKey:
        return metric_types.PlotKey(name=curve, model_name=model, example_weighted=example_weighted)

    keys = _Keys(
        metrics=[{metric: key(model, metric) for metric in METRICS} for model in models],
        differences=[{metric: key(model, metric, is_diff=True) for metric in COMPARED} for model in models[1:]],
        curves=[{curve: plot(model, curve) for curve in CURVES} for model in models],
    )
    # With one model TFMA leaves its name out.
    specs = eval_config.model_specs if eval_config else []
    prediction_keys = [
        next((s.prediction_key for s in specs if s.name == model or len(specs) == 1), "") for model in models
    ]
    return [
        metric_types.MetricComputation(
            keys=[k for group in (keys.metrics, keys.differences, keys.curves) for by in group for k in by.values()],
            preprocessors=[metric_types.FeaturePreprocessor(feature_keys=[user])],
            combiner=_Gather(keys, user, models, prediction_keys),
        )
    ]


@dataclass(frozen=True)
class _Keys:
    """TFMA's keys by name, of each model; differences of each model but the first."""

    metrics: list[dict[str, metric_types.MetricKey]]
    differences: list[dict[str, metric_types.MetricKey]]
    curves: list[dict[str, metric_types.PlotKey]]


class _Gather(beam.CombineFn):
    """Gathers a slice's examples. The accumulator is a list of parts, joined where Beam compacts."""

    def __init__(self, keys: _Keys, user: str, models: list[str], prediction_keys: list[str]):
        self._keys = keys
        self._user = user
        self._models = models
        self._prediction_keys = prediction_keys

    def create_accumulator(self) -> list[Gathered]:
        return []

    def add_input(self, accumulator: list[Gathered], element: metric_types.StandardMetricInputs) -> list[Gathered]:
        def flat(value, *keys: str) -> np.ndarray:
            # Several models: one value for each. One model: the value itself.
            for key in keys:
                value = value.get(key, value) if isinstance(value, Mapping) else value
            return np.asarray(value, np.float32).reshape(-1)

        users = np.asarray(element.features[self._user], object).reshape(-1)
        hashed = pd.util.hash_array(users, categorize=False)
        labels = flat(element.get_labels(), self._models[0])
        predictions = element.get_predictions()
        scores = [flat(predictions, m, key) for m, key in zip(self._models, self._prediction_keys, strict=True)]
        if {len(hashed), len(labels)} != {len(s) for s in scores}:
            raise ValueError(
                f"{len(hashed)} users, {len(labels)} labels and {[len(s) for s in scores]} scores in one batch"
            )
        accumulator.append((hashed, labels, np.stack(scores)))
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[list[Gathered]]) -> list[Gathered]:
        return [part for accumulator in accumulators for part in accumulator]

    def compact(self, accumulator: list[Gathered]) -> list[Gathered]:
        return [_joined(accumulator, len(self._models))] if len(accumulator) > 1 else accumulator

    def extract_output(self, accumulator: list[Gathered]) -> dict[metric_types.MetricKey, Any]:
        users, labels, scores = _joined(accumulator, len(self._models))
        output: dict[metric_types.MetricKey, Any] = {}
        values, left_out = [], []
        for model, own in enumerate(scores):
            values.append(binary_metrics(users, labels, own))
            left_out.append(leave_one_out(users, labels, own))
            for metric, key in self._keys.metrics[model].items():
                output[key] = with_interval(
                    values[model][metric], left_out[model].samples.get(metric), left_out[model].freedom
                )
            drawn = curves(labels, own)
            output |= {key: drawn[curve] for curve, key in self._keys.curves[model].items()}
        for model, keys in enumerate(self._keys.differences, start=1):
            for metric, key in keys.items():
                difference = values[0][metric] - values[model][metric]
                output[key] = with_interval(
                    difference, left_out[0].samples[metric] - left_out[model].samples[metric], left_out[0].freedom
                )
        return output


def _joined(parts: list[Gathered], models: int) -> Gathered:
    if not parts:
        return np.zeros(0, np.uint64), np.zeros(0, np.float32), np.zeros((models, 0), np.float32)
    users, labels, scores = zip(*parts, strict=True)
    return np.concatenate(users), np.concatenate(labels), np.concatenate(scores, axis=1)
