"""The router's REST side: TensorFlow Serving's paths, passed on to the model server."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import ssl
from collections.abc import Iterable, Mapping
from typing import Any

import aiohttp
import orjson
import yarl
from aiohttp import web

from serving.router.routing import USER_HEADER, Answer, Router, UpstreamError, checked_user, only_user
from serving.server import json_answers
from serving.server.status import code_of_http, invalid_argument

_REST = re.compile(r"/v1/models/(?P<name>[^/:]+):(?P<method>predict|classify|regress)", re.IGNORECASE)
_METHODS = {"GET", "HEAD", "OPTIONS", "POST"}
_OWN = "/router/"


class RestProxy:
    """Requests of any path; a handler for `http_server.start`."""

    def __init__(self, router: Router, session: aiohttp.ClientSession, base: str, tls: ssl.SSLContext | None = None):
        """`base` is the model server's URL; `tls` is what https asks of it."""
        self._router = router
        self._session = session
        self._base = base
        self._tls = tls

    async def __call__(self, request: web.BaseRequest) -> web.Response:
        """Answer one request. Raises ServingError."""
        path = request.rel_url.raw_path
        if request.method not in _METHODS or not path.startswith("/"):
            raise invalid_argument(f"Malformed request: {request.method} {path}")
        if path.startswith(_OWN):
            message = "the router is asked at its own address (--admin-host, --admin-port)"
            return _response(Answer(json_answers.error_body(message), status=404))
        body = await request.read()
        with self._router.admission:
            async with self._router.large.turn(len(body)) as here:
                return _response(await self._answer(request, path, body, await here(self._user, request, body)))

    async def _answer(self, request: web.BaseRequest, path: str, body: bytes, user: str | None) -> Answer:
        match = _REST.fullmatch(path) if request.method == "POST" else None
        if not match or match["name"] != self._router.split.model:
            return await self._send(request, path, body)

        async def send(label: str | None, shadow: bool = False) -> Answer:
            inner = f"/v1/models/{match['name']}/labels/{label}:{match['method']}" if label else path
            answer = await self._send(request, inner, body)
            if answer.status != 200:
                raise UpstreamError(code_of_http(answer.status), answer)
            return answer

        try:
            return await self._router.route(user, len(body), send)
        except UpstreamError as refused:
            return refused.answer

    async def _send(self, request: web.BaseRequest, path: str, body: bytes) -> Answer:
        query = f"?{request.rel_url.raw_query_string}" if request.rel_url.raw_query_string else ""
        headers = {"Content-Type": request.headers["Content-Type"]} if "Content-Type" in request.headers else {}
        try:
            async with self._session.request(
                request.method,
                yarl.URL(f"{self._base}{path}{query}", encoded=True),
                data=body or None,
                headers=headers,
                ssl=self._tls or True,
                allow_redirects=False,
            ) as response:
                data = await response.read()
                return Answer(data, lambda: _scores(data), response.status, response.content_type)
        except (aiohttp.ClientError, TimeoutError) as error:
            message = json_answers.error_body(f"the model server at {self._base} does not answer: {error}")
            return Answer(message, status=504 if isinstance(error, TimeoutError) else 503)
        except ValueError as error:  # a header or a path that the client library does not send
            raise invalid_argument(f"Malformed request: {error}") from error

    def _user(self, request: web.BaseRequest, body: bytes) -> str | None:
        if USER_HEADER in request.headers:
            return checked_user(request.headers[USER_HEADER])
        try:
            document = _parse(body)
        except (ValueError, RecursionError):
            return None  # the server behind says what is wrong with it
        column = self._router.user_column
        if not isinstance(document, dict):
            return None
        inputs = document.get("inputs")
        if isinstance(inputs, dict):
            return only_user(_leaves(inputs.get(column)))
        rows = document.get("instances", document.get("examples"))
        found: list[Any] = []
        for row in rows if isinstance(rows, list) else []:
            found += _leaves(row.get(column)) if isinstance(row, dict) else []
        context = document.get("context")
        return only_user(found or (_leaves(context.get(column)) if isinstance(context, dict) else []))


def _parse(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return json.loads(body)  # takes NaN and Infinity, as the server does


def _leaves(value: Any, depth: int = 8) -> list[Any]:
    if value is None or not depth:
        return []
    if isinstance(value, list):
        return [leaf for each in value for leaf in _leaves(each, depth - 1)]
    if isinstance(value, dict):
        with contextlib.suppress(ValueError, TypeError, KeyError):
            return [base64.b64decode(value["b64"])]
        return []
    return [value]


def _scores(body: bytes) -> Iterable[float]:
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
