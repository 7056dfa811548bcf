"""The shift of all logits that makes predictions agree with the eval examples.

The base rate drifts: what training saw is not what is served next, and the eval examples are newer. One constant is
fitted, and no more than they give evidence for: its prior is normal around zero with a deviation of DEVIATION, so that
a handful of positives moves nothing, and thousands of them all that is needed.
"""

from __future__ import annotations

import numpy as np

DEVIATION = 0.1
_STEPS = 20


def calibrating_shift(labels: np.ndarray, logits: np.ndarray) -> float:
    """Return the most likely constant to add to logits, [n], given labels, [n], and its prior; by Newton's method."""
    labels, logits = labels.astype(np.float64), logits.astype(np.float64)
    shift = 0.0
    for _ in range(_STEPS):
        p = 1.0 / (1.0 + np.exp(-np.clip(logits + shift, -50, 50)))
        gradient = float((labels - p).sum()) - shift / DEVIATION**2
        curvature = float((p * (1.0 - p)).sum()) + 1.0 / DEVIATION**2
        step = float(np.clip(gradient / curvature, -1.0, 1.0))
        shift += step
        if abs(step) < 1e-9:
            break
    return shift


def logloss(labels: np.ndarray, logits: np.ndarray) -> float:
    """Return the mean cross-entropy of logits, in nats."""
    return float(np.mean(np.logaddexp(0.0, logits.astype(np.float64)) - labels * logits.astype(np.float64)))
