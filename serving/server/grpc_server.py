"""The gRPC side: TensorFlow Serving's services over raw bytes on grpc.aio."""

from __future__ import annotations

import contextlib
import importlib
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc

from serving.server import workers
from serving.server.prediction_service import PredictionService, model_name, parse_request, rpcs
from serving.server.status import ServingError, from_exception, invalid_argument

PREDICT = "/tensorflow.serving.PredictionService/Predict"
INT32_MAX = 2**31 - 1


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


class _Handlers(grpc.GenericRpcHandler):
    """Requests and answers stay bytes here, so that Predict may build its answer without a message object."""

    def __init__(self, service: PredictionService):
        self._service = service
        handlers: dict[str, Callable[[bytes, Any], Awaitable[bytes]]] = {PREDICT: self._predict}
        for method, (kind, handler) in rpcs(service).items():
            handlers[method] = self._message_rpc(method.rpartition("/")[2], kind, handler)
        if service.peers is not None:
            handlers[workers.RELOAD] = self._peer_reload
            handlers[workers.METRICS] = self._peer_metrics
        self._handlers = {
            method: grpc.unary_unary_rpc_method_handler(behavior) for method, behavior in handlers.items()
        }

    def service(self, handler_call_details: Any) -> Any:
        return self._handlers.get(handler_call_details.method)

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

    async def _peer_reload(self, data: bytes, context: Any) -> bytes:
        from tensorflow_serving.apis import model_management_pb2

        try:
            await self._service.reload(parse_request(model_management_pb2.ReloadConfigRequest, data).config)
        except Exception as error:
            failure = from_exception(error)
            await context.abort(failure.code, failure.message)
            raise
        return b""

    async def _peer_metrics(self, data: bytes, context: Any) -> bytes:
        return self._service.metrics.text().encode()

    def _message_rpc(self, api: str, kind: Any, handler: Any) -> Callable[[bytes, Any], Awaitable[bytes]]:
        service = self._service
        # Status and configuration answer a server at its limit too: that is when they are asked for.
        admitted = api in ("Classify", "Regress", "MultiInference")

        async def behavior(data: bytes, context: Any) -> bytes:
            start = time.perf_counter()
            name = ""
            try:
                request = parse_request(kind, data)
                name = model_name(request)
                if admitted:
                    with service.admission:
                        response = await handler(request)
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

    try:
        return predict_pb2.PredictRequest.FromString(data).model_spec.name
    except Exception:
        return ""


def make_server(
    service: PredictionService,
    *,
    arguments: Sequence[tuple[str, int | str]] = (),
    max_message_bytes: int = INT32_MAX,
    health: bool = False,
    reflection: bool = False,
    share_port: bool = False,
) -> tuple[grpc.aio.Server, Any]:
    """The server, without ports yet, and its health servicer or None."""
    options: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", INT32_MAX),
        # Two servers on one port would each get half of the requests, and nobody would know; workers want just that.
        ("grpc.so_reuseport", int(share_port)),
    ]
    given = {key for key, _ in arguments}
    server = grpc.aio.server(options=[*(pair for pair in options if pair[0] not in given), *arguments])
    server.add_generic_rpc_handlers((_Handlers(service),))
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
    if not ssl_config.server_key or not ssl_config.server_cert:
        raise ServingError(
            grpc.StatusCode.INVALID_ARGUMENT, "the SSL config needs server_key and server_cert, both as PEM text"
        )
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
