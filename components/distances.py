"""How far apart two distributions of a feature are, and how far chance alone takes samples of their sizes.

Of both sides only TFDV's statistics are known: counts of the most frequent texts, histograms by quantiles of numbers.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from tensorflow_metadata.proto.v0 import statistics_pb2

_QUANTILES = statistics_pb2.Histogram.QUANTILES
_DEVIATIONS = 3.0
_SKETCH = 0.01  # what reading histograms of ten buckets, themselves a sketch, makes of equal distributions


def distances(
    before: statistics_pb2.DatasetFeatureStatisticsList,
    now: statistics_pb2.DatasetFeatureStatisticsList,
    limits: Mapping[str, float],
    ids: Mapping[str, str | None],
) -> dict[str, tuple[str, float, float]]:
    """Return (measure, distance, limit) by feature: L-infinity for text, Jensen-Shannon divergence for numbers.

    Missing values are left out: how many there are is the schema's to judge. To each limit is added what samples as
    small as these differ by chance. `ids` names for a column of users or items that of their ids: the values of one
    user's rows count once.
    """
    old, new = _by_name(before), _by_name(now)
    found = {}
    for name, limit in limits.items():
        if name not in old or name not in new:
            continue
        sides = (old[name], new[name])
        sizes = [_size(side, known, ids.get(name)) for side, known in zip(sides, (old, new), strict=True)]
        if min(sizes) < 1:
            continue
        if new[name].HasField("string_stats"):
            value, chance = _l_infinity(*sides, *sizes)
            found[name] = ("L-infinity", value, min(limit + chance, 1.0))
        elif new[name].HasField("num_stats") and old[name].HasField("num_stats"):
            value, chance = _jensen_shannon(*sides, *sizes)
            found[name] = ("Jensen-Shannon", value, min(limit + chance, 1.0))
    return found


def _by_name(
    statistics: statistics_pb2.DatasetFeatureStatisticsList,
) -> dict[str, statistics_pb2.FeatureNameStatistics]:
    return {".".join(f.path.step) or f.name: f for f in statistics.datasets[0].features}


def _common(feature: statistics_pb2.FeatureNameStatistics) -> statistics_pb2.CommonStatistics:
    return (feature.string_stats if feature.HasField("string_stats") else feature.num_stats).common_stats


def _size(
    feature: statistics_pb2.FeatureNameStatistics,
    known: Mapping[str, statistics_pb2.FeatureNameStatistics],
    id_column: str | None,
) -> float:
    """Return how many values a side has that do not follow from one another."""
    # A row without a value is an empty list in an Example, which TFDV counts as there.
    rows = float(min(_common(feature).num_non_missing, _common(feature).tot_num_values))
    if id_column is None or id_column not in known or not known[id_column].HasField("string_stats"):
        return rows
    owner = known[id_column]
    present = rows / max(_common(owner).num_non_missing, 1)
    return min(rows, max(owner.string_stats.unique * present, 1.0)) if rows else 0.0


def _l_infinity(
    old: statistics_pb2.FeatureNameStatistics,
    new: statistics_pb2.FeatureNameStatistics,
    old_size: float,
    new_size: float,
) -> tuple[float, float]:
    """Return the largest difference of a value's shares, and three standard deviations of it."""
    shares = [_shares(feature) for feature in (old, new)]
    values = sorted({*shares[0], *shares[1]})
    p, q = (np.array([s.get(value, 0.0) for value in values]) for s in shares)
    if not len(values):
        return 0.0, 0.0
    pooled = (p * old_size + q * new_size) / (old_size + new_size)
    deviation = np.sqrt(pooled * (1 - pooled) * (1 / old_size + 1 / new_size))
    return float(np.abs(p - q).max()), float(_DEVIATIONS * deviation.max())


def _shares(feature: statistics_pb2.FeatureNameStatistics) -> dict[str, float]:
    buckets = feature.string_stats.rank_histogram.buckets
    total = max(sum(b.sample_count for b in buckets), float(_common(feature).tot_num_values), 1.0)
    return {b.label: b.sample_count / total for b in buckets}


def _jensen_shannon(
    old: statistics_pb2.FeatureNameStatistics,
    new: statistics_pb2.FeatureNameStatistics,
    old_size: float,
    new_size: float,
) -> tuple[float, float]:
    """Return the Jensen-Shannon divergence in bits over bins that hold equal shares of the older side, and what chance
    makes of it.

    Bins of equal width would put all of a long tail's values into one. With k bins and samples of n and m, the
    divergence of equal distributions is about chi-squared with k - 1 degrees of freedom, times (1/n + 1/m) / (8 ln 2).
    """
    histograms = [_histogram(feature) for feature in (old, new)]
    low, high, _ = histograms[0]
    # Not the smallest and the largest value, which say nothing of where the others are.
    edges = np.unique(np.concatenate([low[1:], high[:-1]])) if len(low) > 1 else low
    p, q = (_masses(histogram, edges) for histogram in histograms)
    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = [np.where(side > 0, side * np.log2(side / middle), 0.0) for side in (p, q)]
    free = max(int((middle > 0).sum()) - 1, 1)
    chance = (free + _DEVIATIONS * np.sqrt(2 * free)) * (1 / old_size + 1 / new_size) / (8 * np.log(2))
    return float(np.clip(sum(part.sum() for part in parts) / 2, 0.0, 1.0)), float(chance) + _SKETCH


def _histogram(feature: statistics_pb2.FeatureNameStatistics) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return lower and upper ends and counts of the quantiles' buckets."""
    for histogram in feature.num_stats.histograms:
        if histogram.type == _QUANTILES and histogram.buckets:
            rows = [(b.low_value, b.high_value, b.sample_count) for b in histogram.buckets]
            low, high, counts = np.array(rows, np.float64).T
            return low, high, counts
    only = feature.num_stats
    return np.array([only.min]), np.array([only.max]), np.array([1.0])


def _masses(histogram: tuple[np.ndarray, np.ndarray, np.ndarray], edges: np.ndarray) -> np.ndarray:
    """Return the shares up to the first edge, from each to the next and with it, and above the last."""
    low, high, counts = histogram
    width = high - low
    spread = np.where(width > 0, counts, 0.0)

    def until(points: np.ndarray) -> np.ndarray:
        """Return what lies below points, of what is spread between different ends."""
        with np.errstate(divide="ignore", invalid="ignore"):
            part = np.where(width > 0, np.clip((points[:, None] - low) / width, 0.0, 1.0), 0.0)
        return part @ spread

    atoms = np.array([counts[(width == 0) & (low == edge)].sum() for edge in edges])
    elsewhere = (width == 0) & ~np.isin(low, edges)
    ends = np.concatenate([[-np.inf], edges, [np.inf]])
    loose = np.histogram(low[elsewhere], ends, weights=counts[elsewhere])[0]
    below = until(edges)
    between = np.diff(np.concatenate([[0.0], below, [spread.sum()]])) + loose
    return (between + np.append(atoms, 0.0)) / max(counts.sum(), 1e-12)
