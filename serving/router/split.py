"""Who gets which arm, what each arm did, and whether the canary must go.

A user stays in one arm for as long as the canary lasts: the arm is a hash of user and salt, and a larger share only
adds users.
"""

from __future__ import annotations

import glob
import hashlib
import json
import math
import pathlib
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from configs.serving import Rollback
from serving.experiment import Exposure, Feedback, Rate, SequentialTest, click_rates
from serving.release import CANARY, STABLE, Release, Route
from serving.release_state import read_route, replace_file

SAMPLES_KEPT = 10_000
ROUTE_SECONDS = 1.0


def share(user: str, salt: str) -> float:
    """Where in [0, 100) a user falls, the same on every machine and every day."""
    digest = hashlib.blake2b(f"{salt}\0{user}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64 * 100


def choose_arm(user: str | None, route: Route) -> str:
    """`stable` or `canary` for this user; who is not known stays with the stable version."""
    return CANARY if user is not None and share(user, route.salt) < route.canary_percent else STABLE


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
        if self.latencies:
            p50, p99 = (float(each) * 1000 for each in np.percentile(list(self.latencies), [50, 99]))
        if self.scores:
            scores = np.array(list(self.scores))
            mean = float(scores.mean())
            deciles = tuple(float(each) for each in np.percentile(scores, range(10, 100, 10)))
        return ArmReport(self.requests, self.errors, p50, p99, mean, deciles, self.shadows)


@dataclass(frozen=True)
class Report:
    """Both arms since the canary began, and their click-through rates where feedback was joined."""

    model: str
    since: float
    labels: dict[str, int]
    route: Route
    arms: dict[str, ArmReport]
    rates: dict[str, Rate] = field(default_factory=dict)
    p_value: float | None = None
    unread: int = 0  # lines of exposures and feedback that are not what they should be

    def as_json(self) -> str:
        """The report as JSON, rates with their value and 95 % interval."""
        tree = asdict(self)
        for arm, rate in self.rates.items():
            tree["rates"][arm] |= {"value": None if math.isnan(rate.value) else rate.value, "interval": rate.interval()}
        return json.dumps(tree, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Report:
        """What `as_json` wrote; ValueError where it is something else."""
        return TypeAdapter(cls).validate_json(text)


class Split:
    """The split of one model's traffic as its release says, and each arm's account."""

    def __init__(self, release: Release, feedback: Sequence[str] = ()):
        """Counts start anew whenever another canary starts; the route is looked at every second.

        `feedback` are globs of click logs: JSON lines with `time` (seconds since 1970), `user` and `item`.
        """
        self._release = release
        self._route = Route()
        self._read_at = -math.inf
        self.labelled = False  # whether the model has a stable version to name
        self._begin()
        self.report_file = report_file(release)
        self.exposures_file = release.config_file.with_name(f"{release.model}.exposures.jsonl")
        self._exposures = _Lines(Exposure, [str(self.exposures_file)])
        self._feedback = _Lines(Feedback, feedback)
        self._resume()

    @property
    def model(self) -> str:
        """The model whose traffic is split."""
        return self._release.model

    def route(self, fresh: bool = False) -> Route:
        """The split in force; with `fresh` as the file says at this moment."""
        now = time.monotonic()
        if fresh or now - self._read_at >= ROUTE_SECONDS:
            route, self._read_at = read_route(self._release.routes_file, self.model), now
            if route.salt != self._route.salt and route.canary_percent + route.shadow_percent > 0:
                self._begin()
            self._route = route
            self.labelled = STABLE in self.labels()
        return self._route

    def labels(self) -> dict[str, int]:
        """The labels that the release gives out; empty before the first promotion."""
        return self._release.standing().labels

    def count(self, arm: str, seconds: float, scores: Iterable[float], shadow: bool = False) -> None:
        """Enter an answered request into an arm's account."""
        account = self._arms[arm]
        account.requests += 1
        account.shadows += shadow
        account.latencies.append(seconds)
        account.scores.extend(scores)

    def failed(self, arm: str, shadow: bool = False) -> None:
        """Enter a request that failed through the server's fault."""
        account = self._arms[arm]
        account.requests += 1
        account.shadows += shadow
        account.errors += 1

    def shown(self, user: str, items: Iterable[str]) -> None:
        """Note that these items were put before the user, for the click-through rate."""
        arm = choose_arm(user, self.route())
        with self.exposures_file.open("a", encoding="utf-8") as log:
            for item in items:
                log.write(json.dumps(asdict(Exposure(time.time(), user, item, arm))) + "\n")

    def report(self) -> Report:
        """Both arms so far."""
        exposures = [e for e in self._exposures.lines() if e.time >= self._since]
        rates = click_rates(exposures, self._feedback.lines()) if exposures else {}
        if STABLE in rates and CANARY in rates:
            self._test.look(rates[STABLE], rates[CANARY])
        return Report(
            model=self.model,
            since=self._since,
            labels=self.labels(),
            route=self.route(),
            arms={name: arm.report() for name, arm in self._arms.items()},
            rates=rates,
            p_value=self._test.p_value if rates else None,
            unread=self._exposures.unread + self._feedback.unread,
        )

    def guard(self, conditions: Rollback) -> str | None:
        """Keep the report beside the release state, and roll a canary back that violates a condition: why, or None."""
        self.route(fresh=True)  # what another canary did must not be held against this one
        report = self.report()
        replace_file(self.report_file, report.as_json() + "\n")
        if CANARY not in report.labels:
            return None
        reason = violated(conditions, report)
        if reason:
            self._release.rollback(canary=report.labels[CANARY], why=f"automatic: {reason}")
        return reason

    def _begin(self) -> None:
        self._since = time.time()
        self._arms = {STABLE: _Arm(), CANARY: _Arm()}
        self._test = SequentialTest()

    def _resume(self) -> None:
        """A router that starts again goes on with the click-through rates of the canary under way."""
        route = self.route()
        try:
            last = Report.from_json(self.report_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return
        if last.route.salt == route.salt and last.labels.get(CANARY) == self.labels().get(CANARY):
            self._since = last.since
            self._test.p_value = 1.0 if last.p_value is None else last.p_value


def report_file(release: Release) -> pathlib.Path:
    """Where a router keeps its report."""
    return release.config_file.with_name(f"{release.model}.arms.json")


def violated(conditions: Rollback, report: Report) -> str | None:
    """Why the canary must go, or None."""
    stable, canary = report.arms[STABLE], report.arms[CANARY]
    if canary.requests >= conditions.min_requests:
        if canary.error_rate > conditions.max_error_rate:
            return f"{canary.error_rate:.2%} of the canary's requests failed; {conditions.max_error_rate:.2%} may"
        if stable.requests >= conditions.min_requests:
            reason = _slower(conditions, stable, canary) or _shifted(conditions, stable, canary)
            if reason:
                return reason
    rates = report.rates
    if STABLE not in rates or CANARY not in rates or report.p_value is None:
        return None
    if rates[CANARY].value >= rates[STABLE].value or report.p_value >= conditions.max_ctr_p_value:
        return None
    return (
        f"the canary's click-through rate is {rates[CANARY].value:.4f}, the stable version's "
        f"{rates[STABLE].value:.4f} (sequential p = {report.p_value:.2g})"
    )


def _slower(conditions: Rollback, stable: ArmReport, canary: ArmReport) -> str | None:
    if canary.p99_ms is None or stable.p99_ms is None or canary.p99_ms <= stable.p99_ms * conditions.max_p99_ratio:
        return None
    return (
        f"the canary's p99 is {canary.p99_ms:.1f} ms, more than {conditions.max_p99_ratio:g} times the stable "
        f"version's {stable.p99_ms:.1f} ms"
    )


def _shifted(conditions: Rollback, stable: ArmReport, canary: ArmReport) -> str | None:
    most = conditions.max_score_shift
    if most is None or canary.score_mean is None or stable.score_mean is None:
        return None
    if abs(canary.score_mean - stable.score_mean) <= most:
        return None
    return (
        f"the canary's mean score is {canary.score_mean:.4g}, the stable version's {stable.score_mean:.4g}: "
        f"more than {most:g} apart"
    )


class _Lines:
    """What JSON-lines files that grow hold so far; each line is read once."""

    def __init__(self, kind: type[Any], globs: Sequence[str]):
        self._kind = kind
        self._globs = globs
        self._read: dict[str, int] = {}
        self._found: list[Any] = []
        self.unread = 0

    def lines(self) -> list[Any]:
        for path in sorted(path for pattern in self._globs for path in glob.glob(pattern)):
            with open(path, "rb") as log:
                log.seek(self._read.get(path, 0))
                new = log.read()
            whole = new[: new.rfind(b"\n") + 1]  # the last line may still be under way
            self._read[path] = self._read.get(path, 0) + len(whole)
            for line in whole.splitlines():
                self._add(line)
        return self._found

    def _add(self, line: bytes) -> None:
        types = {"time": float, "user": str, "item": str, "arm": str}
        try:
            row = json.loads(line)
            self._found.append(self._kind(**{f.name: types[f.name](row[f.name]) for f in fields(self._kind)}))
        except (ValueError, KeyError, TypeError):
            self.unread += 1
