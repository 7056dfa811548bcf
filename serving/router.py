"""Splits a model's traffic between its `stable` and `canary` labels, by user, and keeps each arm's account.

A user stays in one arm for as long as the canary lasts: the arm is a hash of user and salt, and a larger share only
adds users. A shadow copy is sent to the canary beside the stable answer; nobody waits for it and nobody sees it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import pathlib
import random
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from serving.client import AsyncClient, Features
from serving.experiment import Exposure, Rate, SequentialTest
from serving.release import CANARY, STABLE, Release, Route, read_route
from serving.server.status import Code, ServingError

SAMPLES_KEPT = 10_000
SHADOWS_AT_ONCE = 64
ROUTE_SECONDS = 1.0
_CLIENT_FAULTS = {Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.FAILED_PRECONDITION, Code.OUT_OF_RANGE}


def share(user: str, salt: str) -> float:
    """Where in [0, 100) a user falls, the same on every machine and every day."""
    digest = hashlib.blake2b(f"{salt}\0{user}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64 * 100


def choose_arm(user: str, route: Route) -> str:
    """`stable` or `canary` for this user."""
    return CANARY if share(user, route.salt) < route.canary_percent else STABLE


@dataclass(frozen=True)
class ArmReport:
    """What an arm did: counts, latency in milliseconds, and the distribution of its scores."""

    requests: int
    errors: int
    p50_ms: float
    p99_ms: float
    score_mean: float
    score_deciles: tuple[float, ...]
    shadows: int

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
        latencies = np.array(self.latencies or [np.nan]) * 1000
        scores = np.array(self.scores or [np.nan])
        deciles = tuple(float(each) for each in np.percentile(scores, range(10, 100, 10)))
        p50, p99 = (float(each) for each in np.percentile(latencies, [50, 99]))
        return ArmReport(self.requests, self.errors, p50, p99, float(scores.mean()), deciles, self.shadows)


class Router:
    """Routes `rank` requests; give it an AsyncClient of the model and the release's routes file."""

    def __init__(
        self,
        client: AsyncClient,
        model: str,
        routes_file: pathlib.Path,
        *,
        exposures_file: pathlib.Path | None = None,
    ):
        """With `exposures_file`, what each user was shown is appended to it as JSON lines (see Exposure)."""
        self._client = client
        self._model = model
        self._routes_file = routes_file
        self._exposures = exposures_file.open("a", buffering=1) if exposures_file else None
        self._arms = {STABLE: _Arm(), CANARY: _Arm()}
        self._route = Route()
        self._read_at = -np.inf
        self._shadows: set[asyncio.Task[None]] = set()
        self._random = random.Random()

    @property
    def route(self) -> Route:
        """The split in force; the file is looked at every second."""
        now = time.monotonic()
        if now - self._read_at >= ROUTE_SECONDS:
            self._route, self._read_at = read_route(self._routes_file, self._model), now
        return self._route

    async def rank(self, user_id: str, user: Mapping[str, Any], items: Features, **options: Any) -> np.ndarray:
        """Scores of the user's arm, in the items' order."""
        route = self.route
        arm = choose_arm(user_id, route)
        if arm == STABLE and self._random.random() * 100 < route.shadow_percent:
            self._shadow(user, items, options)
        return await self._ask(arm, user, items, options)

    def shown(self, user_id: str, items: Sequence[str]) -> None:
        """Note that these items were put before the user, for the click-through rate."""
        if self._exposures:
            arm = choose_arm(user_id, self.route)
            for item in items:
                self._exposures.write(json.dumps(asdict(Exposure(time.time(), user_id, item, arm))) + "\n")

    def report(self) -> dict[str, ArmReport]:
        """Both arms since the router started, percentiles over the latest requests."""
        return {name: arm.report() for name, arm in self._arms.items()}

    async def close(self) -> None:
        """Wait for shadow copies under way and close the client."""
        await asyncio.gather(*self._shadows, return_exceptions=True)
        if self._exposures:
            self._exposures.close()
        await self._client.close()

    def _shadow(self, user: Mapping[str, Any], items: Features, options: Mapping[str, Any]) -> None:
        if len(self._shadows) >= SHADOWS_AT_ONCE:
            return  # a canary that cannot follow must not fill this process
        task = asyncio.get_running_loop().create_task(self._copy(user, items, options))
        self._shadows.add(task)
        task.add_done_callback(self._shadows.discard)

    async def _copy(self, user: Mapping[str, Any], items: Features, options: Mapping[str, Any]) -> None:
        self._arms[CANARY].shadows += 1
        with contextlib.suppress(ServingError):  # counted against the canary; the user has the stable answer
            await self._ask(CANARY, user, items, options)

    async def _ask(self, name: str, user: Mapping[str, Any], items: Features, options: Mapping[str, Any]) -> np.ndarray:
        arm = self._arms[name]
        arm.requests += 1
        start = time.perf_counter()
        try:
            scores = await self._client.rank(user, items, **{**options, "label": name})
        except ServingError as error:
            if error.code not in _CLIENT_FAULTS or name == CANARY:
                arm.errors += 1
            raise
        arm.latencies.append(time.perf_counter() - start)
        arm.scores.extend(float(score) for score in scores.ravel())
        return scores


@dataclass(frozen=True)
class RollbackConditions:
    """When a canary is taken back without asking anyone."""

    min_requests: int = 200
    max_error_rate: float = 0.01
    max_p99_ratio: float = 2.0
    max_score_shift: float | None = None
    max_ctr_p_value: float = 0.01

    def violated(
        self, arms: Mapping[str, ArmReport], rates: Mapping[str, Rate] | None = None, test: SequentialTest | None = None
    ) -> str | None:
        """Why the canary must go, or None. `rates` and `test` add the click-through rate to the judgement."""
        stable, canary = arms[STABLE], arms[CANARY]
        if canary.requests < self.min_requests:
            return None
        if canary.error_rate > self.max_error_rate:
            return f"{canary.error_rate:.2%} of the canary's requests failed; {self.max_error_rate:.2%} are allowed"
        if stable.requests >= self.min_requests and canary.p99_ms > stable.p99_ms * self.max_p99_ratio:
            return (
                f"the canary's p99 is {canary.p99_ms:.1f} ms, more than {self.max_p99_ratio:g} times the stable "
                f"version's {stable.p99_ms:.1f} ms"
            )
        if self.max_score_shift is not None and abs(canary.score_mean - stable.score_mean) > self.max_score_shift:
            return (
                f"the canary's mean score is {canary.score_mean:.4g}, the stable version's {stable.score_mean:.4g}: "
                f"more than {self.max_score_shift:g} apart"
            )
        if rates and STABLE in rates and CANARY in rates:
            p_value = (test or SequentialTest()).look(rates[STABLE], rates[CANARY])
            if rates[CANARY].value < rates[STABLE].value and p_value < self.max_ctr_p_value:
                return (
                    f"the canary's click-through rate is {rates[CANARY].value:.4f}, the stable version's "
                    f"{rates[STABLE].value:.4f} (sequential p = {p_value:.2g})"
                )
        return None


def guard(
    release: Release,
    arms: Mapping[str, ArmReport],
    conditions: RollbackConditions,
    rates: Mapping[str, Rate] | None = None,
    test: SequentialTest | None = None,
) -> str | None:
    """Roll a running canary back if a condition is violated; returns the reason, or None where all is well."""
    if CANARY not in release.standing().labels:
        return None
    reason = conditions.violated(arms, rates, test)
    if reason:
        release.rollback(why=f"automatic: {reason}")
    return reason
