"""GAUC: the AUC within each user's examples."""

from __future__ import annotations

import numpy as np


def grouped_auc(groups: np.ndarray, labels: np.ndarray, scores: np.ndarray) -> float:
    """Return the mean AUC of the groups that have both labels, weighted by their sizes; arrays of shape [examples].

    With users as groups this is GAUC (Zhu et al. 2017, section 4.1): users whose labels are all alike have no AUC and
    are left out. A tie between a positive and a negative counts half. NaN where no group has both.
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
