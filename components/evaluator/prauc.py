"""The area under the precision-recall curve."""

from __future__ import annotations

import numpy as np


def area_under_precision_recall(labels: np.ndarray, scores: np.ndarray) -> float:
    """Return the area under precision over recall; NaN without positives. Arrays of shape [examples].

    Every score is a threshold; between two of them it interpolates as Davis and Goadrich 2006 do.
    """
    if not len(scores):
        return float("nan")
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
