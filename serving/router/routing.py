"""Which arm answers a request, and what its account keeps of it.

What the canary fails on is asked of the stable version, so a bad canary harms nobody; if the stable version answers,
the failure is the canary's. A shadow copy goes to the canary after the stable answer; nobody waits for it or sees it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from serving.release_state import CANARY, STABLE
from serving.router.account import Account, Asker
from serving.router.metrics import RouterMetrics
from serving.router.split import Split, choose_arm
from serving.server.large import LargeRequests
from serving.server.prediction_service import Admission
from serving.server.status import Code, invalid_argument

USER_HEADER = "recsys-user"
USER_CHARACTERS = 512
SHADOWS_AT_ONCE = 64
REQUESTS_AT_ONCE = 4096
_CLIENT_FAULTS = {Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.FAILED_PRECONDITION, Code.OUT_OF_RANGE}
_CLIENT_FAULTS |= {Code.CANCELLED, Code.UNIMPLEMENTED}


@dataclass(frozen=True)
class Answer:
    """What a server said: the body as it goes back, and how to read the scores in it."""

    body: bytes
    scores: Callable[[], Iterable[float]] = tuple
    status: int = 200
    content_type: str = "application/json"


class UpstreamError(Exception):
    """The server answered with an error, which goes back as it came."""

    def __init__(self, code: Code, answer: Answer):
        """`answer` holds REST's error body, or gRPC's details."""
        super().__init__(answer.body.decode(errors="replace"))
        self.code = code
        self.answer = answer


class Send(Protocol):
    """Passes one request on under a version label (None: as it came)."""

    def __call__(self, label: str | None, shadow: bool = False) -> Awaitable[Answer]:
        """Raises UpstreamError; the client's deadline holds, but not for a shadow copy."""


class Router:
    """Chooses the arm of each request and keeps the account."""

    def __init__(self, split: Split, user_column: str):
        """`user_column` is the model's input that holds the user's id."""
        self.split = split
        self.user_column = user_column
        self.admission = Admission(REQUESTS_AT_ONCE)
        self.large = LargeRequests()
        self._metrics: RouterMetrics = split.metrics
        self._shadows: set[asyncio.Task[None]] = set()
        self._random = random.Random()

    async def route(self, user: str | None, size: int, send: Send) -> Answer:
        """The answer of the user's arm to a request of `size` bytes."""
        # An account belongs to one start of a canary: what it is told late, it is told of its own.
        route, account = self.split.route, self.split.account
        asker = account.asker(user, size, route.canary_percent)
        if not self.split.labelled:
            return await self._stable(account, asker, send, None)
        if choose_arm(user, route) == STABLE:
            answer = await self._stable(account, asker, send, STABLE)
            if self._random.random() * 100 < route.shadow_percent and len(self._shadows) < SHADOWS_AT_ONCE:
                # Above the limit none is sent: a canary that cannot follow must not fill this process.
                task = asyncio.get_running_loop().create_task(self._shadow(account, asker, send))
                self._shadows.add(task)
                task.add_done_callback(self._shadows.discard)
            return answer
        try:
            return await self._canary(account, asker, send)
        except UpstreamError:
            answer = await send(STABLE)
            account.failed(CANARY, asker)
            self._metrics.requests.add(CANARY, "failed")
            return answer

    async def drained(self) -> None:
        """Wait for the shadow copies under way."""
        await asyncio.gather(*self._shadows, return_exceptions=True)

    async def _canary(self, account: Account, asker: Asker, send: Send, shadow: bool = False) -> Answer:
        start = time.perf_counter()
        try:
            answer = await send(CANARY, shadow)
        except (UpstreamError, asyncio.CancelledError) as error:
            if _waited_in_vain(error):
                account.late(CANARY, asker, time.perf_counter() - start)
            raise
        account.answered(CANARY, asker, time.perf_counter() - start, answer.scores, shadow=shadow)
        if shadow:
            self._metrics.shadows.add("answered")
        else:
            self._metrics.requests.add(CANARY, "answered")
        return answer

    async def _stable(self, account: Account, asker: Asker, send: Send, label: str | None) -> Answer:
        start = time.perf_counter()
        try:
            answer = await send(label)
        except (UpstreamError, asyncio.CancelledError) as error:
            if _waited_in_vain(error):
                account.late(STABLE, asker, time.perf_counter() - start)
            if isinstance(error, UpstreamError):
                fault = error.code not in _CLIENT_FAULTS
                self._metrics.requests.add(STABLE, "failed" if fault else "refused")
                if fault:
                    account.failed(STABLE, asker)
            raise
        account.answered(STABLE, asker, time.perf_counter() - start, answer.scores)
        self._metrics.requests.add(STABLE, "answered")
        return answer

    async def _shadow(self, account: Account, asker: Asker, send: Send) -> None:
        try:
            await self._canary(account, asker, send, shadow=True)
        except UpstreamError:
            account.failed(CANARY, asker, shadow=True)
            self._metrics.shadows.add("failed")


def _waited_in_vain(error: BaseException) -> bool:
    """Whether time ran out; a client's own deadline ends the call before the server's word of it comes."""
    return not isinstance(error, UpstreamError) or error.code is Code.DEADLINE_EXCEEDED


def checked_user(user: str) -> str:
    """A user's id as a client named it; ServingError (INVALID_ARGUMENT) where it is no text or far too long."""
    if len(user) > USER_CHARACTERS or not user.isprintable():
        raise invalid_argument(
            f"{USER_HEADER} must be printable text in UTF-8 of at most {USER_CHARACTERS} characters."
        )
    return user


def only_user(values: Iterable[object]) -> str | None:
    """The one user of a request's values; None where there is none, more than one, or one that is no text."""
    users = set()
    for value in values:
        users.add(value.decode(errors="replace") if isinstance(value, bytes) else str(value))
        if len(users) > 1:
            return None
    user = users.pop() if users else None
    # A lone surrogate is no text; the server behind refuses it.
    return None if user is None or len(user) > USER_CHARACTERS or any("\ud800" <= c <= "\udfff" for c in user) else user
