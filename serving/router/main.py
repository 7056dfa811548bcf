"""The router's process: its three addresses, and the loops that look at the release state and at the arms."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import pathlib
import signal
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import grpc

from serving.router.admin import LIMITS, Admin
from serving.router.grpc_proxy import GrpcProxy
from serving.router.guard import Guard
from serving.router.metrics import RouterMetrics
from serving.router.rest_proxy import RestProxy
from serving.router.routing import Router
from serving.server import config_protos, grpc_server, http_server, rest_server
from serving.server.grpc_server import INT32_MAX, GrpcLimits, Unfinished
from serving.server.http_server import HttpLimits, HttpServer
from serving.server.status import Code, ServingError, invalid_argument

log = logging.getLogger("recsys-router")

ROUTE_SECONDS = 1.0
REST_TIMEOUT_SECONDS = 30.0
GRACE_SECONDS = 30.0
LAST_ANSWERS_SECONDS = 0.3


@dataclass(frozen=True)
class Upstream:
    """The model server behind: addresses, and PEM files where it speaks TLS (`ca`) and asks for a certificate."""

    address: str
    rest_address: str | None = None
    ca: pathlib.Path | None = None
    certificate: pathlib.Path | None = None
    key: pathlib.Path | None = None

    def channel_credentials(self) -> grpc.ChannelCredentials | None:
        """What gRPC asks of the server; None without TLS."""
        if self.ca is None:
            return None
        return grpc.ssl_channel_credentials(
            _pem(self.ca),
            _pem(self.key) if self.key else None,
            _pem(self.certificate) if self.certificate else None,
        )

    def ssl_context(self) -> ssl.SSLContext | None:
        """What REST asks of the server; None without TLS."""
        if self.ca is None:
            return None
        try:
            context = ssl.create_default_context(cafile=str(self.ca))
            if self.certificate:
                context.load_cert_chain(self.certificate, self.key)
        except (ssl.SSLError, OSError) as error:
            raise invalid_argument(f"{self.ca}, {self.certificate}, {self.key}: cannot be used: {error}") from error
        return context


@dataclass(frozen=True)
class Addresses:
    """Where the router listens; `ssl_config` is the text of an SSLConfig, as the model server's."""

    host: str
    port: int
    rest_port: int | None
    admin_host: str = "127.0.0.1"
    admin_port: int | None = 8512
    ssl_config: pathlib.Path | None = None
    grpc_limits: GrpcLimits = field(default_factory=GrpcLimits)
    http_limits: HttpLimits = field(default_factory=HttpLimits)


async def serve(
    router: Router,
    guard: Guard,
    upstream: Upstream,
    addresses: Addresses,
    token: str,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Route until SIGTERM or SIGINT, then let what is under way end.

    The gRPC server is not stopped, which would cancel calls that came a moment ago: the process is to end with this.
    """
    stop = asyncio.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(each, stop.set)
    ssl_config = _ssl_config(addresses.ssl_config) if addresses.ssl_config else None
    context = rest_server.ssl_context(ssl_config) if ssl_config is not None else None
    sizes = [("grpc.max_receive_message_length", INT32_MAX), ("grpc.max_send_message_length", INT32_MAX)]
    credentials = upstream.channel_credentials()
    async with contextlib.AsyncExitStack() as stack:
        channel = (
            grpc.aio.secure_channel(upstream.address, credentials, options=sizes)
            if credentials
            else grpc.aio.insecure_channel(upstream.address, options=sizes)
        )
        _front = await _listen_grpc(router, channel, addresses, ssl_config)
        https: list[HttpServer] = []
        if addresses.rest_port and upstream.rest_address:
            timeout = aiohttp.ClientTimeout(total=REST_TIMEOUT_SECONDS)
            connector = aiohttp.TCPConnector(limit=0)
            session = await stack.enter_async_context(aiohttp.ClientSession(timeout=timeout, connector=connector))
            tls = upstream.ssl_context()
            handler = RestProxy(router, session, f"{'https' if tls else 'http'}://{upstream.rest_address}", tls)
            https.append(
                await _listen_http(handler, addresses.host, addresses.rest_port, addresses.http_limits, context)
            )
        if addresses.admin_port:
            admin = Admin(guard, router.split.metrics, token)
            https.append(await _listen_http(admin, addresses.admin_host, addresses.admin_port, LIMITS, context))
        metrics = router.split.metrics
        loops = [
            asyncio.create_task(repeat("state", router.split.refresh, ROUTE_SECONDS, metrics)),
            asyncio.create_task(repeat("guard", guard.look, router.split.conditions.check_seconds, metrics)),
        ]
        ready()
        await stop.wait()
        for loop in loops:
            loop.cancel()
        for server in https:
            server.stop_listening()
        if not await router.admission.drained(GRACE_SECONDS):
            log.warning("%d requests were still under way and are cut off", router.admission.in_flight)
        await router.drained()
        await asyncio.sleep(LAST_ANSWERS_SECONDS)
        for server in https:
            await server.cleanup()


async def repeat(part: str, work: Callable[[], Any], seconds: float, metrics: RouterMetrics) -> None:
    """Call `work` on another thread every so many seconds; whatever it raises is logged and counted, and it goes on."""
    failures = 0
    while True:
        await asyncio.sleep(seconds)
        try:
            # On another thread: a rollback waits for the server, and requests must not wait for it.
            reason = await asyncio.to_thread(work)
        except Exception as error:
            failures += 1
            metrics.guard_failures.add(part)
            if failures == 1 or failures % 100 == 0:
                expected = isinstance(error, ServingError | OSError)
                log.error("%s failed, %d times so far: %s", part, failures, error, exc_info=not expected)
            continue
        if failures:
            failures = 0
            log.info("%s works again", part)
        if reason:
            log.warning("rolled back: %s", reason)


async def _listen_grpc(router: Router, channel: Any, addresses: Addresses, ssl_config: Any) -> grpc.aio.Server:
    limits = addresses.grpc_limits
    front = grpc.aio.server(options=[*limits.channel_arguments(), ("grpc.so_reuseport", 0)])
    front.add_generic_rpc_handlers((GrpcProxy(router, channel, Unfinished(limits.body_seconds)),))
    address = f"{addresses.host}:{addresses.port}"
    try:
        if ssl_config is not None:
            front.add_secure_port(address, grpc_server.credentials(ssl_config))
        else:
            front.add_insecure_port(address)
    except RuntimeError as error:
        raise ServingError(Code.UNAVAILABLE, f"cannot listen on {address}: {error}") from error
    await front.start()
    return front


async def _listen_http(handler: Any, host: str, port: int, limits: HttpLimits, context: Any) -> HttpServer:
    try:
        return await http_server.start(handler, host, port, limits, context)
    except OSError as error:
        raise ServingError(Code.UNAVAILABLE, f"cannot listen on {host}:{port}: {error.strerror}") from error


def _ssl_config(file: pathlib.Path) -> Any:
    from google.protobuf import text_format

    try:
        return config_protos.parse_text("SSLConfig", file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise invalid_argument(f"{file}: not an SSLConfig: {error}") from error


def _pem(file: pathlib.Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise invalid_argument(f"{file}: {error.strerror}") from error
