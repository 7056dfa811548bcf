"""Every metric of a binary label as one TFMA metric: gathered once, computed exactly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import apache_beam as beam
import numpy as np
import pandas as pd
from tensorflow_model_analysis.metrics import metric_types, metric_util
from tensorflow_model_analysis.proto import config_pb2

from components.evaluator.gauc import grouped_auc
from components.evaluator.ndcg import grouped_ndcg

METRICS = ("auc", "gauc", "ndcg10", "prauc", "logloss", "calibration", "mean_label", "mean_prediction", "example_count")
_CERTAINTY = 1e-7  # LogLoss takes no prediction as nearer to 0 or 1 than this, as Keras does

Gathered = tuple[np.ndarray, np.ndarray, np.ndarray]  # hashed users, labels, scores, each of shape [examples]


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
    likely = np.clip(scores, _CERTAINTY, 1 - _CERTAINTY)
    positives = labels.sum()
    return {
        "auc": grouped_auc(np.zeros(count, np.int8), labels, scores),
        "gauc": grouped_auc(users, labels, scores),
        "ndcg10": grouped_ndcg(users, labels, scores, 10),
        "prauc": _area_under_precision_recall(labels, scores),
        "logloss": float(-np.mean(labels * np.log(likely) + (1 - labels) * np.log1p(-likely))),
        "calibration": float(scores.sum() / positives) if positives else float("nan"),
        "mean_label": float(positives / count),
        "mean_prediction": float(scores.mean()),
        "example_count": float(count),
    }


def _area_under_precision_recall(labels: np.ndarray, scores: np.ndarray) -> float:
    order = np.argsort(-scores, kind="stable")
    scores = scores[order]
    last_of_tie = np.append(scores[1:] != scores[:-1], True)
    true = np.append(0.0, np.cumsum(labels[order])[last_of_tie])
    called = np.append(0.0, np.flatnonzero(last_of_tie) + 1.0)
    if not true[-1]:
        return float("nan")
    # Between two thresholds the true positives are slope * called + intercept; precision is that over called.
    new_true, new_called = np.diff(true), np.diff(called)
    slope = new_true / new_called
    intercept = true[1:] - slope * called[1:]
    ratio = np.divide(called[1:], called[:-1], out=np.ones_like(slope), where=called[:-1] > 0)
    return float((slope * (new_true + intercept * np.log(ratio))).sum() / true[-1])


class BinaryMetrics(metric_types.Metric):
    """METRICS in one pass, for batches of examples as `SliceBatches` makes them.

    A slice costs 16 bytes an example and model while it is gathered, and some 100 bytes an example for one model at a
    time while its metrics are computed: 10 million examples and 4 models need 1.6 GB.
    """

    def __init__(self, user: str, name: str = "binary_metrics"):
        """`user` is the column of the user's id."""
        super().__init__(metric_util.merge_per_key_computations(_computations), name=name, user=user)


metric_types.register_metric(BinaryMetrics)


def _computations(
    user: str,
    name: str = "",
    eval_config: config_pb2.EvalConfig | None = None,
    model_name: str = "",
    output_name: str = "",
    example_weighted: bool = False,
) -> metric_types.MetricComputations:
    keys = [
        metric_types.MetricKey(
            name=metric, model_name=model_name, output_name=output_name, example_weighted=example_weighted
        )
        for metric in METRICS
    ]
    # With one model TFMA leaves its name out.
    specs = eval_config.model_specs if eval_config else []
    prediction_key = next((s.prediction_key for s in specs if s.name == model_name or len(specs) == 1), "")
    return [
        metric_types.MetricComputation(
            keys=keys,
            preprocessors=[metric_types.FeaturePreprocessor(feature_keys=[user])],
            combiner=_Gather(keys, user, model_name, prediction_key),
        )
    ]


class _Gather(beam.CombineFn):
    """Gathers a slice's examples. The accumulator is a list of parts, joined where Beam compacts."""

    def __init__(self, keys: list[metric_types.MetricKey], user: str, model_name: str, prediction_key: str):
        self._keys = keys
        self._user = user
        self._model_name = model_name
        self._prediction_key = prediction_key

    def create_accumulator(self) -> list[Gathered]:
        return []

    def add_input(self, accumulator: list[Gathered], element: metric_types.StandardMetricInputs) -> list[Gathered]:
        def flat(value) -> np.ndarray:
            # Several models: one value for each. One model: the value itself.
            for key in (self._model_name, self._prediction_key):
                value = value.get(key, value) if isinstance(value, Mapping) else value
            return np.asarray(value, np.float32).reshape(-1)

        users = np.asarray(element.features[self._user], object).reshape(-1)
        hashed = pd.util.hash_array(users, categorize=False)
        labels, scores = flat(element.get_labels()), flat(element.get_predictions())
        if not len(hashed) == len(labels) == len(scores):
            raise ValueError(f"{len(hashed)} users, {len(labels)} labels and {len(scores)} scores in one batch")
        accumulator.append((hashed, labels, scores))
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[list[Gathered]]) -> list[Gathered]:
        return [part for accumulator in accumulators for part in accumulator]

    def compact(self, accumulator: list[Gathered]) -> list[Gathered]:
        return [_joined(accumulator)] if len(accumulator) > 1 else accumulator

    def extract_output(self, accumulator: list[Gathered]) -> dict[metric_types.MetricKey, float]:
        values = binary_metrics(*_joined(accumulator))
        return {key: values[key.name] for key in self._keys}


def _joined(parts: list[Gathered]) -> Gathered:
    if not parts:
        return np.zeros(0, np.uint64), np.zeros(0, np.float32), np.zeros(0, np.float32)
    users, labels, scores = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return users, labels, scores
