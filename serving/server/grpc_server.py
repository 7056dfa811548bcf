"""The gRPC side: TensorFlow Serving's services over raw bytes on grpc.aio."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import model_management_pb2

from serving.server import workers
from serving.server.http_server import most_connections
from serving.server.large import DEFAULT_MESSAGE_BYTES, LARGE_BYTES
from serving.server.prediction_service import PredictionService, model_name, parse_request, rpcs
from serving.server.status import from_exception, invalid_argument

PREDICT = "/tensorflow.serving.PredictionService/Predict"
RELOAD = "/tensorflow.serving.ModelService/HandleReloadConfigRequest"
INT32_MAX = 2**31 - 1
MAX_UNFINISHED_CALLS = 4096
STREAMS_OF_A_CONNECTION = 1024
KEEPALIVE_SECONDS = 60
KEEPALIVE_TIMEOUT_SECONDS = 20


@dataclass(frozen=True)
class GrpcLimits:
    """What connections may do; see the flags of the same names."""

    message_bytes: int = DEFAULT_MESSAGE_BYTES
    connections: int = 0  # 0: as the process's descriptors allow
    header_seconds: float = 10.0
    body_seconds: float = 30.0
    idle_seconds: float = 120.0

    def channel_arguments(self) -> list[tuple[str, int | str]]:
        """As gRPC takes them."""
        return [
            ("grpc.max_receive_message_length", self.message_bytes),
            ("grpc.max_send_message_length", INT32_MAX),
            ("grpc.max_allowed_incoming_connections", most_connections(self.connections)),
            ("grpc.server_handshake_timeout_ms", int(self.header_seconds * 1000)),
            ("grpc.max_connection_idle_ms", int(self.idle_seconds * 1000)),
            ("grpc.max_concurrent_streams", STREAMS_OF_A_CONNECTION),
            # Clients that vanished without a word: asked, and then let go.
            ("grpc.keepalive_time_ms", KEEPALIVE_SECONDS * 1000),
            ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_SECONDS * 1000),
        ]


def channel_arguments(text: str) -> list[tuple[str, int | str]]:
    """`a=1,b=c` as gRPC takes it: what reads as a whole number is one."""
    arguments: list[tuple[str, int | str]] = []
    for pair in filter(None, text.split(",")):
        key, equals, value = pair.partition("=")
        if not equals:
            raise invalid_argument(f"--grpc_channel_arguments: {pair!r} is not key=value")
        try:
            arguments.append((key, int(value)))
        except ValueError:
            arguments.append((key, value))
    return arguments


class Unfinished:
    """Calls that have begun and whose message is not there yet: each may take so long, and only so many may be so.

    A client that sends headers and nothing more would keep call and connection for ever. The handlers therefore take
    their one message from a stream, which is the same on the wire and leaves the waiting to them.
    """

    def __init__(self, seconds: float, most: int = MAX_UNFINISHED_CALLS):
        self._seconds = seconds
        self._most = most
        self._since: dict[asyncio.Task[Any] | None, float] = {}  # the oldest first
        self._sweeping: asyncio.TimerHandle | None = None

    async def message(self, context: Any) -> bytes:
        """The message of a call; ends the call where it does not come."""
        task = asyncio.current_task()
        self._since[task] = time.monotonic()
        if len(self._since) > self._most:
            self._end(next(iter(self._since)))
        if self._sweeping is None:
            self._sweeping = asyncio.get_running_loop().call_later(1.0, self._sweep)
        try:
            data = await context.read()
        except asyncio.CancelledError:
            if task is None or task in self._since:  # the client's own doing
                raise
            task.uncancel()
            message = f"The request did not come within {self._seconds:g} seconds."
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, message)
            raise
        finally:
            self._since.pop(task, None)
        if data is grpc.aio.EOF:
            await context.abort(grpc.StatusCode.INTERNAL, "The call has no request message.")
        return data

    def _sweep(self) -> None:
        oldest = time.monotonic() - self._seconds
        for task in [task for task, since in self._since.items() if since < oldest]:
            self._end(task)
        self._sweeping = asyncio.get_running_loop().call_later(1.0, self._sweep) if self._since else None

    def _end(self, task: asyncio.Task[Any] | None) -> None:
        del self._since[task]
        if task is not None:
            task.cancel()


class _Handlers(grpc.GenericRpcHandler):
    """Requests and answers stay bytes here, so that Predict may build its answer without a message object."""

    def __init__(self, service: PredictionService, unfinished: Unfinished, *, control: bool = False):
        """`control` says that the address is that of model control."""
        self._service = service
        self._unfinished = unfinished
        self._control = control
        handlers: dict[str, Callable[[bytes, Any], Awaitable[bytes]]] = {PREDICT: self._predict, RELOAD: self._reload}
        for method, (kind, handler) in rpcs(service).items():
            handlers[method] = self._message_rpc(method.rpartition("/")[2], kind, handler)
        if service.peers is not None:
            handlers[workers.RELOAD] = self._peer_reload
            handlers[workers.METRICS] = self._peer_metrics
        self._handlers = {
            method: grpc.stream_unary_rpc_method_handler(self._received(behavior))
            for method, behavior in handlers.items()
        }

    def service(self, handler_call_details: Any) -> Any:
        return self._handlers.get(handler_call_details.method)

    def _received(self, behavior: Callable[[bytes, Any], Awaitable[bytes]]) -> Any:
        async def call(_: Any, context: Any) -> bytes:
            return await behavior(await self._unfinished.message(context), context)

        return call

    async def _predict(self, data: bytes, context: Any) -> bytes:
        start = time.perf_counter()
        service = self._service
        try:
            with service.admission:
                model, response = await service.predict_bytes(data)
        except Exception as error:
            failure = from_exception(error)
            service.account(_named(data), "Predict", "GRPC", start, failure)
            await context.abort(failure.code, failure.message)
            raise
        service.account(model, "Predict", "GRPC", start)
        return response

    async def _reload(self, data: bytes, context: Any) -> bytes:
        try:
            async with self._service.large.turn(len(data)) as call:
                request = await call(parse_request, model_management_pb2.ReloadConfigRequest, data)
            response = await self._service.handle_reload_config_request(request, context.peer(), self._control)
        except Exception as error:
            failure = from_exception(error)
            await context.abort(failure.code, failure.message)
            raise
        return response.SerializeToString()

    async def _peer_reload(self, data: bytes, context: Any) -> bytes:
        await self._only_peers(context)
        try:
            await self._service.reload(parse_request(model_management_pb2.ReloadConfigRequest, data).config)
        except Exception as error:
            failure = from_exception(error)
            await context.abort(failure.code, failure.message)
            raise
        return b""

    async def _peer_metrics(self, data: bytes, context: Any) -> bytes:
        await self._only_peers(context)
        return self._service.metrics.text().encode()

    @staticmethod
    async def _only_peers(context: Any) -> None:
        """The server's own processes ask over UNIX sockets; the port is everybody's."""
        if not context.peer().startswith("unix:"):
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")

    def _message_rpc(self, api: str, kind: Any, handler: Any) -> Callable[[bytes, Any], Awaitable[bytes]]:
        service = self._service
        # Status and configuration answer a server at its limit too: that is when they are asked for.
        admitted = api in ("Classify", "Regress", "MultiInference")

        async def behavior(data: bytes, context: Any) -> bytes:
            start = time.perf_counter()
            name = ""
            try:
                async with service.large.turn(len(data)) as call:
                    request = await call(parse_request, kind, data)
                    name = model_name(request)
                    if admitted:
                        with service.admission:
                            response = await handler(request, call)
                    else:
                        response = await handler(request)
            except Exception as error:
                failure = from_exception(error)
                if admitted:
                    service.account(name, api, "GRPC", start, failure)
                await context.abort(failure.code, failure.message)
                raise
            if admitted:
                service.account(name, api, "GRPC", start)
            return response.SerializeToString()

        return behavior


def _named(data: bytes) -> str:
    from tensorflow_serving.apis import predict_pb2

    if len(data) >= LARGE_BYTES:
        return ""
    try:
        return predict_pb2.PredictRequest.FromString(data).model_spec.name
    except DecodeError:
        return ""


def make_server(
    service: PredictionService,
    *,
    arguments: Sequence[tuple[str, int | str]] = (),
    limits: GrpcLimits | None = None,
    health: bool = False,
    reflection: bool = False,
    share_port: bool = False,
    control: bool = False,
) -> tuple[grpc.aio.Server, Any]:
    """The server, without ports yet, and its health servicer or None; `control`: its address is for operators."""
    limits = limits or GrpcLimits()
    options: list[tuple[str, Any]] = [
        *limits.channel_arguments(),
        # Two servers on one port would each get half of the requests, and nobody would know; workers want just that.
        ("grpc.so_reuseport", int(share_port)),
    ]
    given = {key for key, _ in arguments}
    server = grpc.aio.server(options=[*(pair for pair in options if pair[0] not in given), *arguments])
    server.add_generic_rpc_handlers((_Handlers(service, Unfinished(limits.body_seconds), control=control),))
    servicer = None
    names = ["tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"]
    if health:
        from grpc_health.v1 import health as grpc_health
        from grpc_health.v1 import health_pb2, health_pb2_grpc

        servicer = grpc_health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        names.append(health_pb2.DESCRIPTOR.services_by_name["Health"].full_name)
    if reflection:
        for name in ("prediction_service_pb2", "model_service_pb2"):
            # Imported for what it registers. tensorflow-serving-api's module was generated for an older protobuf: it
            # registers its file and then fails to set an attribute that nobody reads.
            with contextlib.suppress(AttributeError):
                importlib.import_module(f"tensorflow_serving.apis.{name}")
        from grpc_reflection.v1alpha import reflection as grpc_reflection

        grpc_reflection.enable_server_reflection([*names, grpc_reflection.SERVICE_NAME], server)
    return server, servicer


def credentials(ssl_config: Any) -> grpc.ServerCredentials:
    """TLS as an SSLConfig says; `client_verify` asks clients for a certificate that `custom_ca` signed."""
    return grpc.ssl_server_credentials(
        [(ssl_config.server_key.encode(), ssl_config.server_cert.encode())],
        root_certificates=ssl_config.custom_ca.encode() or None,
        require_client_auth=ssl_config.client_verify,
    )


async def set_serving(servicer: Any, serving: bool) -> None:
    """Tell health checks whether the server takes requests."""
    from grpc_health.v1 import health_pb2

    if servicer is not None:
        state = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        await servicer.set("", state)
