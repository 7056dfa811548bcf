"""The difference of two arms' ratios, stratified, with a variance that knows whose rows belong together.

What is randomized is a user, and his impressions resemble each other; what is slow together is a stretch of time. Rows
of one such cluster are summed first, and the variance is that of the sums (the delta method: Deng, Knoblich and Lu
2018, "Applying the delta method in metric analytics").

Arms are compared within strata alone: pooled over a canary whose share grew from 5 to 50 %, its days and the stable
version's would differ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from serving.release_state import CANARY, STABLE

Floats = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Difference:
    """The canary's ratio less the stable version's, its variance, and the ratio over both."""

    value: float
    variance: float
    pooled: float


def stratified_difference(
    canary: tuple[Floats, Floats], stable: tuple[Floats, Floats], shares: Floats | None = None
) -> Difference | None:
    """The Mantel-Haenszel difference over strata, from each arm's (numerators, denominators) [clusters, strata].

    None where no stratum has both arms. The variance is the largest of three: of the clusters about each arm's own
    ratio, about the ratio of both (the hypothesis), and, where `shares` [strata] says how clusters were drawn, that of
    the draw itself with the numbers as they are. The last is steady where the canary has few clusters, which their own
    variance is not; a cluster whose share grew is drawn once for all strata.
    """
    sums = [tuple(part.sum(0) for part in arm) for arm in (canary, stable)]
    (hits_c, rows_c), (hits_s, rows_s) = sums
    kept = (rows_c > 0) & (rows_s > 0)
    if shares is not None:
        kept &= (shares > 0) & (shares < 1)
    if not kept.any():
        return None
    canary = (canary[0][:, kept], canary[1][:, kept])
    stable = (stable[0][:, kept], stable[1][:, kept])
    hits_c, rows_c, hits_s, rows_s = (each[kept].astype(np.float64) for each in (hits_c, rows_c, hits_s, rows_s))
    weights = rows_c * rows_s / (rows_c + rows_s)
    weights /= weights.sum()
    value = float((weights * (hits_c / rows_c - hits_s / rows_s)).sum())
    pooled = (hits_c + hits_s) / (rows_c + rows_s)
    variance = 0.0
    for ratio_c, ratio_s in ((hits_c / rows_c, hits_s / rows_s), (pooled, pooled)):
        influence = (canary[0] - ratio_c * canary[1]) @ (weights / rows_c)
        influence -= (stable[0] - ratio_s * stable[1]) @ (weights / rows_s)
        variance = max(variance, float(influence @ influence))
    if shares is not None:
        p = shares[kept]
        scaled = canary[0] + stable[0] - pooled * (canary[1] + stable[1])
        scaled *= weights / ((rows_c + rows_s) * p * (1 - p))
        drawn = np.minimum.outer(p, p) - np.outer(p, p)  # the covariance of "falls below p" for one draw
        variance = max(variance, float((drawn * (scaled.T @ scaled)).sum()))
    return Difference(value, variance, float((weights * pooled).sum()))


class UserTable:
    """Numerators and denominators per user and stratum; a stratum is a share of the canary.

    No user weighs more than `most` rows a stratum, and users beyond `users` are left out, so that memory is bounded.
    """

    def __init__(self, most: float, users: int):
        self._most = most
        self._limit = users
        self._rows: dict[int, int] = {}
        self._shares: list[float] = []
        self._numerators, self._denominators = np.zeros((0, 0)), np.zeros((0, 0))
        self._canary = np.zeros((0, 0), bool)
        self.left_out = 0

    def row(self, user: str) -> int | None:
        """The number of a user's row; None where there is no room for another user."""
        key = hash(user)
        row = self._rows.get(key)
        if row is None:
            if len(self._rows) >= self._limit:
                self.left_out += 1
                return None
            row = self._rows[key] = len(self._rows)
            if row >= len(self._numerators):
                self._resize(max(1024, 2 * row), len(self._shares))
        return row

    def column(self, share: float) -> int:
        """The number of a stratum's column."""
        if share not in self._shares:
            self._shares.append(share)
            self._resize(len(self._numerators), len(self._shares))
        return self._shares.index(share)

    def add(self, row: int, column: int, arm: str, numerator: float, denominator: float) -> None:
        """Add to a user's sums in a stratum."""
        self._numerators[row, column] += numerator
        self._denominators[row, column] += denominator
        self._canary[row, column] = arm == CANARY

    def difference(self) -> Difference | None:
        """Canary less stable, or None where no stratum has both."""
        (canary, stable), shares = self._arms(), np.array(self._shares)
        return stratified_difference(canary, stable, shares)

    def totals(self) -> dict[str, tuple[float, float, float]]:
        """Each arm's numerator and denominator as they came, and the variance of their ratio (of its capped rows)."""
        found = {}
        size = len(self._rows)
        for arm, (numerators, denominators) in zip((CANARY, STABLE), self._arms(), strict=True):
            mask = self._canary[:size] == (arm == CANARY)
            whole = float((self._numerators[:size] * mask).sum()), float((self._denominators[:size] * mask).sum())
            rows = float(denominators.sum())
            if rows:
                per_user = numerators.sum(1) - numerators.sum() / rows * denominators.sum(1)
                found[arm] = (*whole, float(per_user @ per_user) / rows**2)
        return found

    def users(self) -> list[tuple[int, int, float]]:
        """The canary's users, the stable version's, and the canary's share, stratum by stratum."""
        size = len(self._rows)
        seen, canary = self._denominators[:size] > 0, self._canary[:size]
        counts = zip((seen & canary).sum(0), (seen & ~canary).sum(0), self._shares, strict=True)
        return [(int(of_canary), int(of_stable), share) for of_canary, of_stable, share in counts]

    def _arms(self) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
        size = len(self._rows)
        numerators, denominators = self._numerators[:size], self._denominators[:size]
        capped = self._most / np.maximum(denominators, self._most)
        numerators, denominators, canary = numerators * capped, denominators * capped, self._canary[:size]
        return (numerators * canary, denominators * canary), (numerators * ~canary, denominators * ~canary)

    def _resize(self, rows: int, columns: int) -> None:
        def grown(old: npt.NDArray) -> npt.NDArray:
            new = np.zeros((rows, columns), old.dtype)
            new[: old.shape[0], : old.shape[1]] = old
            return new

        self._numerators, self._denominators = grown(self._numerators), grown(self._denominators)
        self._canary = grown(self._canary)
