"""Evidence that may be looked at all the time: e-values, whose chance ever to reach 1/alpha is at most alpha.

An e-value is a nonnegative statistic with expectation at most 1 under the hypothesis, at every moment one stops
(Ville's inequality; Ramdas, Grünwald, Vovk and Shafer 2023, "Game-theoretic statistics and safe anytime-valid
inference"). Its reciprocal is an always-valid p-value (Johari, Koomen, Pekelis and Walsh 2022).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

_SQRT2 = math.sqrt(2.0)


def log_e_value_below(difference: float, variance: float, scale: float) -> float:
    """The logarithm of the evidence that the true difference is below 0, against "it is 0 or above".

    A mixture sequential probability ratio test (Robbins 1970) over a half-normal of standard deviation `scale` below 0:
    one-sided, so a canary that was ahead never counts against itself. `difference` is an estimate that is
    asymptotically normal with this `variance`, which is what makes the level asymptotic (Waudby-Smith, Arbour, Sinha,
    Kennedy and Ramdas 2024, "Time-uniform central limit theory and asymptotic confidence sequences").
    """
    if not variance > 0:
        return 0.0
    ratio = scale**2 / variance
    shrunk = ratio / (1 + ratio)
    z = difference / math.sqrt(variance)
    below = math.erfc(z * math.sqrt(shrunk) / _SQRT2)  # 2 * Phi(-z * sqrt(shrunk))
    if below == 0:
        return -math.inf
    return math.log(below) - 0.5 * math.log1p(ratio) + 0.5 * z * z * shrunk


def interval_half_width(variance: float, scale: float, alpha: float = 0.05) -> float:
    """Half the width of the interval that covers the true difference at all times with chance 1 - `alpha`.

    From the two-sided normal mixture of standard deviation `scale` (Robbins' boundary); infinite without data.
    """
    if not variance > 0:
        return math.inf
    ratio = scale**2 / variance
    return math.sqrt(variance * (1 + ratio) / ratio * (math.log1p(ratio) + 2 * math.log(1 / alpha)))


def p_value(log_e_value: float) -> float:
    """The always-valid p-value of an e-value."""
    return min(1.0, math.exp(-log_e_value)) if log_e_value > 0 else 1.0


class BoundedMeanTest:
    """Evidence that a stream's mean is above a limit, for values in [0, 1]; exact, not asymptotic.

    It bets on every value (Waudby-Smith and Ramdas 2024, "Estimating means of bounded random variables by betting"):
    with stake s the wealth is the product of `1 + s * (value - limit)`. Stakes are mixed, since no single one suits
    both a small excess and a flood. `restart` starts another bet, so that what went well for a week does not hide what
    goes wrong today; `restarts` bets share the first wealth of 1, so the level holds over that many.
    """

    def __init__(self, limit: float, restarts: int):
        """`limit` above 0 and below 1; at most `restarts` calls of `restart`."""
        self._limit = limit
        self._stakes = [0.9 / limit / 4**power for power in range(5) if 0.9 / limit / 4**power > 0.05] or [0.9 / limit]
        self._share = 1.0 / restarts / len(self._stakes)
        self._left = restarts
        self._wealth = [0.0] * len(self._stakes)

    def restart(self) -> None:
        """Another bet beside those that run; without effect once `restarts` are used up."""
        if self._left > 0:
            self._left -= 1
            self._wealth = [wealth + self._share for wealth in self._wealth]

    def add(self, value: float) -> None:
        """Take one value in [0, 1] into account."""
        gain = value - self._limit
        self._wealth = [
            min(wealth * (1 + stake * gain), 1e300) for wealth, stake in zip(self._wealth, self._stakes, strict=True)
        ]

    @property
    def e_value(self) -> float:
        """The evidence so far."""
        return math.fsum(self._wealth)


def sample_ratio_e_value(counts: Sequence[tuple[int, int, float]], weight: float = 100.0) -> float:
    """Evidence that users fell into the arms otherwise than drawn, from (canary's, stable's, canary's share) each.

    A Bayes factor of a Beta prior around the share, worth `weight` users, against the share itself (a sequential
    sample ratio check as in Lindon and Malek 2022). A user stays in his arm when the share grows, so the strata are not
    independent: their evidence is averaged and not multiplied, which holds whatever they share.
    """
    found = []
    for canary, stable, share in counts:
        if not 0 < share < 1 or not canary + stable:
            continue
        a, b = weight * share, weight * (1 - share)
        log_factor = _log_beta(a + canary, b + stable) - _log_beta(a, b)
        log_factor -= canary * math.log(share) + stable * math.log1p(-share)
        found.append(math.exp(min(log_factor, 700.0)))
    return sum(found) / len(found) if found else 1.0


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
