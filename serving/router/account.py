"""What each arm did since the canary began, and the evidence against the canary in it.

Evidence counts one request of a user an hour: whoever sends a thousand weighs no more than who sends one. Requests
without a user count once a second together.
"""

from __future__ import annotations

import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from configs.serving import Rollback
from serving.experiment.clustered import UserTable
from serving.experiment.latency import LatencyTest
from serving.experiment.sequential import BoundedMeanTest, log_e_value_below, p_value
from serving.release_state import CANARY, STABLE

SAMPLES_KEPT = 10_000
SCORES_PER_ANSWER = 100
SCORED_EVERY = 8  # of the requests that are no evidence, this share's scores are looked at
HOURS = 14 * 24  # what the stated chance of a false alarm is about
USERS_AN_HOUR = 200_000
USERS_SCORED = 100_000
HOURS_SCORED = 24.0  # of one user and share
MIN_FAILING_USERS = 5


@dataclass(frozen=True)
class ArmReport:
    """What an arm did: counts, latency in milliseconds, and the distribution of its scores (None: nothing yet)."""

    requests: int = 0
    errors: int = 0
    p50_ms: float | None = None
    p99_ms: float | None = None
    score_mean: float | None = None
    score_deciles: tuple[float, ...] = ()
    shadows: int = 0

    @property
    def error_rate(self) -> float:
        """Share of requests that failed through the server's fault."""
        return self.errors / self.requests if self.requests else 0.0


@dataclass(frozen=True)
class Evidence:
    """Always-valid p-values that the canary keeps its limits, over 14 days of looks; None: not looked for."""

    errors: float = 1.0
    p99: float = 1.0
    score_shift: float | None = None


@dataclass
class _Arm:
    requests: int = 0
    errors: int = 0
    shadows: int = 0
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=SAMPLES_KEPT))
    scores: deque[float] = field(default_factory=lambda: deque(maxlen=SAMPLES_KEPT))

    def report(self) -> ArmReport:
        p50 = p99 = mean = None
        deciles: tuple[float, ...] = ()
        latencies, scores = list(self.latencies), list(self.scores)
        if latencies:
            p50, p99 = (float(each) * 1000 for each in np.percentile(latencies, [50, 99]))
        if scores:
            mean = float(np.mean(scores))
            deciles = tuple(float(each) for each in np.percentile(scores, range(10, 100, 10)))
        return ArmReport(self.requests, self.errors, p50, p99, mean, deciles, self.shadows)


@dataclass(frozen=True, slots=True)
class Asker:
    """Who sent a request, and whether it is evidence: the first of its user in this hour."""

    user: str | None
    size: int
    counts: bool
    share: float


class Account:
    """Both arms of one start of a canary. Filled by the event loop, looked at from another thread."""

    def __init__(self, conditions: Rollback, clock: Callable[[], float] = time.monotonic):
        """Limits from `conditions`; `clock` in seconds."""
        self.since = time.time()
        self._conditions = conditions
        self._clock = clock
        self._arms = {STABLE: _Arm(), CANARY: _Arm()}
        self._start, self._hour = clock(), -1
        self._seen: set[int] = set()
        self._second = -1
        self._failing: set[int] = set()
        self._latency = LatencyTest(conditions.max_p99_ratio, clock)
        self._scores = UserTable(HOURS_SCORED, USERS_SCORED)
        self._scored = itertools.cycle(range(SCORED_EVERY))

    def asker(self, user: str | None, size: int, share: float) -> Asker:
        """A request of `size` bytes has come in, while the canary's share is `share` percent."""
        elapsed = self._clock() - self._start
        hour = int(elapsed / 3600)
        if hour != self._hour:
            self._hour = hour
            self._seen = set()
            if hour % HOURS == 0 or self._errors is None:
                self._errors = self._error_test()
                self._failing = set()
            if self._errors is not None:
                self._errors.restart()
        if user is None:
            counts, self._second = self._second != int(elapsed), int(elapsed)
        else:
            key = hash(user)
            counts = key not in self._seen and len(self._seen) < USERS_AN_HOUR
            if counts:
                self._seen.add(key)
        return Asker(user, size, counts, share)

    def answered(
        self,
        arm: str,
        asker: Asker,
        seconds: float,
        scores: Callable[[], Iterable[float]],
        shadow: bool = False,
    ) -> None:
        """Enter an answered request into an arm's account; `scores` is asked for a sample only."""
        account = self._arms[arm]
        account.requests += 1
        account.shadows += shadow
        account.latencies.append(seconds)
        if asker.counts:
            self._latency.add(arm, seconds, asker.size)
            if arm == CANARY and self._errors is not None:
                self._errors.add(0.0)
        if asker.counts or next(self._scored) == 0:
            found = [score for score in itertools.islice(scores(), SCORES_PER_ANSWER) if math.isfinite(score)]
            account.scores.extend(found)
            if found and asker.counts and self._conditions.max_score_shift is not None:
                place = self._scores.place(asker.user or "", asker.share)
                if place is not None:
                    self._scores.add(place, arm, sum(found) / len(found), 1)

    def late(self, arm: str, asker: Asker, seconds: float) -> None:
        """Enter how long a request was waited for in vain; whether that was too long, its arm's others say."""
        self._arms[arm].latencies.append(seconds)
        if asker.counts:
            self._latency.add(arm, seconds, asker.size)

    def failed(self, arm: str, asker: Asker, shadow: bool = False) -> None:
        """Enter a request that failed through the server's fault."""
        account = self._arms[arm]
        account.requests += 1
        account.shadows += shadow
        account.errors += 1
        if arm == CANARY and asker.counts and self._errors is not None:
            self._errors.add(1.0)
            if len(self._failing) < MIN_FAILING_USERS:
                self._failing.add(hash(asker.user) if asker.user is not None else self._second)

    def arms(self) -> dict[str, ArmReport]:
        """What both arms did."""
        return {name: arm.report() for name, arm in self._arms.items()}

    def evidence(self) -> Evidence:
        """What speaks against the canary."""
        errors = 1.0
        if self._errors is not None and len(self._failing) >= MIN_FAILING_USERS:
            errors = min(1.0, 1 / max(self._errors.e_value, 1e-300))
        p99 = min(1.0, HOURS * p_value(self._latency.log_e_value()))
        return Evidence(errors, p99, self._score_shift())

    _errors: BoundedMeanTest | None = None

    def _error_test(self) -> BoundedMeanTest | None:
        limit = max(self._conditions.max_error_rate, 1e-4)
        return BoundedMeanTest(limit, HOURS) if limit < 1 else None

    def _score_shift(self) -> float | None:
        most = self._conditions.max_score_shift
        if most is None:
            return None
        found = self._scores.difference(drawn=False)
        users = self._scores.users()
        if found is None or min(sum(each[arm] for each in users) for arm in (0, 1)) < self._conditions.min_requests:
            return 1.0
        beyond = [log_e_value_below(most - side * found.value, found.variance, most) for side in (1, -1)]
        return min(1.0, 2 * p_value(max(beyond)))
