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
    found, group = np.unique(groups, return_inverse=True)
    won, positives, negatives, sizes = wins(group, labels > 0.5, scores, len(found))
    both = (positives > 0) & (negatives > 0)
    if not both.any():
        return float("nan")
    return float(np.average(won[both] / (positives[both] * negatives[both]), weights=sizes[both]))


def wins(
    group: np.ndarray, positive: np.ndarray, scores: np.ndarray, groups: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return of each group the pairs of a positive and a negative in the right order, positives, negatives, and size.

    `group` holds numbers below `groups`; arrays of shape [examples] -> [groups].
    """
    order = np.lexsort((scores, group))
    group, positive, scores = group[order], positive[order], scores[order]
    sizes = np.bincount(group, minlength=groups)
    # Rank within the group, ties sharing their mean rank: the pairs won are Mann-Whitney's U.
    tied = np.append(True, (group[1:] != group[:-1]) | (scores[1:] != scores[:-1]))
    tie = np.cumsum(tied[: len(group)]) - 1
    position = np.arange(len(group)) + 1.0
    mean_position = np.bincount(tie, position) / np.bincount(tie)
    rank = mean_position[tie] - (np.cumsum(sizes) - sizes)[group]
    positives = np.bincount(group, positive, groups)
    won = np.bincount(group, rank * positive, groups) - positives * (positives + 1) / 2
    return won, positives, sizes - positives, sizes
