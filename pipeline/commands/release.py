"""`recsys release`: which version is served to whom, who said so, and how its arms do."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from configs import ConfigError, load_config
from pipeline.commands.run import ConfigPath, Overrides

if TYPE_CHECKING:
    from serving.release import Release, Standing
    from serving.router.split import Report

app = typer.Typer(no_args_is_help=True, help="Which version of a model is served to whom.")

Why = Annotated[str, typer.Option("--why", help="The reason, for the audit log.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Version = Annotated[int | None, typer.Option("--version", help="A version number.")]


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    from serving.server.status import Code, ServingError

    try:
        yield
    except ServingError as error:
        if error.code is Code.INVALID_ARGUMENT:
            raise ConfigError(error.message) from error
        raise RuntimeError(error.message) from error


def _release(config: ConfigPath, set_: Overrides) -> Release:
    from serving.release import Release

    return Release.of(load_config(config, set_ or []))


def _show(standing: Standing, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(standing)))
        return
    typer.echo(f"model      {standing.model}")
    for label, version in sorted(standing.labels.items(), reverse=True):
        typer.echo(f"{label:10} {version}")
    if not standing.labels:
        typer.echo("stable     none: every request gets the newest version; `recsys release promote` names one")
    typer.echo(f"served     {', '.join(map(str, standing.versions)) or 'the newest'}")
    typer.echo(f"on disk    {', '.join(map(str, standing.on_disk)) or 'none'}")
    route = standing.route
    if route.canary_percent or route.shadow_percent:
        typer.echo(f"traffic    {route.canary_percent:g} % canary, {route.shadow_percent:g} % shadow copies")


@app.command()
def status(config: ConfigPath, as_json: AsJson = False, set_: Overrides = None) -> None:
    """What is served, and what each label names."""
    with _errors():
        _show(_release(config, set_).standing(), as_json)


@app.command()
def promote(
    config: ConfigPath, version: Version = None, why: Why = "", as_json: AsJson = False, set_: Overrides = None
) -> None:
    """Make a version stable: the canary by default, or else the newest."""
    with _errors():
        _show(_release(config, set_).promote(version, why=why), as_json)


@app.command()
def canary(
    config: ConfigPath,
    percent: Annotated[float, typer.Option("--percent", help="Share of users.", min=0, max=100)],
    shadow_percent: Annotated[float, typer.Option(help="Share of requests copied to it unseen.", min=0, max=100)] = 0.0,
    version: Version = None,
    why: Why = "",
    as_json: AsJson = False,
    set_: Overrides = None,
) -> None:
    """Give a share of users a version (the newest by default) beside the stable one."""
    with _errors():
        _show(_release(config, set_).canary(percent, version=version, shadow_percent=shadow_percent, why=why), as_json)


@app.command()
def rollback(config: ConfigPath, why: Why = "", as_json: AsJson = False, set_: Overrides = None) -> None:
    """End the canary; without one, go back to the version that was stable before."""
    with _errors():
        _show(_release(config, set_).rollback(why=why), as_json)


@app.command()
def pin(
    config: ConfigPath,
    version: Annotated[int, typer.Option("--version", help="A version number.")],
    why: Why = "",
    as_json: AsJson = False,
    set_: Overrides = None,
) -> None:
    """Serve one version and nothing else, whatever appears on disk."""
    with _errors():
        _show(_release(config, set_).pin(version, why=why), as_json)


@app.command()
def history(config: ConfigPath, as_json: AsJson = False, set_: Overrides = None) -> None:
    """Who changed what, when and why."""
    with _errors():
        changes = _release(config, set_).history()
    if not changes and not as_json:
        typer.echo("no release yet: every request gets the newest version")
    for change in changes:
        if as_json:
            typer.echo(json.dumps(dataclasses.asdict(change)))
            continue
        before, after = (_labels(side["labels"]) for side in (change.before, change.after))
        typer.echo(f"{change.time}  {change.who:12} {change.action:9} {before} -> {after}  {change.why}".rstrip())


@app.command()
def route(
    config: ConfigPath,
    server: Annotated[
        str | None, typer.Option(help="gRPC address of the model server; default: serving.server, or localhost:8500.")
    ] = None,
    rest_server: Annotated[str | None, typer.Option(help="Its REST address; without it only gRPC is routed.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "0.0.0.0",
    port: Annotated[int, typer.Option(help="gRPC port to listen on.", min=0, max=65535)] = 8510,
    rest_port: Annotated[int, typer.Option(help="REST port to listen on.", min=0, max=65535)] = 8511,
    feedback: Annotated[
        list[str] | None,
        typer.Option(help="Click logs (a glob): JSON lines with `time`, `user` and `item`. May be given again."),
    ] = None,
    set_: Overrides = None,
) -> None:
    """Stand before a model server, split its traffic by user, and roll a bad canary back.

    Clients talk to it as to the server itself. `recsys release report` shows how the arms do.
    """
    import asyncio
    import logging
    import os
    import sys

    import uvloop

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    settings = load_config(config, set_ or [])
    upstream = server or settings.serving.server or "localhost:8500"
    with _errors():
        from serving.release import Release
        from serving.router.proxy import Router, serve
        from serving.router.split import Split

        split = Split(Release.of(settings), feedback or [])

        def ready() -> None:
            rest = f", REST at {host}:{rest_port}" if rest_server else ""
            typer.echo(f"routing {settings.model_name}: gRPC at {host}:{port}{rest}, model server {upstream}", err=True)

        async def run() -> None:
            await serve(
                Router(split, settings.data.user),
                settings.serving.rollback,
                server=upstream,
                rest_server_address=rest_server,
                host=host,
                port=port,
                rest_port=rest_port if rest_server else None,
                ready=ready,
            )

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run())


@app.command()
def report(config: ConfigPath, as_json: AsJson = False, set_: Overrides = None) -> None:
    """How the stable and the canary version do: latency, errors, scores, and clicks where they were joined."""
    with _errors():
        from serving.router.split import Report, report_file

        file = report_file(_release(config, set_))
        if not file.exists():
            raise ConfigError(f"{file}: no report yet; `recsys release route {config}` keeps one while it runs")
        text = file.read_text(encoding="utf-8")
        if as_json:
            typer.echo(text.rstrip())
        else:
            _print(Report.from_json(text))


def _print(report: Report) -> None:
    from datetime import UTC, datetime

    from rich.console import Console
    from rich.table import Table

    since = datetime.fromtimestamp(report.since, UTC)
    console = Console(highlight=False)
    share = f", {report.route.canary_percent:g} % canary" if "canary" in report.labels else ", no canary"
    console.print(f"[bold]{report.model}[/bold]  since {since:%Y-%m-%d %H:%M} UTC{share}")
    table = Table("", box=None, pad_edge=False, header_style="bold")
    for arm in report.arms:
        version = report.labels.get(arm)
        table.add_column(f"{arm} {version}" if version else arm, justify="right")

    def row(name: str, values: list[str]) -> None:
        table.add_row(name, *values)

    def number(value: float | None, form: str) -> str:
        return "–" if value is None else format(value, form)

    arms = list(report.arms.values())
    row("requests", [f"{arm.requests:,}" for arm in arms])
    row("of these shadow copies", [f"{arm.shadows:,}" for arm in arms])
    row("errors", [f"{arm.errors:,} ({arm.error_rate:.2%})" for arm in arms])
    row("p50 ms", [number(arm.p50_ms, ".2f") for arm in arms])
    row("p99 ms", [number(arm.p99_ms, ".2f") for arm in arms])
    row("mean score", [number(arm.score_mean, ".4f") for arm in arms])
    for place, name in ((0, "score, 10 % below"), (4, "score, median"), (8, "score, 10 % above")):
        row(name, [number(arm.score_deciles[place] if arm.score_deciles else None, ".4f") for arm in arms])
    rates = [report.rates.get(name) for name in report.arms]
    if any(rates):
        row("shown", [f"{rate.impressions:,}" if rate else "–" for rate in rates])
        row("clicks", [f"{rate.clicks:,}" if rate else "–" for rate in rates])
        row("click-through rate", [f"{rate.value:.4f}" if rate else "–" for rate in rates])
        row("95 % interval", ["{:.4f} to {:.4f}".format(*rate.interval()) if rate else "–" for rate in rates])
    console.print(table)
    if report.p_value is not None:
        console.print(f"click-through rates differ: sequential p = {report.p_value:.3g} (may be looked at any time)")
    else:
        console.print("no click-through rate: nothing was noted as shown (POST /router/shown)")
    if report.unread:
        console.print(f"{report.unread:,} lines of exposures or feedback could not be read and were left out")


def _labels(labels: dict[str, int]) -> str:
    return ", ".join(f"{label} {version}" for label, version in sorted(labels.items(), reverse=True)) or "none"
