"""The router's process: TensorFlow Serving's protocols in front, a model server behind, a version label chosen between.

A request for the model that names neither version nor label gets the label of its user's arm; everything else passes
as it came. The user is the `recsys-user` metadata or header, or else the one value of the user's column in the
request. A request of several users, or of none, stays with the stable version.

What the canary fails on is asked of the stable version, so a bad canary harms nobody; if the stable version answers,
the failure is the canary's. A shadow copy goes to the canary after the stable answer; nobody waits for it or sees it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import random
import re
import signal
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import grpc
import numpy as np
import orjson
from aiohttp import web
from tensorflow_serving.apis import classification_pb2, predict_pb2, regression_pb2

from configs.serving import Rollback
from serving.release import CANARY, STABLE
from serving.router.split import Split, choose_arm
from serving.server import http_server, json_answers
from serving.server.grpc_server import INT32_MAX
from serving.server.status import Code, ServingError

log = logging.getLogger("recsys-router")

USER_HEADER = "recsys-user"
SHADOWS_AT_ONCE = 64
REST_TIMEOUT_SECONDS = 30.0
_CLIENT_FAULTS = {Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.FAILED_PRECONDITION, Code.OUT_OF_RANGE}
_CLIENT_FAULTS |= {Code.CANCELLED, Code.UNIMPLEMENTED}
_SERVICE = "/tensorflow.serving.PredictionService/"
_ROUTED: dict[str, tuple[type[Any], type[Any]]] = {
    _SERVICE + "Predict": (predict_pb2.PredictRequest, predict_pb2.PredictResponse),
    _SERVICE + "Classify": (classification_pb2.ClassificationRequest, classification_pb2.ClassificationResponse),
    _SERVICE + "Regress": (regression_pb2.RegressionRequest, regression_pb2.RegressionResponse),
}
_REST = re.compile(r"/v1/models/(?P<name>[^/:]+):(?P<method>predict|classify|regress)", re.IGNORECASE)
_GRPC_OF_HTTP = {
    400: Code.INVALID_ARGUMENT,
    404: Code.NOT_FOUND,
    429: Code.RESOURCE_EXHAUSTED,
    501: Code.UNIMPLEMENTED,
    503: Code.UNAVAILABLE,
    504: Code.DEADLINE_EXCEEDED,
}


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


Send = Callable[[str | None], Awaitable[Answer]]
"""Passes one request on under a version label (None: as it came); raises UpstreamError."""


class Router:
    """Chooses the arm of each request and keeps the account."""

    def __init__(self, split: Split, user_column: str):
        """`user_column` is the model's input that holds the user's id."""
        self.split = split
        self.user_column = user_column
        self._shadows: set[asyncio.Task[None]] = set()
        self._random = random.Random()

    async def route(self, user: str | None, send: Send) -> Answer:
        """The answer of the user's arm."""
        route = self.split.route()
        if not self.split.labelled:
            return await self._stable(send, None)
        if choose_arm(user, route) == STABLE:
            answer = await self._stable(send, STABLE)
            if self._random.random() * 100 < route.shadow_percent and len(self._shadows) < SHADOWS_AT_ONCE:
                # Above the limit none is sent: a canary that cannot follow must not fill this process.
                task = asyncio.get_running_loop().create_task(self._shadow(send))
                self._shadows.add(task)
                task.add_done_callback(self._shadows.discard)
            return answer
        try:
            return await self._canary(send)
        except UpstreamError:
            answer = await self._stable(send, STABLE)
            if self.split.route(fresh=True) == route:  # else the canary ended while the request was on its way
                self.split.failed(CANARY)
            return answer

    async def drained(self) -> None:
        """Wait for the shadow copies under way."""
        await asyncio.gather(*self._shadows, return_exceptions=True)

    async def _canary(self, send: Send, shadow: bool = False) -> Answer:
        start = time.perf_counter()
        answer = await send(CANARY)
        self.split.count(CANARY, time.perf_counter() - start, answer.scores(), shadow=shadow)
        return answer

    async def _stable(self, send: Send, label: str | None) -> Answer:
        start = time.perf_counter()
        try:
            answer = await send(label)
        except UpstreamError as refused:
            if refused.code not in _CLIENT_FAULTS:
                self.split.failed(STABLE)
            raise
        self.split.count(STABLE, time.perf_counter() - start, answer.scores())
        return answer

    async def _shadow(self, send: Send) -> None:
        try:
            await self._canary(send, shadow=True)
        except UpstreamError:
            self.split.failed(CANARY, shadow=True)


# gRPC


