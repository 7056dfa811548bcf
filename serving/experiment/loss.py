"""Does the canary lose clicks? The test that the guard looks at, and what the report shows of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from serving.experiment.clustered import UserTable
from serving.experiment.sequential import interval_half_width, log_e_value_below, p_value, sample_ratio_e_value
from serving.release_state import CANARY, STABLE

Z_95 = 1.959963984540054
USERS = 500_000  # counted at most; about 100 bytes each
ROWS_PER_USER = (
    30.0  # showings of one user that count in a stratum: a few heavy users would else be most of the variance
)
MIN_USERS = 100  # in each arm, before a normal approximation is anything to go by
RELATIVE_SCALE = 0.15  # losses worth seeing are of this size, relative to the rate
SAMPLE_RATIO_ALPHA = 1e-3


@dataclass(frozen=True)
class Rate:
    """Clicks of impressions; `effective` impressions, each of a user of its own, would say as much."""

    clicks: int
    impressions: int
    effective: float | None = None

    @property
    def value(self) -> float:
        """The rate; NaN without impressions."""
        return self.clicks / self.impressions if self.impressions else math.nan

    def interval(self, z: float = Z_95) -> tuple[float, float]:
        """Wilson's score interval (1927) at the effective size: sound for few clicks, where the textbook one is not."""
        n, p = self.impressions if self.effective is None else self.effective, self.value
        if not n:
            return 0.0, 1.0
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True)
class Loss:
    """The canary's click-through rate against the stable version's, within strata of equal shares.

    `p_value` is of "no worse" and always valid; the interval of the difference covers at all times with chance 95 %.
    Where `sample_ratio_p` is small, users fell into the arms otherwise than drawn and nothing here is to be believed.
    """

    difference: float
    interval: tuple[float, float]
    p_value: float
    sample_ratio_p: float

    @property
    def comparable(self) -> bool:
        """Whether the arms' users are those that were drawn."""
        return self.sample_ratio_p >= SAMPLE_RATIO_ALPHA


class LossTest:
    """Collects showings and clicks by user; each look may only lower the p-value."""

    def __init__(self, p_value_so_far: float = 1.0):
        """`p_value_so_far` from an earlier process that watched the same canary."""
        self.table = UserTable(ROWS_PER_USER, USERS)
        self._p_value = p_value_so_far

    def look(self) -> Loss | None:
        """The evidence so far; None before both arms have been shown to enough users in one stratum."""
        counts = [each for each in self.table.users() if 0 < each[2] < 1]
        if min((sum(each[arm] for each in counts) for arm in (0, 1)), default=0) < MIN_USERS:
            return None
        found = self.table.difference()
        if found is None or not found.variance > 0:
            return None
        scale = RELATIVE_SCALE * found.pooled
        sample_ratio_p = p_value(math.log(max(sample_ratio_e_value(counts), 1e-300)))
        now = p_value(log_e_value_below(found.value, found.variance, scale))
        if sample_ratio_p >= SAMPLE_RATIO_ALPHA:
            self._p_value = min(self._p_value, now)
        half = interval_half_width(found.variance, scale)
        return Loss(found.value, (found.value - half, found.value + half), self._p_value, sample_ratio_p)

    def rates(self) -> dict[str, Rate]:
        """Each arm's clicks and impressions over all strata."""
        rates = {}
        for arm, (clicks, shown, variance) in self.table.totals().items():
            value = clicks / shown
            effective = min(shown, value * (1 - value) / variance) if variance > 0 else shown
            rates[arm] = Rate(int(clicks), int(shown), effective)
        return {arm: rates[arm] for arm in (STABLE, CANARY) if arm in rates}
