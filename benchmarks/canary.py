"""How often the canary's guard is wrong: `make bench-canary`.

Simulated worlds, seeded: users' click rates are Beta(1, 19), their activity is Zipf's, clicks and traffic follow the
weekday, the share grows 5 -> 10 -> 25 -> 50 %, and the guard looks every five minutes for 14 days. Without a difference
(A/A) a rollback is false; with a loss, the share of canaries that are rolled back is the power. Latencies have rare
stalls that hit whatever is under way. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from serving.experiment.latency import LatencyTest
from serving.experiment.loss import RELATIVE_SCALE, LossTest
from serving.experiment.sequential import BoundedMeanTest, log_e_value_below, p_value
from serving.release_state import CANARY, STABLE
from serving.router.account import HOURS

DAYS = 14
RAMP = ((0, 5.0), (2, 10.0), (4, 25.0), (7, 50.0))  # from this day on, this share
WEEKDAYS = np.array([1.0, 0.95, 0.9, 1.0, 1.1, 1.3, 1.25])  # on rates; half of it on traffic
ALPHA = 0.01


class Site:
    """Users, and what they are shown and click, day by day."""

    def __init__(self, seed: int, users: int, daily: float, loss: float = 0.0):
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


def watched_clicks(
    seed: int, *, users: int, daily: float, loss: float, looks_a_day: int
) -> Iterator[tuple[float, float]]:
    """The guard's p-value for clicks at each look: (day, p)."""
    site, test = Site(seed, users, daily, loss), LossTest()
    names = [str(user) for user in range(users)]
    for day in range(DAYS):
        percent = share_on(day)
        shown, clicked, canary = site.day(day, percent)
        for look, part in enumerate(np.array_split(np.arange(len(shown)), looks_a_day)):
            for user, click, arm in zip(
                shown[part].tolist(), clicked[part].tolist(), canary[part].tolist(), strict=True
            ):
                test.table.add(test.table.place(names[user], percent / 100), CANARY if arm else STABLE, click, 1)
            seen = test.look()
            if seen and seen.comparable:
                yield day + look / looks_a_day, seen.p_value


def clicks_rolled_back(
    seed: int, *, users: int, daily: float, loss: float, looks_a_day: int, alpha: float = ALPHA
) -> float | None:
    """The day on which the guard ends this canary for its clicks; None: not in 14 days."""
    looks = watched_clicks(seed, users=users, daily=daily, loss=loss, looks_a_day=looks_a_day)
    return next((day for day, p in looks if p < alpha), None)


def naive_rolled_back(seed: int, *, users: int, daily: float) -> bool:
    """Whether the same world ends a canary where impressions count as independent and all shares are pooled."""
    site, clicks, rows = Site(seed, users, daily), np.zeros(2), np.zeros(2)
    for day in range(DAYS):
        _, clicked, canary = site.day(day, share_on(day))
        for arm in (0, 1):
            clicks[arm] += clicked[canary == arm].sum()
            rows[arm] += (canary == arm).sum()
        pooled = clicks.sum() / rows.sum()
        variance = pooled * (1 - pooled) * (1 / rows).sum()
        difference = clicks[1] / rows[1] - clicks[0] / rows[0]
        if log_e_value_below(difference, variance, RELATIVE_SCALE * pooled) > -math.log(ALPHA):
            return True
    return False


def slow_in_an_hour(
    seed: int, *, factor: float, ratio: float, rate: float = 4.0, share: float = 0.3, stalls: float = 18.0
) -> tuple[float | None, bool]:
    """When an hour's evidence suffices, in seconds, and whether its plain p99 are further apart than `ratio`.

    `rate` requests a second, each of a user of its own. About `stalls` of two seconds hit an arm: 18 are one
    request in a hundred, just where the p99 is torn.
    """
    random, now = np.random.default_rng(seed), [0.0]
    test = LatencyTest(ratio, lambda: now[0])
    events, p99 = [], {}
    for arm, part in ((CANARY, share), (STABLE, 1 - share)):
        at = random.random(random.poisson(3600 * rate * part)) * 3600
        took = random.lognormal(math.log(0.005), 0.4, len(at)) * (factor if arm == CANARY else 1)
        for start in random.random(random.poisson(stalls)) * 3600:
            length = random.exponential(2.0)
            stalled = (at > start) & (at < start + length)
            took[stalled] += start + length - at[stalled]
        p99[arm] = np.percentile(took, 99)
        events += [(time, arm, seconds) for time, seconds in zip(at.tolist(), took.tolist(), strict=True)]
    apart = bool(p99[CANARY] > ratio * p99[STABLE])
    look = 60.0
    for time_, arm, seconds in sorted(events):
        while time_ > look:
            now[0] = look
            if HOURS * p_value(test.log_e_value()) < ALPHA / 3:
                return look, apart
            look += 60
        now[0] = time_
        test.add(arm, seconds, 300)
    return None, apart