class GrpcProxy(grpc.GenericRpcHandler):
    """Unary calls of every service, as bytes."""

    def __init__(self, router: Router, channel: grpc.aio.Channel):
        self._router = router
        self._channel = channel
        self._calls: dict[str, Any] = {}

    def service(self, handler_call_details: Any) -> Any:
        """Any method; the server behind says which it knows."""
        method = handler_call_details.method
        call = self._calls.get(method)
        if call is None:
            call = self._calls[method] = self._channel.unary_unary(method)
        routed = _ROUTED.get(method)
        behavior = self._routed(call, *routed) if routed else self._passed(call)
        return grpc.unary_unary_rpc_method_handler(behavior)

    def _passed(self, call: Any) -> Any:
        async def behavior(data: bytes, context: Any) -> bytes:
            try:
                return await call(data, timeout=context.time_remaining(), metadata=_metadata(context))
            except grpc.aio.AioRpcError as error:
                return await context.abort(error.code(), error.details())

        return behavior

    def _routed(self, call: Any, kind: type[Any], response: type[Any]) -> Any:
        passed = self._passed(call)

        async def behavior(data: bytes, context: Any) -> bytes:
            try:
                request = kind.FromString(data)
            except Exception:
                return await passed(data, context)  # the server behind says what is wrong with it
            spec = request.model_spec
            if spec.name != self._router.split.model or spec.WhichOneof("version_choice"):
                return await passed(data, context)

            async def send(label: str | None) -> Answer:
                if label is not None:
                    spec.version_label = label
                try:
                    body = await call(
                        request.SerializeToString(), timeout=context.time_remaining(), metadata=_metadata(context)
                    )
                except grpc.aio.AioRpcError as error:
                    raise UpstreamError(error.code(), Answer((error.details() or "").encode())) from None
                return Answer(body, lambda: _scores(response.FromString(body)))

            try:
                return (await self._router.route(self._user(request, context), send)).body
            except UpstreamError as refused:
                return await context.abort(refused.code, str(refused))

        return behavior

    def _user(self, request: Any, context: Any) -> str | None:
        for key, value in context.invocation_metadata() or ():
            if key == USER_HEADER:
                return value
        column = self._router.user_column
        if isinstance(request, predict_pb2.PredictRequest):
            return _only(_values(request.inputs[column])) if column in request.inputs else None
        found: list[Any] = []
        for example in request.input.example_list.examples:
            feature = example.features.feature.get(column)
            found += [*feature.bytes_list.value, *feature.int64_list.value] if feature is not None else []
        return _only(found)


def _metadata(context: Any) -> list[tuple[str, Any]]:
    return [(key, value) for key, value in context.invocation_metadata() or () if not key.startswith("grpc-")]


def _values(tensor: Any) -> Iterable[Any]:
    if tensor.tensor_content and tensor.dtype in (3, 9):  # DT_INT32, DT_INT64
        return np.frombuffer(tensor.tensor_content, np.int32 if tensor.dtype == 3 else np.int64).tolist()
    return tensor.string_val or tensor.int64_val or tensor.int_val


def _scores(response: Any) -> Iterable[float]:
    """The scores of an answer: outputs `scores` or `score`, or else the first of floats."""
    if isinstance(response, regression_pb2.RegressionResponse):
        return [each.value for each in response.result.regressions]
    if isinstance(response, classification_pb2.ClassificationResponse):
        return [each.classes[-1].score for each in response.result.classifications if each.classes]
    outputs = response.outputs
    for name in ("scores", "score", *outputs):
        if name in outputs and outputs[name].dtype == 1:  # DT_FLOAT
            tensor = outputs[name]
            return tensor.float_val or np.frombuffer(tensor.tensor_content, np.float32).tolist()
    return ()


def _only(values: Iterable[Any]) -> str | None:
    """The one user of a request; None where there is none, or more than one."""
    users = {value.decode(errors="replace") if isinstance(value, bytes) else str(value) for value in values}
    return users.pop() if len(users) == 1 else None


# REST


