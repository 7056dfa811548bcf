"""Confidence intervals by the jackknife over groups of users, for metrics whose examples are gathered."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tensorflow_model_analysis.api import types

from components.evaluator.gauc import wins
from components.evaluator.logloss import log_losses
from components.evaluator.prauc import area_under_precision_recall
from configs.metrics import METRICS

GROUPS = 20  # as many as TFMA's own jackknife takes
FEWEST_USERS = 10  # of fewer there are no intervals
_FEWEST_FREEDOM = 5  # with fewer an interval says nothing; benchmarks/intervals.py has what it covers so


@dataclass(frozen=True)
class LeftOut:
    """Metrics without each group of users in turn, arrays of shape [groups that have examples], and the degrees of
    freedom that these groups are worth: None where there are fewer than FEWEST_USERS.
    """

    samples: dict[str, np.ndarray]
    freedom: int | None


def leave_one_out(users: np.ndarray, labels: np.ndarray, scores: np.ndarray) -> LeftOut:
    """Return metrics without each group of users in turn.

    A user's examples depend on each other, so whole users are left out. `users` are hashes. All core metrics
    but `prauc` come from sums per group, in one sort: what remains is the whole less what the group had part in.
    """
    labels, scores = labels.astype(np.float64), scores.astype(np.float64)
    group, weights = deal(users)
    present = np.flatnonzero(np.bincount(group, minlength=GROUPS))
    weights = weights[present]

    def rest(weights: np.ndarray | None = None) -> np.ndarray:
        sums = np.bincount(group, weights, GROUPS)
        return (sums.sum() - sums)[present]

    count, positives, predicted = rest(), rest(labels), rest(scores)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = {
            "logloss": rest(log_losses(labels, scores)) / count,
            "calibration": np.where(positives > 0, predicted / positives, np.nan),
            "mean_label": positives / count,
            "mean_prediction": predicted / count,
            "auc": _auc(group, labels, scores)[present],
            "gauc": _gauc(users, group, labels, scores)[present],
        }
        # Satterthwaite: groups in which one user outweighs all others are worth fewer than they are.
        freedom = np.square(weights.sum()) / np.square(weights).sum() - 1 if len(weights) else 0.0
    for name, metric in METRICS.items():
        if metric.intervals:
            rows = [group != g for g in present]
            found[name] = np.array([metric.compute(users[r], labels[r], scores[r]) for r in rows], np.float64)
    order = np.argsort(-scores, kind="stable")
    group, labels, scores = group[order], labels[order], scores[order]
    found["prauc"] = np.array(
        [area_under_precision_recall(labels[group != g], scores[group != g]) for g in present], np.float64
    )
    few = len(np.unique(users)) < FEWEST_USERS
    return LeftOut(found, None if few else max(int(freedom), _FEWEST_FREEDOM))


def standard_error(samples: np.ndarray) -> float:
    """Return the standard error of a metric, from the metric without each group.

    Delete-a-group jackknife (Wolter 2007, section 4.2): the variance is (g - 1) / g of the samples' sum of squares.
    """
    return float(np.sqrt((len(samples) - 1) / len(samples) * np.square(samples - samples.mean()).sum()))


def with_interval(
    value: float, samples: np.ndarray | None, freedom: int | None
) -> float | types.ValueWithTDistribution:
    """Return `value` with what TFMA makes a 95 % interval of; alone where a sample is missing or undefined."""
    if samples is None or freedom is None or len(samples) < 2 or not np.isfinite([value, *samples]).all():
        return value
    return types.ValueWithTDistribution(value, standard_error(samples), freedom, value)


def deal(users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each example's group, and of each group the sum over its users of their squared numbers of examples.

    Users are dealt out from the most active one on, there and back, so that groups are of nearly equal size: by hash
    alone a few heavy users make some groups many times as large as others. The weight is what a group adds to the
    variance where users' means vary alike.
    """
    _, user, sizes = np.unique(users, return_inverse=True, return_counts=True)
    dealt = np.concatenate([np.arange(GROUPS), np.arange(GROUPS)[::-1]])
    of_user = np.empty(len(sizes), np.int64)
    of_user[np.argsort(-sizes, kind="stable")] = dealt[np.arange(len(sizes)) % len(dealt)]
    return of_user[user], np.bincount(of_user, np.square(sizes.astype(np.float64)), GROUPS)


def _auc(group: np.ndarray, labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """AUC without each group: all pairs won, less those the group has a part in; pairs within it were taken twice."""
    positive = labels > 0.5
    _, tie = np.unique(scores, return_inverse=True)
    at = [np.bincount(tie, weights) for weights in (positive, ~positive)]
    # Of every example: negatives it beats as a positive, positives that beat it as a negative; a tie is half.
    beaten = (np.cumsum(at[1]) - at[1] / 2)[tie]
    beating = (positive.sum() - np.cumsum(at[0]) + at[0] / 2)[tie]
    as_positive = np.bincount(group, beaten * positive, GROUPS)
    as_negative = np.bincount(group, beating * ~positive, GROUPS)
    own, own_positives, own_negatives, _ = wins(group, positive, scores, GROUPS)
    pairs = (positive.sum() - own_positives) * ((~positive).sum() - own_negatives)
    won = as_positive.sum() - as_positive - as_negative + own
    return np.divide(won, pairs, out=np.full(GROUPS, np.nan), where=pairs > 0)


def _gauc(users: np.ndarray, group: np.ndarray, labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    _, first, user = np.unique(users, return_index=True, return_inverse=True)
    won, positives, negatives, sizes = wins(user, labels > 0.5, scores, len(first))
    both = (positives > 0) & (negatives > 0)
    weighted = np.bincount(group[first][both], (won * sizes)[both] / (positives * negatives)[both], GROUPS)
    weights = np.bincount(group[first][both], sizes[both], GROUPS)
    left = weights.sum() - weights
    return np.divide(weighted.sum() - weighted, left, out=np.full(GROUPS, np.nan), where=left > 0)
