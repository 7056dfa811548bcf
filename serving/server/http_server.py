"""HTTP for strangers: how many connections, how long each may say nothing, and how large a body may become.

A connection waits (for its first request, the rest of a body, or the next request) or works (its request is with the
handler). Those that wait have deadlines, and where there are as many connections as may be, a new one takes the place
of the one that has waited longest: whoever opens many and says nothing shuts out nobody but himself.
"""

from __future__ import annotations

import asyncio
import resource
import ssl
import zlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from serving.server.large import DEFAULT_INFLIGHT_BYTES, DEFAULT_MESSAGE_BYTES
from serving.server.status import Code, ServingError, invalid_argument

SWEEP_SECONDS = 1.0
# Descriptors for everything that is no connection: models, logs, libraries.
RESERVED_DESCRIPTORS = 192
INLINE_COMPRESSED_BYTES = 1024
PIECE_BYTES = 256 << 10
# As zlib names the formats: 16 more than the window's size for gzip's header.
_WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
_FULL = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class HttpLimits:
    """What connections may do; see the flags of the same names."""

    body_bytes: int = DEFAULT_MESSAGE_BYTES
    buffered_bytes: int = DEFAULT_INFLIGHT_BYTES
    connections: int = 0  # 0: as the process's descriptors allow
    header_seconds: float = 10.0
    body_seconds: float = 30.0
    idle_seconds: float = 120.0


