"""Large requests: off the event loop, few at a time, and only so many bytes of them at once.

Reading tens of megabytes takes as long as answering hundreds of small requests. Those must not wait for it, and memory
must not grow with the number of strangers who send them.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from serving.server import memory
from serving.server.status import Code, ServingError

LARGE_BYTES = 256 << 10
# One is read while another runs; more would only take memory.
AT_ONCE = 2
TRIM_SECONDS = 1.0
DEFAULT_MESSAGE_BYTES = 16 << 20
DEFAULT_INFLIGHT_BYTES = 64 << 20

Call = Callable[..., Awaitable[Any]]
"""`await call(function, *arguments)`: here, or on another thread."""


async def here(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function on this thread."""
    return function(*arguments)


class LargeRequests:
    """Gives large requests their turns and the thread that reads them."""

    def __init__(self, max_bytes: int = DEFAULT_INFLIGHT_BYTES):
        self._max_bytes = max_bytes
        self._bytes = 0
        self._giving_back = False
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="large-request")

    @contextlib.asynccontextmanager
    async def turn(self, size: int) -> AsyncIterator[Call]:
        """Wait for the turn of a request of `size` bytes; gives the function to make long calls with.

        Small requests go at once. RESOURCE_EXHAUSTED where too much waits already.
        """
        if size < LARGE_BYTES:
            yield here
            return
        if self._bytes + size > max(self._max_bytes, size):
            raise ServingError(
                Code.RESOURCE_EXHAUSTED,
                f"Large requests of {self._bytes} bytes are in the server, and {self._max_bytes} is the limit "
                "(--max_inflight_bytes); try later.",
            )
        self._bytes += size
        try:
            async with self._turns:
                yield self._call
        finally:
            self._bytes -= size
            if not self._bytes and not self._giving_back:
                self._giving_back = True
                asyncio.get_running_loop().call_later(TRIM_SECONDS, self._give_back)

    def _give_back(self) -> None:
        self._giving_back = False
        self._thread.submit(memory.give_back)

    async def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)
