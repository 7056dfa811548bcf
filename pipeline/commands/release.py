"""`recsys release`: which version is served to whom, who said so, and how its arms do."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from configs import Config, ConfigError, load_config
from pipeline.commands.context import ConfigPath, Overrides

if TYPE_CHECKING:
    from serving.release import Release, Standing
    from serving.router.guard import Report
    from serving.router.main import Addresses, Upstream

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


Server = Annotated[
    str | None, typer.Option(help="gRPC address of the model server; default: serving.server, or localhost:8500.")
]
RestServer = Annotated[str | None, typer.Option(help="Its REST address; without it only gRPC is routed.")]
Clicks = Annotated[
    list[str] | None,
    typer.Option(help="Click logs (a glob): JSON lines with `time`, `user` and `item`. May be given again."),
]
TokenFile = Annotated[
    pathlib.Path | None,
    typer.Option(
        help="The token that callers of that address name; made if missing. Default: router.token beside models.config."
    ),
]
SslConfig = Annotated[
    pathlib.Path | None,
    typer.Option(help="Text SSLConfig, as the model server's: all three addresses speak TLS.", exists=True),
]
ServerCa = Annotated[
    pathlib.Path | None,
    typer.Option(help="PEM of the CA that signed the model server's certificate: TLS to it.", exists=True),
]
ServerCert = Annotated[
    pathlib.Path | None, typer.Option(help="PEM of the certificate to show the model server.", exists=True)
]
ServerKey = Annotated[pathlib.Path | None, typer.Option(help="PEM of its key.", exists=True)]
Connections = Annotated[
    int, typer.Option(help="Connections of each protocol; 0: as the process's descriptors allow.", min=0)
]


@app.command()
def route(
    config: ConfigPath,
    server: Server = None,
    rest_server: RestServer = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "0.0.0.0",
    port: Annotated[int, typer.Option(help="gRPC port to listen on.", min=0, max=65535)] = 8510,
    rest_port: Annotated[int, typer.Option(help="REST port to listen on.", min=0, max=65535)] = 8511,
    feedback: Clicks = None,
    admin_host: Annotated[str, typer.Option(help="Where administration is: exposures, report, metrics.")] = "127.0.0.1",
    admin_port: Annotated[int, typer.Option(help="Its HTTP port; 0: none.", min=0, max=65535)] = 8512,
    admin_token_file: TokenFile = None,
    ssl_config_file: SslConfig = None,
    server_ca: ServerCa = None,
    server_cert: ServerCert = None,
    server_key: ServerKey = None,
    max_message_bytes: Annotated[int, typer.Option(help="Largest request; more is refused.", min=1)] = 32 << 20,
    max_connections: Connections = 0,
    set_: Overrides = None,
) -> None:
    """Stand before a model server, split its traffic by user, and roll a bad canary back.

    Clients talk to it as to the server itself. `recsys release report` shows how the arms do.
    """
    import logging
    import os
    import sys

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    settings = load_config(config, set_ or [])
    if server_ca is None and (server_cert or server_key):
        raise ConfigError(
            "--server-cert and --server-key go with --server-ca: without it there is no TLS to the server"
        )
    with _errors():
        from serving.router.main import Addresses, Upstream
        from serving.server.grpc_server import GrpcLimits
        from serving.server.http_server import HttpLimits

        upstream = Upstream(
            server or settings.serving.server or "localhost:8500", rest_server, server_ca, server_cert, server_key
        )
        addresses = Addresses(
            host,
            port,
            rest_port if rest_server else None,
            admin_host,
            admin_port or None,
            ssl_config_file,
            GrpcLimits(message_bytes=max_message_bytes, connections=max_connections),
            HttpLimits(body_bytes=max_message_bytes, connections=max_connections),
        )
        _route(settings, upstream, addresses, admin_token_file, feedback or [])


def _route(
    settings: Config, upstream: Upstream, addresses: Addresses, token_file: pathlib.Path | None, feedback: list[str]
) -> None:
    import asyncio
    import logging
    import os
    import sys

    import uvloop

    from serving.release import Release
    from serving.router.admin import read_token
    from serving.router.guard import Guard
    from serving.router.main import serve
    from serving.router.routing import Router
    from serving.router.split import Split
    from serving.server.main import SWITCH_INTERVAL_SECONDS

    release = Release.of(settings)
    file = token_file or release.config_file.with_name("router.token")
    token = read_token(file, make=True) if addresses.admin_port else ""
    split = Split(release, settings.serving.rollback)
    guard = Guard(split, feedback)

    def ready() -> None:
        rest = f", REST at {addresses.host}:{addresses.rest_port}" if addresses.rest_port else ""
        typer.echo(
            f"routing {settings.model_name}: gRPC at {addresses.host}:{addresses.port}{rest}, "
            f"model server {upstream.address}",
            err=True,
        )
        if addresses.admin_port:
            typer.echo(f"administration at {addresses.admin_host}:{addresses.admin_port}, token in {file}", err=True)

    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)  # the guard's Python must not hold up requests for long

    async def run() -> None:
        await serve(Router(split, settings.data.user), guard, upstream, addresses, token, ready)
        # Closing the event loop would cancel calls that came a moment ago, and clients must not try CANCELLED again. To
        # them the end of the process is UNAVAILABLE.
        logging.shutdown()
        sys.stderr.flush()
        os._exit(0)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


@app.command()
def report(config: ConfigPath, as_json: AsJson = False, set_: Overrides = None) -> None:
    """How the stable and the canary version do: latency, errors, scores, and clicks where they were joined."""
    with _errors():
        from serving.router.guard import Report, report_file

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
    _print_evidence(report, console)


def _print_evidence(report: Report, console: Any) -> None:
    if report.loss:
        low, high = report.loss.interval
        console.print(
            f"canary's click-through rate less stable's, at equal shares: {report.loss.difference:+.4f} "
            f"({low:+.4f} to {high:+.4f}); that it is lower: sequential p = {report.loss.p_value:.3g}"
        )
        if not report.loss.comparable:
            console.print(
                f"[bold]the arms' users are not those that were drawn[/bold] (p = {report.loss.sample_ratio_p:.2g}): "
                "no canary is rolled back for its clicks. Is what was shown noted for both arms alike?"
            )
    elif report.rates:
        console.print("click-through rates are compared once both arms have 100 users at one share of the canary")
    else:
        console.print("no click-through rate: nothing was noted as shown (POST /router/shown)")
    if "canary" in report.labels:
        found = {"errors": report.evidence.errors, "p99": report.evidence.p99, "scores": report.evidence.score_shift}
        against = [f"{name} p = {value:.2g}" for name, value in found.items() if value is not None and value < 0.5]
        console.print(f"against the canary: {', '.join(against) or 'nothing'} (may be looked at any time)")
    if report.unread:
        console.print(f"{report.unread:,} lines of exposures or feedback could not be read and were left out")
    if report.unreadable:
        console.print(
            f"{report.unreadable:,} files of exposures or feedback cannot be read; the router's log names them"
        )


def _labels(labels: dict[str, int]) -> str:
    return ", ".join(f"{label} {version}" for label, version in sorted(labels.items(), reverse=True)) or "none"
