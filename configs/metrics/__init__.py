"""Metrics of examples beside the evaluator's core ones. Each module here is one; gates, results and reference follow.

The core ones (AUC, GAUC, LogLoss and so on) share sums and sorts, and are in components/evaluator.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class Metric:
    """A metric of examples of a binary label.

    `compute` takes hashed users, labels and scores, arrays of shape [examples], and returns a number, NaN where it
    cannot be computed. `better` says which way, None where neither is. A metric `of_order` is undefined where all
    labels are alike. With `intervals` it is computed 20 times more, without a group of users each time.
    """

    description: str
    compute: Callable[[np.ndarray, np.ndarray, np.ndarray], float]
    better: Literal["higher", "lower"] | None = "higher"
    of_order: bool = False
    intervals: bool = True


METRICS: Mapping[str, Metric] = {
    module.name: importlib.import_module(f"{__name__}.{module.name}").METRIC
    for module in pkgutil.iter_modules(__path__)
}