def errors_alarm(seed: int, rate: float, users_an_hour: int = 20) -> bool:
    """Whether 14 days of failures at this rate end a canary of which 1 % may fail."""
    random, test = np.random.default_rng(seed), BoundedMeanTest(0.01, HOURS)
    for _ in range(HOURS):
        test.restart()
        for failed in (random.random(users_an_hour) < rate).tolist():
            test.add(float(failed))
            if test.e_value > 3 / ALPHA:
                return True
    return False


def share_of(found: Sequence[object]) -> float:
    return round(sum(each is not None and each is not False for each in found) / len(found), 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulations", type=int, default=40)
    parser.add_argument("--users", type=int, default=1000)
    options = parser.parse_args()
    count, started = options.simulations, time.process_time()
    result: dict[str, float] = {"simulations": count}

    def note(name: str, value: float, said: str) -> None:
        result[name] = value
        print(f"{name:36}{value:9.4g}   {said}", flush=True)

    world: dict[str, Any] = {"users": options.users, "daily": 10.0}
    every_five = [clicks_rolled_back(seed, **world, loss=0.0, looks_a_day=288) for seed in range(count)]
    note("aa_clicks_5_minutes", share_of(every_five), "A/A canaries rolled back for clicks, 4,032 looks")
    hourly = [
        min((p for _, p in watched_clicks(seed, **world, loss=0.0, looks_a_day=24)), default=1.0)
        for seed in range(count, 4 * count)
    ]
    note("aa_clicks_hourly", share_of([p < ALPHA for p in hourly]), "the same, 336 looks, three times as many canaries")
    note("aa_clicks_hourly_at_5_percent", share_of([p < 0.05 for p in hourly]), "the same where the limit of p is .05")
    naive = [naive_rolled_back(seed, **world) for seed in range(count)]
    note("aa_clicks_naive", share_of(naive), "pooled, impressions independent, daily looks")
    for loss in (0.1, 0.2, 0.3):
        days = [clicks_rolled_back(seed, **world, loss=loss, looks_a_day=24) for seed in range(count // 2)]
        name = f"power_clicks_{round(100 * loss)}"
        note(name, share_of(days), f"of canaries whose click rate is {loss:.0%} lower, found within 14 days")
        found = [day for day in days if day is not None]
        if found:
            note(f"{name}_days", round(float(np.median(found)), 1), "their median day")
    world["users"] *= 4
    days = [clicks_rolled_back(seed, **world, loss=0.2, looks_a_day=12) for seed in range(count // 4)]
    note("power_clicks_20_of_4_times_the_users", share_of(days), "20% lower, four times as many users")
    hours = [slow_in_an_hour(seed, factor=1.0, ratio=2.0) for seed in range(HOURS * count // 50)]
    note("aa_p99_hours", share_of([at for at, _ in hours]), f"A/A hours in which the p99 guard fires, of {len(hours)}")
    note("aa_p99_hours_plain", share_of([apart for _, apart in hours]), "in which the plain p99 are a factor 2 apart")
    edge = [slow_in_an_hour(seed, factor=2.0, ratio=2.0)[0] for seed in range(count)]
    note("edge_p99_hours", share_of(edge), "hours at just the ratio that is allowed")
    for factor in (3.0, 5.0):
        times = [slow_in_an_hour(seed, factor=factor, ratio=2.0, stalls=6.0)[0] for seed in range(count // 2)]
        note(f"power_p99_{factor:g}x", share_of(times), f"hours in which a canary {factor:g} times as slow is found")
        seconds = [at for at in times if at is not None]
        if seconds:
            note(f"power_p99_{factor:g}x_minutes", float(np.median(seconds)) / 60, "their median time")
    alarms = [errors_alarm(seed, 0.01) for seed in range(2 * count)]
    note("edge_errors", share_of(alarms), "canaries at just the share of errors that is allowed")
    note("power_errors_5", share_of([errors_alarm(s, 0.05) for s in range(count)]), "canaries of which 5 % fail")
    print(f"{time.process_time() - started:.0f} s of CPU time")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
