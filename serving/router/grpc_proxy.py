"""The router's gRPC side: TensorFlow Serving's methods and the health check, as bytes.

A Predict, Classify or Regress for the model that names neither version nor label gets the label of its user's arm;
everything else passes as it came, but for model control, which is the operator's and not a client's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc
import numpy as np
from tensorflow_serving.apis import classification_pb2, model_pb2, predict_pb2, regression_pb2

from serving.release_state import CANARY, STABLE
from serving.router.routing import USER_HEADER, Answer, Router, UpstreamError, checked_user, only_user
from serving.server.grpc_server import RELOAD, Unfinished
from serving.server.status import Code, ServingError

_SERVICE = "/tensorflow.serving.PredictionService/"
_ROUTED: dict[str, tuple[type[Any], type[Any]]] = {
    _SERVICE + "Predict": (predict_pb2.PredictRequest, predict_pb2.PredictResponse),
    _SERVICE + "Classify": (classification_pb2.ClassificationRequest, classification_pb2.ClassificationResponse),
    _SERVICE + "Regress": (regression_pb2.RegressionRequest, regression_pb2.RegressionResponse),
}
_PASSED = {
    _SERVICE + "MultiInference",
    _SERVICE + "GetModelMetadata",
    "/tensorflow.serving.ModelService/GetModelStatus",
    "/grpc.health.v1.Health/Check",
}
_DT_FLOAT, _DT_INT32, _DT_INT64 = 1, 3, 9


_CANARY_SECONDS = 30.0


def _labelled(label: str) -> bytes:
    """What gives a request this label when appended: parts of a message add up, and `model_spec` is the same in all."""
    return predict_pb2.PredictRequest(model_spec=model_pb2.ModelSpec(version_label=label)).SerializeToString()


_LABELS = {None: b"", STABLE: _labelled(STABLE), CANARY: _labelled(CANARY)}


class GrpcProxy(grpc.GenericRpcHandler):
    """Handlers for a grpc.aio server."""

    def __init__(self, router: Router, channel: grpc.aio.Channel, unfinished: Unfinished):
        """`channel` leads to the model server."""
        self._router = router
        self._unfinished = unfinished
        self._handlers: dict[str, Any] = {}
        for method in (*_ROUTED, *_PASSED):
            call = channel.unary_unary(method)
            behavior = self._routed(call, *_ROUTED[method]) if method in _ROUTED else self._passed(call)
            self._handlers[method] = self._received(behavior)
        self._handlers[RELOAD] = self._received(self._refused)

    def service(self, handler_call_details: Any) -> Any:
        """A method of TensorFlow Serving's; None (UNIMPLEMENTED) for any other, which costs no memory."""
        return self._handlers.get(handler_call_details.method)

    def _received(self, behavior: Any) -> Any:
        async def call(_: Any, context: Any) -> bytes:
            return await behavior(await self._unfinished.message(context), context)

        return grpc.stream_unary_rpc_method_handler(call)

    async def _refused(self, data: bytes, context: Any) -> bytes:
        return await context.abort(
            Code.PERMISSION_DENIED, "model control does not pass the router; ask the model server at its own address"
        )

    def _passed(self, call: Any) -> Any:
        async def behavior(data: bytes, context: Any) -> bytes:
            try:
                with self._router.admission:
                    return await call(data, timeout=context.time_remaining(), metadata=_metadata(context))
            except grpc.aio.AioRpcError as error:
                return await context.abort(error.code(), error.details())
            except ServingError as error:
                return await context.abort(error.code, error.message)

        return behavior

    def _routed(self, call: Any, kind: type[Any], response: type[Any]) -> Any:
        async def behavior(data: bytes, context: Any) -> bytes:
            try:
                with self._router.admission:
                    async with self._router.large.turn(len(data)) as here:
                        return await answer(data, context, await here(_parsed, kind, data))
            except grpc.aio.AioRpcError as error:
                return await context.abort(error.code(), error.details())
            except UpstreamError as refused:
                return await context.abort(refused.code, str(refused))
            except ServingError as error:
                return await context.abort(error.code, error.message)

        async def answer(data: bytes, context: Any, request: Any) -> bytes:
            metadata = _metadata(context)
            spec = None if request is None else request.model_spec
            if spec is None or spec.name != self._router.split.model or spec.WhichOneof("version_choice"):
                # What does not parse passes too: the server behind says what is wrong with it.
                return await call(data, timeout=context.time_remaining(), metadata=metadata)

            async def send(label: str | None, shadow: bool = False) -> Answer:
                left = None if shadow else context.time_remaining()
                if label == CANARY:  # a canary that hangs is not waited for without end: the stable version answers
                    left = _CANARY_SECONDS if left is None else min(left, _CANARY_SECONDS)
                try:
                    body = await call(data + _LABELS[label], timeout=left, metadata=metadata)
                except grpc.aio.AioRpcError as error:
                    raise UpstreamError(error.code(), Answer((error.details() or "").encode())) from None
                return Answer(body, lambda: _scores(response.FromString(body)))

            return (await self._router.route(self._user(request, metadata), len(data), send)).body

        return behavior

    def _user(self, request: Any, metadata: Iterable[tuple[str, Any]]) -> str | None:
        for key, value in metadata:
            if key == USER_HEADER:
                return checked_user(value)
        column = self._router.user_column
        if isinstance(request, predict_pb2.PredictRequest):
            return only_user(_values(request.inputs[column])) if column in request.inputs else None
        found: list[Any] = []
        for example in request.input.example_list.examples:
            feature = example.features.feature.get(column)
            found += [*feature.bytes_list.value, *feature.int64_list.value] if feature is not None else []
        return only_user(found)


def _parsed(kind: type[Any], data: bytes) -> Any:
    try:
        return kind.FromString(data)
    except Exception:
        return None


def _metadata(context: Any) -> list[tuple[str, Any]]:
    return [(key, value) for key, value in context.invocation_metadata() or () if not key.startswith("grpc-")]


def _values(tensor: Any) -> Iterable[Any]:
    if tensor.tensor_content and tensor.dtype in (_DT_INT32, _DT_INT64):
        kind = np.dtype(np.int32 if tensor.dtype == _DT_INT32 else np.int64)
        whole = len(tensor.tensor_content) // kind.itemsize * kind.itemsize  # the server refuses what is cut short
        return np.frombuffer(tensor.tensor_content[:whole], kind).tolist()
    return tensor.string_val or tensor.int64_val or tensor.int_val


def _scores(response: Any) -> Iterable[float]:
    """The scores of an answer: outputs `scores` or `score`, or else the first of floats."""
    if isinstance(response, regression_pb2.RegressionResponse):
        return [each.value for each in response.result.regressions]
    if isinstance(response, classification_pb2.ClassificationResponse):
        return [each.classes[-1].score for each in response.result.classifications if each.classes]
    outputs = response.outputs
    for name in ("scores", "score", *outputs):
        if name in outputs and outputs[name].dtype == _DT_FLOAT:
            tensor = outputs[name]
            return tensor.float_val or np.frombuffer(tensor.tensor_content, np.float32).tolist()
    return ()
