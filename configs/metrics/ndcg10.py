"""NDCG: how well the examples of each user are ordered at the top."""

from __future__ import annotations

import numpy as np

from configs.metrics import Metric


def grouped_ndcg(groups: np.ndarray, labels: np.ndarray, scores: np.ndarray, k: int = 10) -> float:
    """Return the mean over groups of the NDCG of their `k` best examples; arrays of shape [examples].

    Gains are the labels, discounted by 1 / log2(place + 1) (Jarvelin and Kekalainen 2002). Examples of one score share
    the gains of their places, so that an order nobody gave earns nothing (McSherry and Najork 2008). Groups without a
    positive have no ideal order and are left out. NaN where no group has one.
    """
    if not len(groups):
        return float("nan")
    order = np.lexsort((-scores, groups))
    groups, labels, scores = groups[order], (labels[order] > 0.5).astype(np.float64), scores[order]
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    place = np.arange(len(groups)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    discount = np.where(place < k, 1 / np.log2(place + 2), 0.0)
    tied = np.append(True, (groups[1:] != groups[:-1]) | (scores[1:] != scores[:-1]))
    tie = np.cumsum(tied) - 1
    gains = np.bincount(tie, labels) / np.bincount(tie)
    found = np.bincount(group, gains[tie] * discount)
    positives = np.bincount(group, labels).astype(np.int64)
    ideal = np.append(0.0, np.cumsum(1 / np.log2(np.arange(k) + 2)))[np.minimum(positives, k)]
    some = positives > 0
    return float(np.mean(found[some] / ideal[some])) if some.any() else float("nan")


METRIC = Metric("NDCG of each user's ten best examples", grouped_ndcg, of_order=True, intervals=False)
