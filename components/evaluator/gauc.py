"""GAUC, the AUC within each user's examples, as a TFMA metric."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import apache_beam as beam
import numpy as np
import pandas as pd
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.metrics import metric_types, metric_util


class GAUC(tfma.metrics.Metric):
    """Mean over users of the AUC of a user's examples, weighted by their number (Zhu et al. 2017, section 4.1).

    Users whose labels are all alike have no AUC and are left out, as in the paper. NaN where none is left.
    """

    def __init__(self, user: str, name: str = "gauc"):
        """`user` is the column of the user's id."""
        super().__init__(metric_util.merge_per_key_computations(_computations), name=name, user=user)


tfma.metrics.metric_types.register_metric(GAUC)


def grouped_auc(groups: np.ndarray, labels: np.ndarray, scores: np.ndarray) -> float:
    """Return the mean AUC of the groups that have both labels, weighted by their sizes; arrays of shape [examples].

    A tie between a positive and a negative counts half. NaN where no group has both.
    """
    if not len(groups):
        return float("nan")
    order = np.lexsort((scores, groups))
    groups, labels, scores = groups[order], labels[order] > 0.5, scores[order]
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    # Rank within the group, ties sharing their mean rank: AUC is Mann-Whitney's U over positives x negatives.
    tied = np.append(True, (groups[1:] != groups[:-1]) | (scores[1:] != scores[:-1]))
    tie = np.cumsum(tied) - 1
    position = np.arange(len(groups)) + 1.0
    mean_position = np.bincount(tie, position) / np.bincount(tie)
    rank = mean_position[tie] - np.repeat(np.cumsum(sizes) - sizes, sizes)
    positives = np.bincount(group, labels)
    negatives = sizes - positives
    both = (positives > 0) & (negatives > 0)
    if not both.any():
        return float("nan")
    u = np.bincount(group, rank * labels) - positives * (positives + 1) / 2
    auc = u[both] / (positives[both] * negatives[both])
    return float(np.average(auc, weights=sizes[both]))


def _computations(
    user: str,
    name: str = "gauc",
    eval_config: tfma.EvalConfig | None = None,
    model_name: str = "",
    output_name: str = "",
    example_weighted: bool = False,
) -> metric_types.MetricComputations:
    key = metric_types.MetricKey(
        name=name, model_name=model_name, output_name=output_name, example_weighted=example_weighted
    )
    return [
        metric_types.MetricComputation(
            keys=[key],
            preprocessors=[metric_types.FeaturePreprocessor(feature_keys=[user])],
            combiner=_Gather(key, user, eval_config),
        )
    ]


class _Gather(beam.CombineFn):
    """Gathers (user, label, score) as 16 bytes an example, which is what a slice costs in memory."""

    def __init__(self, key: metric_types.MetricKey, user: str, eval_config: tfma.EvalConfig | None):
        self._key = key
        self._user = user
        self._eval_config = eval_config

    def create_accumulator(self) -> tuple[list[Any], list[float], list[float], list[tuple]]:
        return [], [], [], []

    def add_input(self, accumulator, element: metric_types.StandardMetricInputs):
        users, labels, scores, _ = accumulator
        ids = np.asarray(element.features[self._user]).reshape(-1)
        for label, prediction, _ in metric_util.to_label_prediction_example_weight(
            element, eval_config=self._eval_config, model_name=self._key.model_name, output_name=self._key.output_name
        ):
            users.append(ids[0])
            labels.append(float(label.item()))
            scores.append(float(prediction.item()))
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[Any]):
        merged = self.create_accumulator()
        for accumulator in accumulators:
            merged[3].extend(_compacted(accumulator)[3])
        return merged

    def compact(self, accumulator):
        return _compacted(accumulator)

    def extract_output(self, accumulator) -> dict[metric_types.MetricKey, float]:
        parts = _compacted(accumulator)[3]
        if not parts:
            return {self._key: float("nan")}
        users, labels, scores = (np.concatenate([p[i] for p in parts]) for i in range(3))
        return {self._key: grouped_auc(users, labels, scores)}


def _compacted(accumulator):
    users, labels, scores, parts = accumulator
    if users:
        hashed = pd.util.hash_array(np.array(users, object), categorize=False)
        parts = [*parts, (hashed, np.array(labels, np.float32), np.array(scores, np.float32))]
    return [], [], [], parts
