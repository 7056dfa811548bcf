"""How often the canary's guard is wrong: `make bench-canary`.

Simulated worlds, seeded: users' click rates are Beta(1, 19), their activity is Zipf's, clicks and traffic follow the
weekday, the share grows 5 -> 10 -> 25 -> 50 %, and the guard looks every five minutes for 14 days. Without a difference
(A/A) a rollback is false; with a loss, the share of canaries that are rolled back is the power. Latencies have rare
stalls that hit whatever is under way. The last line is one JSON object.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from serving.experiment.loss import LossTest
from serving.release_state import CANARY, STABLE

DAYS = 14
RAMP = ((0, 5.0), (2, 10.0), (4, 25.0), (7, 50.0))  # from this day on, this share
WEEKDAYS = np.array([1.0, 0.95, 0.9, 1.0, 1.1, 1.3, 1.25])  # on rates; half of it on traffic
ALPHA = 0.01


class Site:
    """Users, and what they are shown and click, day by day."""

    def __init__(self, seed: int, users: int, daily: float, loss: float = 0.0, persistent: bool = True):
        self.random = np.random.default_rng(seed)
        self.rates = self.random.beta(1, 19, users)
        activity = 1 / np.arange(1, users + 1)
        self.activity = activity / activity.sum()
        self.places = self.random.random(users)
        self.daily = daily * users
        self.loss = loss

    def day(self, day: int, percent: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The users of a day's showings in the order of time, who of them clicked, and whose arm is the canary's."""
        weekday = WEEKDAYS[(day + 2) % 7]
        shown = self.random.choice(
            len(self.rates), self.random.poisson(self.daily * math.sqrt(weekday)), p=self.activity
        )
        canary = self.places[shown] < percent / 100
        rates = self.rates[shown] * weekday * np.where(canary, 1 - self.loss, 1.0)
        return shown, self.random.random(len(shown)) < rates, canary


def share_on(day: int, ramp: Sequence[tuple[int, float]] = RAMP) -> float:
    return max((start, share) for start, share in ramp if start <= day)[1]


def clicks_rolled_back(
    seed: int, *, users: int, daily: float, loss: float, looks_a_day: int, days: int = DAYS
) -> float | None:
    """The day on which the guard ends this canary for its clicks; None: never."""
    site, test = Site(seed, users, daily, loss), LossTest()
    names = [str(user) for user in range(users)]
    for day in range(days):
        percent = share_on(day)
        shown, clicked, canary = site.day(day, percent)
        for look, part in enumerate(np.array_split(np.arange(len(shown)), looks_a_day)):
            for user, click, arm in zip(
                shown[part].tolist(), clicked[part].tolist(), canary[part].tolist(), strict=True
            ):
                test.table.add(test.table.place(names[user], percent / 100), CANARY if arm else STABLE, click, 1)
            loss_seen = test.look()
            if loss_seen and loss_seen.comparable and loss_seen.p_value < ALPHA:
                return day + look / looks_a_day
    return None
