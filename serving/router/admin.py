"""The router's own address: what was shown to whom, the report, metrics and health. For operators and the product.

Everything but the health needs the token, as `Authorization: Bearer TOKEN`.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import os
import pathlib
import secrets
import time
from typing import Any

import orjson
from aiohttp import web

from serving.router.guard import Guard
from serving.router.metrics import RouterMetrics
from serving.router.routing import USER_CHARACTERS
from serving.server.http_server import HttpLimits
from serving.server.status import Code, ServingError, invalid_argument

log = logging.getLogger("recsys-router")

METRICS_PATH = "/monitoring/prometheus/metrics"
MOST_ITEMS = 1000
LIMITS = HttpLimits(body_bytes=1 << 20, buffered_bytes=16 << 20, connections=256, body_seconds=10.0, idle_seconds=60.0)
BLIND_AFTER_SECONDS = 60.0
_SHOWN = '{"user": "…", "items": ["…", …]}'


def read_token(file: pathlib.Path, make: bool = False) -> str:
    """The token in `file`; with `make`, a new one is written there, for its owner alone, where there is no file.

    Raises ServingError (INVALID_ARGUMENT) naming the file.
    """
    try:
        if make and not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as new:
                new.write(secrets.token_urlsafe(32) + "\n")
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise invalid_argument(f"{file}: the token cannot be read: {error}") from error
    if len(token) < 16 or not token.isascii():
        raise invalid_argument(f"{file}: a token has at least 16 ASCII characters; delete the file to get a new one")
    return token


class Admin:
    """Requests at the router's own address; a handler for `http_server.start`."""

    def __init__(self, guard: Guard, metrics: RouterMetrics, token: str):
        """`token` is what callers have to name."""
        self._guard = guard
        self._metrics = metrics
        self._expected = f"Bearer {token}".encode()
        self._started = time.time()

    async def __call__(self, request: web.BaseRequest) -> web.Response:
        """Answer one request. Raises ServingError."""
        path, method = request.rel_url.raw_path, request.method
        if (method, path) == ("GET", "/router/health"):
            return self._health()
        given = request.headers.get("Authorization", "").encode(errors="replace")
        if not hmac.compare_digest(given, self._expected):
            raise ServingError(Code.UNAUTHENTICATED, "expected Authorization: Bearer TOKEN, with the router's token")
        if (method, path) == ("GET", METRICS_PATH):
            return web.Response(text=self._metrics.text(), content_type="text/plain")
        if (method, path) == ("GET", "/router/report"):
            report = await asyncio.to_thread(self._guard.report)
            return web.Response(text=report.as_json(), content_type="application/json")
        if (method, path) == ("POST", "/router/shown"):
            return await self._shown(await request.read())
        raise ServingError(Code.NOT_FOUND, f"the router has no {method} {path}")

    async def _shown(self, body: bytes) -> web.Response:
        try:
            document = orjson.loads(body)
            user, items = _id(document["user"]), document["items"]
            if not isinstance(items, list):
                raise TypeError
            items = [_id(item) for item in items]
        except (ValueError, KeyError, TypeError) as error:
            self._metrics.exposures.add("malformed")
            raise invalid_argument(f"expected {_SHOWN}, ids of at most {USER_CHARACTERS} characters") from error
        if len(items) > MOST_ITEMS:
            self._metrics.exposures.add("malformed")
            raise invalid_argument(f"{len(items)} items; one call notes at most {MOST_ITEMS}")
        try:
            await asyncio.to_thread(self._guard.shown, user, items)
        except OSError as error:
            self._metrics.exposures.add("not_written", by=len(items))
            raise ServingError(Code.UNAVAILABLE, f"could not be noted: {error.strerror}") from error
        self._metrics.exposures.add("noted", by=len(items))
        return web.Response(text="{}", content_type="application/json")

    def _health(self) -> web.Response:
        seen = max(self._metrics.last_look.value(), self._started)
        silent = time.time() - seen
        blind = silent > BLIND_AFTER_SECONDS + 3 * self._guard.split.conditions.check_seconds
        body: dict[str, Any] = {"guard_silent_seconds": round(silent, 1), "guard": "silent" if blind else "watching"}
        return web.Response(status=503 if blind else 200, text=json.dumps(body), content_type="application/json")


def _id(value: Any) -> str:
    if not isinstance(value, str | int) or isinstance(value, bool) or len(str(value)) > USER_CHARACTERS:
        raise TypeError
    return str(value)
