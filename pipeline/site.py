"""The small site of a config's runs: their reports, comparisons, and the run under way. It only reads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
from aiohttp import web

from components.report import compare, page
from configs import Config, ConfigError
from pipeline.running import history, under_way

_LOCAL = {"127.0.0.1", "localhost", "[::1]"}
_HEADERS = {
    # Scripts and styles stand in the pages themselves; Vega compiles its expressions.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline' 'unsafe-eval'; img-src data:; connect-src 'self'; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_OF_LABELS = {"auc": "AUC", "logloss": "LogLoss", "calibration": "calibration"}
_CONFIG: web.AppKey[Config] = web.AppKey("config", Config)
_TENSORBOARD: web.AppKey[str] = web.AppKey("tensorboard", str)


def application(config: Config, tensorboard: str = "") -> web.Application:
    """Return the site. `tensorboard` is the address of one that is running, if any."""
    site = web.Application(middlewares=[_guard])
    site[_CONFIG], site[_TENSORBOARD] = config, tensorboard
    site.router.add_get("/", _index)
    site.router.add_get("/runs/{run}", _report)
    site.router.add_get("/compare", _compare)
    site.router.add_get("/under-way", _under_way)
    return site


@web.middleware
async def _guard(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Answer only whoever asks for this machine by a name of its own: other names may be another site's trick."""
    if request.host.rpartition(":")[0] not in _LOCAL and request.host not in _LOCAL:
        return web.Response(status=421, text="this site answers to 127.0.0.1 and localhost only\n")
    try:
        response = await handler(request)
    except ConfigError as error:
        response = web.Response(status=404, text=f"{error}\n")
    except web.HTTPException as error:
        response = error
    response.headers.update(_HEADERS)
    return response


async def _index(request: web.Request) -> web.Response:
    config = request.app[_CONFIG]
    known = await _aside(history.runs, config, 100)
    text = (
        _templates()
        .get_template("site.html.j2")
        .render(
            config=config,
            runs=known,
            now=time.time(),
            under_way=_going(config),
            trends=trends(known),
            shown=history.shown(known),
            tensorboard=request.app[_TENSORBOARD],
        )
    )
    return web.Response(text=text, content_type="text/html")


def trends(runs: Sequence[history.Run]) -> list[dict[str, Any]]:
    """Return, of each metric that two runs or more have, its values over the runs: points of a line, oldest first.

    Places are in per cent of the picture, from the left and from the top.
    """
    found = []
    shown = history.shown(runs)
    if "auc" in shown:
        shown = _OF_LABELS
    for metric, title in shown.items():
        known = [(r, v) for r in reversed(runs) if (v := r.metrics.get(metric)) is not None]
        if len(known) < 2:
            continue
        low, high = min(v for _, v in known), max(v for _, v in known)
        points = [
            {"run": run, "value": value, "x": 2 + 96 * place / (len(known) - 1),
             "y": 50.0 if high == low else 92 - 84 * (value - low) / (high - low)}
            for place, (run, value) in enumerate(known)
        ]  # fmt: skip
        found.append({"title": title, "low": low, "high": high, "points": points})
    return found


async def _report(request: web.Request) -> web.Response:
    found = await _aside(history.find, request.app[_CONFIG], request.match_info["run"])
    if found.page is None:
        raise ConfigError(f"run {found.id} has no report: it ended before anything was ingested, or is not over")
    text = await _aside(Path(found.page).read_text, "utf-8")
    return web.Response(text=text, content_type="text/html")


async def _compare(request: web.Request) -> web.Response:
    config = request.app[_CONFIG]
    names = request.query.getall("run", [])
    if len(names) != 2:
        raise ConfigError("/compare wants two runs: choose two on the first page")
    one, other = [await _aside(history.find, config, name) for name in names]
    first, second = sorted((one, other), key=lambda run: run.began)
    text = await _aside(lambda: compare.render(first.facts(), second.facts()))
    return web.Response(text=text, content_type="text/html")


async def _under_way(request: web.Request) -> web.Response:
    return web.json_response(_going(request.app[_CONFIG]))


def _going(config: Config) -> dict | None:
    """Return how far the run under way is; what a killed run has left does not count."""
    said = under_way.read(config.runs_folder)
    return said if said is not None and history.busy(config) else None


async def _aside(call: Callable, *arguments):
    """Call what reads files and the store beside the loop, which goes on answering."""
    return await asyncio.get_running_loop().run_in_executor(None, partial(call, *arguments))


def _templates() -> jinja2.Environment:
    made = page.environment().overlay(loader=jinja2.FileSystemLoader(Path(__file__).parent))
    made.filters["age"] = history.age
    return made
