"""Metrics of top-k lists over the full catalogue. Users count alike, whatever the number of their held-out items.

Items that a user has met in training are left out of the user's list before it is judged. Nothing is sampled from the
catalogue: metrics against a sample of negatives order models differently (Krichene and Rendle 2020).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

OF_PAIRS = ("ndcg", "recall", "hit_rate", "mrr")  # for every k
OF_LISTS = ("coverage", "novelty", "popular_share")  # for the smallest k
COUNTS = ("ranked_users", "held_out", "reachable")
POPULAR = 0.2  # share of the items, the most met ones, that are called popular
TITLES = {
    "recall": "Recall",
    "ndcg": "NDCG",
    "hit_rate": "HitRate",
    "mrr": "MRR",
    "coverage": "Coverage",
    "novelty": "Novelty",
    "popular_share": "Popular share",
    "overlap": "Overlap",
    "ndcg_loss": "NDCG lost",
    "index_recall": "Index recall",
}


@dataclass(frozen=True)
class Popularity:
    """What training has met: `probability` [items] of an event to be of an item, and which items are `popular`."""

    probability: np.ndarray
    popular: np.ndarray

    @classmethod
    def of(cls, counts: np.ndarray) -> Popularity:
        """Return that of training events by item, [items]."""
        most = np.argsort(-counts, kind="stable")[: int(np.ceil(POPULAR * len(counts)))]
        popular = np.zeros(len(counts), bool)
        popular[most] = True
        return cls(counts / max(counts.sum(), 1), popular)


def metric_title(metric: str) -> str:
    """Return what people call a ranking metric: `NDCG@10`."""
    name, _, k = metric.partition("@")
    return f"{TITLES[name]}@{k}"


def names(ks: Sequence[int]) -> list[str]:
    """Return the metrics that are computed for each of `ks`, in the order in which they are shown."""
    first, *further = sorted(ks)
    return [
        *(f"{name}@{first}" for name in (*OF_PAIRS, *OF_LISTS)),
        *(f"{name}@{k}" for k in further for name in OF_PAIRS),
    ]


def ranks_in(lists: np.ndarray, users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Return the place from 1 of each pair (users, items) [pairs] in `lists` [users, k], infinite where it is not.

    -1 is no item, in `lists` and in `items`.
    """
    width = max(int(lists.max(initial=0)), int(items.max(initial=0))) + 1
    keys = (np.arange(len(lists), dtype=np.int64)[:, np.newaxis] * width + lists)[lists >= 0]
    places = np.broadcast_to(np.arange(1.0, lists.shape[1] + 1), lists.shape)[lists >= 0]
    order = np.argsort(keys, kind="stable")
    keys, places = keys[order], places[order]
    asked = users.astype(np.int64) * width + items
    at = np.minimum(np.searchsorted(keys, asked), max(len(keys) - 1, 0))
    if not len(keys):
        return np.full(len(asked), np.inf)
    return np.where((keys[at] == asked) & (items >= 0), places[at], np.inf)


def by_user(users: np.ndarray, ranks: np.ndarray, ks: Sequence[int]) -> dict[str, np.ndarray]:
    """Return OF_PAIRS for every k, arrays of shape [users], of held-out pairs.

    `users` [pairs] number the pairs' users from 0, each with a pair or more; `ranks` are the places of their items.
    Recall is hits over the user's held-out items. NDCG's ideal is min(k, held-out items) hits at the top (Jarvelin and
    Kekalainen 2002, with a gain of 1). MRR is 1 / place of the first hit, 0 where it is past k.
    """
    held = np.bincount(users)
    values: dict[str, np.ndarray] = {}
    for k in ks:
        hit = ranks <= k
        hits = np.bincount(users, hit)
        gains = np.bincount(users, np.where(hit, 1 / np.log2(np.where(hit, ranks, 1.0) + 1), 0.0))
        ideal = np.cumsum(1 / np.log2(np.arange(2, k + 2)))[np.minimum(k, held) - 1]
        first = np.full(len(held), np.inf)
        np.minimum.at(first, users, np.where(hit, ranks, np.inf))
        values |= {
            f"recall@{k}": hits / held,
            f"ndcg@{k}": gains / ideal,
            f"hit_rate@{k}": (hits > 0).astype(np.float64),
            f"mrr@{k}": 1 / first,
        }
    return values


def of_lists(lists: np.ndarray, k: int, popularity: Popularity) -> dict[str, np.ndarray]:
    """Return novelty and the share of popular items in the first `k` of `lists` [users, at least k], [users] each.

    Novelty is the mean of -log2 of the items' share of the training events, in bits (Vargas and Castells 2011). An
    empty list has neither: NaN.
    """
    lists = lists[:, :k]
    given = lists >= 0
    count = given.sum(axis=1)
    bits = -np.log2(np.maximum(popularity.probability, np.finfo(np.float64).tiny))
    with np.errstate(invalid="ignore"):
        return {
            f"novelty@{k}": np.where(given, bits[lists], 0.0).sum(axis=1) / count,
            f"popular_share@{k}": (given & popularity.popular[lists]).sum(axis=1) / count,
        }


def coverage(lists: np.ndarray, k: int, items: int) -> float:
    """Return the share of the `items` that are among the first `k` of someone's list."""
    shown = np.unique(lists[:, :k])
    return float((shown >= 0).sum() / items) if items else float("nan")


def overlap(lists: np.ndarray, others: np.ndarray, k: int) -> np.ndarray:
    """Return the share of the first `k` of `others` that the first `k` of `lists` hold too, [users]."""
    users = np.repeat(np.arange(len(others)), k)
    found = np.isfinite(ranks_in(lists[:, :k], users, others[:, :k].reshape(-1))).reshape(-1, k)
    count = (others[:, :k] >= 0).sum(axis=1)
    with np.errstate(invalid="ignore"):
        return found.sum(axis=1) / count


def means(values: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return the mean over users of each metric; those who lack it are left out."""
    return {name: mean_and_error(v)[0] for name, v in values.items()}


def mean_and_error(values: np.ndarray) -> tuple[float, float, int]:
    """Return the mean over users, its standard error, and how many users have a value."""
    given = values[~np.isnan(values)]
    if not len(given):
        return float("nan"), float("nan"), 0
    error = float(given.std(ddof=1) / np.sqrt(len(given))) if len(given) > 1 else float("nan")
    return float(given.mean()), error, len(given)


def ranking_metrics(
    users: np.ndarray, items: np.ndarray, lists: np.ndarray, ks: Sequence[int], popularity: Popularity
) -> dict[str, float]:
    """Return the metrics in `names(ks)` of held-out pairs (users, items) [pairs], each once, and `lists` [users, k].

    Every user has a list, which may be empty. An item of -1 is no candidate: it cannot be found and counts as missed.
    """
    first = min(ks)
    found = means(by_user(users, ranks_in(lists, users, items), ks) | of_lists(lists, first, popularity))
    found[f"coverage@{first}"] = coverage(lists, first, len(popularity.probability))
    return {name: found[name] for name in names(ks)} | {
        "ranked_users": float(len(lists)),
        "held_out": float(len(users)),
        "reachable": float(np.mean(items >= 0)) if len(items) else float("nan"),
    }
