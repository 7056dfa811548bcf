"""`recsys release`: status, promote, canary, rollback, pin, history."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from serving.release import Release, Standing

EXIT_FAILED = 1
EXIT_USAGE = 2

app = typer.Typer(no_args_is_help=True, help="Which version of a model is served to whom.")

ConfigFile = Annotated[
    pathlib.Path, typer.Option("--config-file", help="The server's ModelServerConfig.", envvar="RECSYS_MODELS_CONFIG")
]
Model = Annotated[str, typer.Option("--model", help="The model's name in that file.")]
Server = Annotated[
    str | None,
    typer.Option("--server", help="host:port of a server to tell at once; without it, servers poll the file."),
]
Why = Annotated[str, typer.Option("--why", help="The reason, for the audit log.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Version = Annotated[int | None, typer.Option("--version", help="A version number.")]


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    from serving.server.status import Code, ServingError

    try:
        yield
    except ServingError as error:
        typer.echo(error.message, err=True)
        raise typer.Exit(EXIT_USAGE if error.code is Code.INVALID_ARGUMENT else EXIT_FAILED) from error


def _release(config_file: pathlib.Path, model: str, server: str | None) -> Release:
    from serving.release import Release, reload_by_rpc

    return Release(config_file, model, apply=reload_by_rpc(server) if server else None)


def _show(standing: Standing, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(standing)))
        return
    typer.echo(f"model      {standing.model}")
    for label, version in sorted(standing.labels.items(), reverse=True):
        typer.echo(f"{label:10} {version}  {standing.states.get(version, '')}".rstrip())
    typer.echo(f"served     {standing.versions or 'the newest'}")
    typer.echo(f"on disk    {standing.on_disk}")
    if standing.route.canary_percent or standing.route.shadow_percent:
        typer.echo(
            f"traffic    {standing.route.canary_percent:g} % canary, {standing.route.shadow_percent:g} % shadow copies"
        )


@app.command()
def status(config_file: ConfigFile, model: Model, server: Server = None, as_json: AsJson = False) -> None:
    """Where the model stands: labels, versions, traffic, and with --server what the server says."""
    from serving.client import connect

    with _errors():
        standing = _release(config_file, model, None).standing()
        if server:
            with connect(f"grpc://{server}", model) as client:
                states = {each.version: each.state for each in client.status()}
            standing = dataclasses.replace(standing, states=states)
        _show(standing, as_json)


@app.command()
def promote(
    config_file: ConfigFile,
    model: Model,
    version: Version = None,
    server: Server = None,
    why: Why = "",
    as_json: AsJson = False,
) -> None:
    """Make a version stable: the canary by default, or else the newest."""
    with _errors():
        _show(_release(config_file, model, server).promote(version, why=why), as_json)


@app.command()
def canary(
    config_file: ConfigFile,
    model: Model,
    percent: Annotated[float, typer.Option("--percent", help="Share of users.", min=0, max=100)],
    shadow_percent: Annotated[float, typer.Option(help="Share of requests copied to it unseen.", min=0, max=100)] = 0.0,
    version: Version = None,
    server: Server = None,
    why: Why = "",
    as_json: AsJson = False,
) -> None:
    """Give a share of users a version (the newest by default) beside the stable one."""
    with _errors():
        release = _release(config_file, model, server)
        _show(release.canary(percent, version=version, shadow_percent=shadow_percent, why=why), as_json)


@app.command()
def rollback(
    config_file: ConfigFile, model: Model, server: Server = None, why: Why = "", as_json: AsJson = False
) -> None:
    """End the canary; without one, go back to the version that was stable before."""
    with _errors():
        _show(_release(config_file, model, server).rollback(why=why), as_json)


@app.command()
def pin(
    version: Annotated[int, typer.Argument(help="A version number.")],
    config_file: ConfigFile,
    model: Model,
    server: Server = None,
    why: Why = "",
    as_json: AsJson = False,
) -> None:
    """Serve one version and nothing else, whatever appears on disk."""
    with _errors():
        _show(_release(config_file, model, server).pin(version, why=why), as_json)


@app.command()
def history(config_file: ConfigFile, model: Model, as_json: AsJson = False) -> None:
    """Who changed what, when and why."""
    with _errors():
        for change in _release(config_file, model, None).history():
            if as_json:
                typer.echo(json.dumps(dataclasses.asdict(change)))
                continue
            before, after = change.before["labels"], change.after["labels"]
            typer.echo(f"{change.time}  {change.who:12} {change.action:9} {before} -> {after}  {change.why}".rstrip())