def most_connections(asked: int = 0) -> int:
    """How many connections a protocol may have: what was asked for, but never so many that the other one finds none."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    share = max((hard - RESERVED_DESCRIPTORS) // 2, 16) if hard != resource.RLIM_INFINITY else 1 << 16
    return min(asked, share) if asked else share


class Gate:
    """The connections of one listening socket."""

    def __init__(self, limits: HttpLimits):
        self.limits = limits
        self._most = most_connections(limits.connections)
        self._waiting: dict[_Connection, float] = {}  # until when, the longest waiting first
        self._working: set[_Connection] = set()
        self._buffered = 0
        self._sweeping: asyncio.TimerHandle | None = None
        self.unpacking = asyncio.Semaphore(1)  # one at a time: each takes a core

    def opened(self, connection: _Connection) -> None:
        """A new connection: takes the place of the longest waiting where there is none left."""
        if len(self._waiting) + len(self._working) >= self._most:
            if not self._waiting:
                assert connection.transport is not None
                connection.transport.write(_FULL)
                connection.force_close()
                return
            next(iter(self._waiting)).drop()
        self._wait(connection, self.limits.header_seconds)

    def closed(self, connection: _Connection) -> None:
        """A connection has ended."""
        self._waiting.pop(connection, None)
        self._working.discard(connection)

    def reading(self, connection: _Connection) -> None:
        """The headers are there, the body is not."""
        self._wait(connection, self.limits.body_seconds + SWEEP_SECONDS)

    def working(self, connection: _Connection) -> None:
        """The whole request is there."""
        if self._waiting.pop(connection, None) is not None:
            self._working.add(connection)

    def answered(self, connection: _Connection) -> None:
        """The answer is being written."""
        if connection in self._working or connection in self._waiting:
            self._wait(connection, self.limits.idle_seconds)

    def hold(self, size: int) -> None:
        """Account for so many bytes of a body; RESOURCE_EXHAUSTED where all bodies together are too much."""
        if self._buffered + size > self.limits.buffered_bytes:
            raise ServingError(
                Code.RESOURCE_EXHAUSTED,
                f"Request bodies of {self._buffered} bytes are in the server, and {self.limits.buffered_bytes} is the "
                "limit (--max_inflight_bytes); try later.",
            )
        self._buffered += size

    def release(self, size: int) -> None:
        """Account for bytes that are no longer needed."""
        self._buffered -= size

    def start(self) -> None:
        """Begin to look after deadlines."""
        self._sweeping = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)

    def stop(self) -> None:
        """Look after deadlines no more."""
        if self._sweeping:
            self._sweeping.cancel()

    def _wait(self, connection: _Connection, seconds: float) -> None:
        self._working.discard(connection)
        self._waiting.pop(connection, None)
        self._waiting[connection] = asyncio.get_running_loop().time() + seconds

    def _sweep(self) -> None:
        now = asyncio.get_running_loop().time()
        for connection in [connection for connection, until in self._waiting.items() if until < now]:
            if connection.takes_its_answer():
                self._wait(connection, self.limits.idle_seconds)
            else:
                connection.drop()
        self.start()


class _Connection(web.RequestHandler):
    """One connection, known to its gate."""

    def __init__(self, gate: Gate, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self._gate = gate
        self._unsent = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._gate.opened(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._gate.closed(self)
        super().connection_lost(exc)

    def takes_its_answer(self) -> bool:
        """Whether some of a long answer went out since this was last asked."""
        left = self.transport.get_write_buffer_size() if self.transport is not None else 0
        before, self._unsent = self._unsent, left
        return left > 0 and (before == 0 or left < before)

    def drop(self) -> None:
        """End it now, whatever was not sent."""
        self._gate.closed(self)
        if self.transport is not None:
            self.transport.abort()
        self.force_close()


class _Server(web.Server):
    def __init__(self, gate: Gate, handler: Handler, **options: Any):
        super().__init__(handler, **options)
        self._gate = gate

    def __call__(self) -> web.RequestHandler:
        return _Connection(
            self._gate,
            self,
            loop=self._loop,
            access_log=None,
            auto_decompress=False,
        )


class Request(web.BaseRequest):
    """A request whose body is read within the gate's limits, and decompressed."""

    def __init__(self, gate: Gate, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self._gate = gate
        self._held = 0

    async def read(self) -> bytes:
        """The body as the client meant it. Raises ServingError where it is too large, too slow or not readable."""
        if self._read_bytes is None:
            sent = await self._sent()
            encoding = self.headers.get("Content-Encoding", "").strip().lower()
            if encoding and encoding != "identity":
                sent = await self._unpacked(sent, encoding)
            self._read_bytes = sent
            self._gate.working(self.protocol)  # type: ignore[arg-type]
        return self._read_bytes

    async def _unpacked(self, sent: bytes, encoding: str) -> bytes:
        most = self._gate.limits.body_bytes
        if len(sent) <= INLINE_COMPRESSED_BYTES:
            body = decompressed(sent, encoding, most)
            self._hold(len(body))
            return body
        # How large it is before it is made: bombs take no memory, and what does is accounted for.
        async with self._gate.unpacking:
            self._hold(await asyncio.to_thread(unpacked_size, sent, encoding, most))
            return await asyncio.to_thread(decompressed, sent, encoding, most)

    async def _sent(self) -> bytes:
        limits = self._gate.limits
        parts: list[bytes] = []
        size = self.content_length or 0
        try:
            async with asyncio.timeout(limits.body_seconds):
                if size <= limits.body_bytes and self.headers.get("Expect", "").lower() == "100-continue":
                    assert self.transport is not None
                    self.transport.write(_CONTINUE)
                while size <= limits.body_bytes:
                    part = await self.content.readany()
                    if not part:
                        return b"".join(parts)
                    parts.append(part)
                    self._hold(len(part))
                    size = max(size, self._held)
        except TimeoutError as error:
            raise ServingError(
                Code.DEADLINE_EXCEEDED, f"The request body did not come within {limits.body_seconds:g} seconds."
            ) from error
        except web.RequestPayloadError as error:
            raise invalid_argument(f"The request body cannot be read: {error}") from error
        raise _too_large(limits.body_bytes)

    def _hold(self, size: int) -> None:
        self._gate.hold(size)
        self._held += size

    def done(self) -> None:
        """The request has been answered."""
        self._gate.release(self._held)
        self._held = 0


def decompressed(body: bytes, encoding: str, most: int) -> bytes:
    """`body` without its Content-Encoding; never makes more than `most` bytes.

    INVALID_ARGUMENT for an unknown encoding and for what is damaged, cut short or followed by something else.
    """
    return b"".join(_pieces(body, encoding, most))


def unpacked_size(body: bytes, encoding: str, most: int) -> int:
    """How long `body` is without its Content-Encoding, found without making it; raises as `decompressed` does."""
    return sum(map(len, _pieces(body, encoding, most)))


def _pieces(body: bytes, encoding: str, most: int) -> Iterator[bytes]:
    bits = _WINDOW_BITS.get(encoding)
    if bits is None:
        raise invalid_argument(f"Content-Encoding {encoding!r} is not supported; use gzip, deflate or none.")
    if bits == 15 and body[:1] and body[0] & 0x0F != 8:
        bits = -15  # many clients send deflate without zlib's header
    left = most
    while True:
        stream = zlib.decompressobj(bits)
        while not stream.eof:
            try:
                part = stream.decompress(body, PIECE_BYTES)
            except zlib.error as error:
                raise invalid_argument(f"The request body is no {encoding}: {error}") from error
            body = stream.unconsumed_tail
            if not part and not body and not stream.eof:
                raise invalid_argument(f"The request body is cut short: its {encoding} does not end.")
            left -= len(part)
            if left < 0:
                raise _too_large(most)
            yield part
        body = stream.unused_data
        if not body:
            return
        if bits != 31:
            raise invalid_argument(f"The request body goes on after the end of its {encoding}.")


def _too_large(most: int) -> ServingError:
    return ServingError(
        Code.RESOURCE_EXHAUSTED,
        f"The request body is too large: more than {most} bytes, which is the limit (--max_message_bytes).",
    )


async def start(
    handler: Handler,
    host: str,
    port: int,
    limits: HttpLimits,
    context: ssl.SSLContext | None = None,
    share_port: bool = False,
) -> HttpServer:
    """Listen on `host`:`port`. The handler's requests are `Request`; a ServingError it raises is answered as JSON."""
    gate = Gate(limits)

    def make_request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
        return Request(gate, message, payload, protocol, writer, task, asyncio.get_running_loop())

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        assert isinstance(request, Request)
        connection: Any = request.protocol
        if request.body_exists:
            gate.reading(connection)
        else:
            gate.working(connection)
        try:
            return await handler(request)
        except ServingError as error:
            response = web.json_response({"error": error.message}, status=error.http)
            response.force_close()
            return response
        finally:
            request.done()
            gate.answered(connection)

    server = _Server(gate, handle, request_factory=make_request)
    listening = await asyncio.get_running_loop().create_server(
        server,
        host,
        port,
        ssl=context,
        backlog=1024,
        reuse_port=share_port,
        ssl_handshake_timeout=limits.header_seconds if context else None,
    )
    gate.start()
    return HttpServer(server, listening, gate)


class HttpServer:
    """A listening server."""

    def __init__(self, server: _Server, listening: asyncio.Server, gate: Gate):
        self._server = server
        self._listening = listening
        self._gate = gate

    def stop_listening(self) -> None:
        """Take no new connections."""
        self._listening.close()

    async def cleanup(self, seconds: float = 1.0) -> None:
        """End all connections; requests with the handler have `seconds` to end."""
        self._listening.close()
        self._gate.stop()
        self._server.pre_shutdown()
        await self._server.shutdown(seconds)
