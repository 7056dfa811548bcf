"""LogLoss, example by example."""

from __future__ import annotations

import numpy as np

_CERTAINTY = 1e-7  # no prediction is taken as nearer to 0 or 1 than this, as Keras does


def log_losses(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return the LogLoss of every example; arrays of shape [examples]."""
    likely = np.clip(scores, _CERTAINTY, 1 - _CERTAINTY)
    return -(labels * np.log(likely) + (1 - labels) * np.log1p(-likely))
