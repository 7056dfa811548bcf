"""What a slice's scores look like: TFMA's calibration histogram and confusion matrices, over the scores' own range."""

from __future__ import annotations

from typing import Any

import numpy as np
from tensorflow_model_analysis.metrics.calibration_plot import CALIBRATION_PLOT_NAME
from tensorflow_model_analysis.metrics.confusion_matrix_plot import CONFUSION_MATRIX_PLOT_NAME
from tensorflow_model_analysis.proto import metrics_for_slice_pb2

CURVES = (CALIBRATION_PLOT_NAME, CONFUSION_MATRIX_PLOT_NAME)  # under these names TFMA keeps both as one plot
BUCKETS = 24
THRESHOLDS = 48
_SKEWED = 5  # the largest score is so many times the median
_SMALLEST = 1e-4  # of the largest score: what is smaller is one bucket


def curves(labels: np.ndarray, scores: np.ndarray) -> dict[str, Any]:
    """Return CURVES of examples, arrays of shape [examples].

    Buckets are equally wide from the smallest to the largest score; where most scores are small beside the largest, as
    those of a rare label, equally wide on a log scale, or nearly all would be in the first. Thresholds lie at quantiles
    of the scores: where few labels are positive all scores are small, and a grid over [0, 1] would see nothing.
    """
    labels, scores = labels.astype(np.float64), scores.astype(np.float64)
    return {CALIBRATION_PLOT_NAME: _buckets(labels, scores), CONFUSION_MATRIX_PLOT_NAME: _matrices(labels, scores)}


def _buckets(labels: np.ndarray, scores: np.ndarray) -> metrics_for_slice_pb2.CalibrationHistogramBuckets:
    found = metrics_for_slice_pb2.CalibrationHistogramBuckets()
    if not len(scores):
        return found
    low, high = scores.min(), np.nextafter(scores.max(), np.inf)
    if 0 < _SKEWED * np.median(scores) < high:
        edges = np.geomspace(max(low, high * _SMALLEST), high, BUCKETS + 1)
        edges[0] = low
    else:
        edges = np.linspace(low, high, BUCKETS + 1)
    bucket = np.clip(np.searchsorted(edges, scores, side="right") - 1, 0, BUCKETS - 1)
    sums = [np.bincount(bucket, weights, BUCKETS) for weights in (None, labels, scores)]
    for index, (count, positives, predicted) in enumerate(zip(*sums, strict=True)):
        added = found.buckets.add(lower_threshold_inclusive=edges[index], upper_threshold_exclusive=edges[index + 1])
        added.num_weighted_examples.value = count
        added.total_weighted_label.value = positives
        added.total_weighted_refined_prediction.value = predicted
    return found


def _matrices(labels: np.ndarray, scores: np.ndarray) -> metrics_for_slice_pb2.ConfusionMatrixAtThresholds:
    found = metrics_for_slice_pb2.ConfusionMatrixAtThresholds()
    if not len(scores):
        return found
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    # An example is called positive from the threshold on; the last threshold calls none.
    thresholds = np.append(
        np.unique(ordered[np.linspace(0, len(ordered) - 1, THRESHOLDS).astype(int)]), np.nextafter(ordered[-1], np.inf)
    )
    below = np.searchsorted(ordered, thresholds, side="left")
    positives_below = np.append(0.0, np.cumsum(labels[order]))[below]
    positives = labels.sum()
    for threshold, n, missed in zip(thresholds, below, positives_below, strict=True):
        true, false = positives - missed, len(ordered) - n - (positives - missed)
        found.matrices.add(
            threshold=threshold,
            true_positives=true,
            false_positives=false,
            true_negatives=n - missed,
            false_negatives=missed,
            precision=true / (true + false) if true + false else 1.0,
            recall=true / positives if positives else np.nan,
            false_positive_rate=false / (len(ordered) - positives) if positives < len(ordered) else np.nan,
        )
    return found
