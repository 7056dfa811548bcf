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

ARMS = {CANARY: 0, STABLE: 1}
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
    """Numerators and denominators per user, arm and stratum; a stratum is a share of the canary.

    No user weighs more than `most` rows in a stratum and an arm, and users beyond `users` and strata beyond 16 are left
    out, so that neither a heavy user nor a long canary costs more than that.
    """

    STRATA = 16

    def __init__(self, most: float, users: int):
        self._most = most
        self._limit = users
        self._rows: dict[int, int] = {}
        self._shares: list[float] = []
        self._sums = np.zeros((len(ARMS), 2, 0, 0), np.float32)  # arm, numerator or denominator, user, stratum
        self.left_out = 0

    def place(self, user: str, share: float) -> tuple[int, int] | None:
        """Where a user's sums in a stratum are; None, and counted in `left_out`, where there is no room for another."""
        key = hash(user)
        row = self._rows.get(key)
        known = share in self._shares
        if (row is None and len(self._rows) >= self._limit) or (not known and len(self._shares) >= self.STRATA):
            self.left_out += 1
            return None
        if row is None:
            row = self._rows[key] = len(self._rows)
        if not known:
            self._shares.append(share)
        if row >= self._sums.shape[2] or not known:
            self._resize(max(1024, self._sums.shape[2], 2 * row), len(self._shares))
        return row, self._shares.index(share)

    def add(self, place: tuple[int, int], arm: str, numerator: float, denominator: float) -> None:
        """Add to a user's sums in a stratum."""
        sums = self._sums[ARMS[arm]]
        sums[0][place] += numerator
        sums[1][place] += denominator

    def difference(self, drawn: bool = True) -> Difference | None:
        """Canary less stable, or None where no stratum has both; `drawn` where users have one arm by the share."""
        sums = self._capped()
        canary, stable = sums[ARMS[CANARY]], sums[ARMS[STABLE]]
        return stratified_difference(
            (canary[0], canary[1]), (stable[0], stable[1]), np.array(self._shares) if drawn else None
        )

    def totals(self) -> dict[str, tuple[float, float, float]]:
        """Each arm's numerator and denominator as they came, and the variance of their ratio (of its capped rows)."""
        found = {}
        whole, capped = self._sums.sum((2, 3), dtype=np.float64), self._capped()
        for arm, number in ARMS.items():
            numerators, denominators = capped[number]
            rows = float(denominators.sum())
            if rows:
                per_user = numerators.sum(1) - numerators.sum() / rows * denominators.sum(1)
                found[arm] = (float(whole[number][0]), float(whole[number][1]), float(per_user @ per_user) / rows**2)
        return found

    def users(self) -> list[tuple[int, int, float]]:
        """The canary's users, the stable version's, and the canary's share, stratum by stratum."""
        seen = (self._sums[:, 1] > 0).sum(1)
        return [
            (int(seen[ARMS[CANARY], column]), int(seen[ARMS[STABLE], column]), share)
            for column, share in enumerate(self._shares)
        ]

    def _capped(self) -> Floats:
        sums = self._sums[:, :, : len(self._rows)].astype(np.float64)
        sums *= (self._most / np.maximum(sums[:, 1], self._most))[:, None]
        return sums

    def _resize(self, rows: int, columns: int) -> None:
        old = self._sums
        self._sums = np.zeros((*old.shape[:2], rows, columns), old.dtype)
        self._sums[:, :, : old.shape[2], : old.shape[3]] = old
