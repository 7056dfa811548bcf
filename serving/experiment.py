"""Is the canary better? Click-through rates with intervals, and a test that stays valid however often one looks.

The test is a mixture sequential probability ratio test on the difference of two proportions, with a normal mixture of
standard deviation `tau` over the true difference (Robbins 1970; Johari, Pekelis and Walsh 2015, "Always valid
inference"). Its p-value may be read after every request: the chance that it ever falls below alpha without a difference
is at most alpha.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

Z_95 = 1.959963984540054
DEFAULT_TAU = 0.02  # differences in CTR that are worth seeing are of this size


@dataclass(frozen=True)
class Rate:
    """Clicks of impressions."""

    clicks: int
    impressions: int

    @property
    def value(self) -> float:
        """The rate; NaN without impressions."""
        return self.clicks / self.impressions if self.impressions else math.nan

    def interval(self, z: float = Z_95) -> tuple[float, float]:
        """Wilson's score interval (1927): sound for few clicks, where the textbook one is not."""
        if not self.impressions:
            return 0.0, 1.0
        n, p = self.impressions, self.value
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return max(0.0, centre - half), min(1.0, centre + half)


def likelihood_ratio(stable: Rate, canary: Rate, tau: float = DEFAULT_TAU) -> float:
    """How much better a difference explains what was seen than none does; 1 where nothing was seen."""
    if not stable.impressions or not canary.impressions:
        return 1.0
    pooled = (stable.clicks + canary.clicks) / (stable.impressions + canary.impressions)
    variance = pooled * (1 - pooled) * (1 / stable.impressions + 1 / canary.impressions)
    if variance == 0:
        return 1.0
    difference = canary.value - stable.value
    exponent = tau**2 * difference**2 / (2 * variance * (variance + tau**2))
    return math.sqrt(variance / (variance + tau**2)) * math.exp(min(exponent, 700.0))


class SequentialTest:
    """Accumulates looks; the p-value never rises again, which is what makes peeking safe."""

    def __init__(self, tau: float = DEFAULT_TAU):
        self._tau = tau
        self.p_value = 1.0

    def look(self, stable: Rate, canary: Rate) -> float:
        """The p-value after seeing these totals."""
        self.p_value = min(self.p_value, 1.0 / likelihood_ratio(stable, canary, self._tau))
        return self.p_value


@dataclass(frozen=True)
class Exposure:
    """An item shown to a user by an arm, as the router logs it."""

    time: float
    user: str
    item: str
    arm: str


@dataclass(frozen=True)
class Feedback:
    """A click, as the product logs it."""

    time: float
    user: str
    item: str


def click_rates(
    exposures: Iterable[Exposure], feedback: Iterable[Feedback], within_seconds: float = 3600.0
) -> dict[str, Rate]:
    """Each arm's rate: a click counts for the latest showing of the item to the user, if that was not too long ago."""
    shown: dict[tuple[str, str], list[Exposure]] = {}
    impressions: dict[str, int] = {}
    for exposure in sorted(exposures, key=lambda each: each.time):
        shown.setdefault((exposure.user, exposure.item), []).append(exposure)
        impressions[exposure.arm] = impressions.get(exposure.arm, 0) + 1
    clicked: set[int] = set()
    clicks: dict[str, int] = {}
    for each in feedback:
        showings = [
            exposure
            for exposure in shown.get((each.user, each.item), [])
            if 0 <= each.time - exposure.time <= within_seconds
        ]
        if showings and id(showings[-1]) not in clicked:  # a second click on one showing is no second click
            clicked.add(id(showings[-1]))
            clicks[showings[-1].arm] = clicks.get(showings[-1].arm, 0) + 1
    return {arm: Rate(clicks.get(arm, 0), count) for arm, count in impressions.items()}