class RestProxy:
    """Requests of any path; give it to aiohttp.web.Server."""

    def __init__(self, router: Router, session: aiohttp.ClientSession, base: str):
        self._router = router
        self._session = session
        self._base = base

    async def __call__(self, request: web.BaseRequest) -> web.Response:
        """Answer one request."""
        path = request.rel_url.raw_path
        if path == "/router/report" and request.method == "GET":
            return _json(200, self._router.split.report().as_json())
        if path == "/router/shown" and request.method == "POST":
            return await self._shown(request)
        body = await request.read()
        match = _REST.fullmatch(path) if request.method == "POST" else None
        if not match or match["name"] != self._router.split.model:
            answer = await self._send(request, path, body)
            return _response(answer)

        async def send(label: str | None) -> Answer:
            inner = f"/v1/models/{match['name']}/labels/{label}:{match['method']}" if label else path
            answer = await self._send(request, inner, body)
            if answer.status != 200:
                code = _GRPC_OF_HTTP.get(answer.status, Code.INTERNAL)
                raise UpstreamError(code, answer)
            return answer

        try:
            return _response(await self._router.route(self._user(request, body), send))
        except UpstreamError as refused:
            return _response(refused.answer)

    async def _send(self, request: web.BaseRequest, path: str, body: bytes) -> Answer:
        query = f"?{request.rel_url.raw_query_string}" if request.rel_url.raw_query_string else ""
        headers = {"Content-Type": request.headers["Content-Type"]} if "Content-Type" in request.headers else {}
        try:
            async with self._session.request(
                request.method, f"{self._base}{path}{query}", data=body or None, headers=headers
            ) as response:
                data = await response.read()
                return Answer(data, lambda: _rest_scores(data), response.status, response.content_type)
        except (aiohttp.ClientError, TimeoutError) as error:
            message = json_answers.error_body(f"the model server at {self._base} does not answer: {error}")
            return Answer(message, status=504 if isinstance(error, TimeoutError) else 503)

    def _user(self, request: web.BaseRequest, body: bytes) -> str | None:
        if USER_HEADER in request.headers:
            return request.headers[USER_HEADER]
        try:
            document = _parse(body)
        except ValueError:
            return None
        column = self._router.user_column
        if not isinstance(document, dict):
            return None
        inputs = document.get("inputs")
        if isinstance(inputs, dict):
            return _only(_leaves(inputs.get(column)))
        rows = document.get("instances", document.get("examples"))
        found: list[Any] = []
        for row in rows if isinstance(rows, list) else []:
            found += _leaves(row.get(column)) if isinstance(row, dict) else []
        context = document.get("context")
        return _only(found or (_leaves(context.get(column)) if isinstance(context, dict) else []))

    async def _shown(self, request: web.BaseRequest) -> web.Response:
        try:
            document = _parse(await request.read())
            user, items = document["user"], document["items"]
            if not isinstance(items, list):
                raise TypeError
        except (ValueError, KeyError, TypeError):
            return _json(400, json.dumps({"error": 'expected {"user": "…", "items": ["…", …]}'}))
        self._router.split.shown(str(user), [str(item) for item in items])
        return _json(200, "{}")


def _parse(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return json.loads(body)  # takes NaN and Infinity, as the server does


def _leaves(value: Any) -> list[Any]:
    if value is None:
        return []
    if isinstance(value, list):
        return [leaf for each in value for leaf in _leaves(each)]
    if isinstance(value, dict):
        with contextlib.suppress(ValueError, TypeError, KeyError):
            return [base64.b64decode(value["b64"])]
        return []
    return [value]


def _rest_scores(body: bytes) -> Iterable[float]:
    try:
        document = _parse(body)
        found = document.get("predictions", document.get("outputs", document.get("results", ())))
        if isinstance(found, Mapping):
            found = found.get("scores", found.get("score", ()))
        scores = [each.get("score", each.get("scores")) if isinstance(each, Mapping) else each for each in found]
        return [float(score) for score in scores]
    except (ValueError, TypeError, AttributeError):
        return ()


def _response(answer: Answer) -> web.Response:
    return web.Response(status=answer.status, body=answer.body, content_type=answer.content_type)


def _json(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=text, content_type="application/json")


# The process


async def serve(
    router: Router,
    conditions: Rollback,
    *,
    server: str,
    rest_server_address: str | None,
    host: str,
    port: int,
    rest_port: int | None,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Route until SIGTERM or SIGINT; looks at the arms every `conditions.check_seconds` and rolls a bad canary back."""
    stop = asyncio.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(each, stop.set)
    sizes = [("grpc.max_receive_message_length", INT32_MAX), ("grpc.max_send_message_length", INT32_MAX)]
    front = grpc.aio.server(options=[*sizes, ("grpc.so_reuseport", 0)])
    async with contextlib.AsyncExitStack() as stack:
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(server, options=sizes))
        front.add_generic_rpc_handlers((GrpcProxy(router, channel),))
        try:
            front.add_insecure_port(f"{host}:{port}")
        except RuntimeError as error:
            raise ServingError(Code.UNAVAILABLE, f"cannot listen on {host}:{port}: {error}") from error
        await front.start()
        rest = None
        if rest_port and rest_server_address:
            timeout = aiohttp.ClientTimeout(total=REST_TIMEOUT_SECONDS)
            connector = aiohttp.TCPConnector(limit=0)
            session = await stack.enter_async_context(aiohttp.ClientSession(timeout=timeout, connector=connector))
            handler = RestProxy(router, session, f"http://{rest_server_address}")
            rest = await http_server.start(handler, host, rest_port, http_server.HttpLimits())
        looking = asyncio.create_task(_look(router, conditions))
        ready()
        await stop.wait()
        looking.cancel()
        await front.stop(REST_TIMEOUT_SECONDS)
        if rest:
            await rest.cleanup()
        await router.drained()


async def _look(router: Router, conditions: Rollback) -> None:
    while True:
        await asyncio.sleep(conditions.check_seconds)
        try:
            # On another thread: a rollback waits for the server, and requests must not wait for it.
            reason = await asyncio.to_thread(router.split.guard, conditions)
        except (ServingError, OSError) as error:
            log.error("the arms could not be judged: %s", error)
            continue
        if reason:
            log.warning("rolled back: %s", reason)
