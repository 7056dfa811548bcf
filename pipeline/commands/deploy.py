"""`recsys deploy files`: what runs TensorFlow Serving and its surroundings."""

from __future__ import annotations

import pathlib
from typing import Annotated

import typer

from configs import ConfigError, load_config
from pipeline.commands.context import ConfigPath, Overrides

app = typer.Typer(no_args_is_help=True, help="Run the real thing.")


@app.callback()
def _deploy() -> None:
    """Keeps `files` a subcommand while it is the only one."""


@app.command()
def files(
    config: ConfigPath,
    base_path: Annotated[
        str | None,
        typer.Option("--base-path", help="Where the server sees the versions, if not where they are pushed: a bucket."),
    ] = None,
    p99_budget_ms: Annotated[float, typer.Option(help="Latency above which an alert fires.", min=0.0)] = 50.0,
    expose: Annotated[
        bool, typer.Option("--expose", help="Publish the Compose file's ports on every address, not on loopback alone.")
    ] = False,
    set_: Overrides = None,
) -> None:
    """Write models, batching and monitoring config, compose, Kubernetes, Prometheus, alerts and a dashboard.

    They go to the release folder (serving.release), where `recsys release` keeps its state.
    """
    from serving import deploy_files
    from serving.server.status import ServingError

    settings = load_config(config, set_ or [])
    deployment = deploy_files.Deployment(
        settings.model_name, base_path or settings.model_folder, p99_budget_ms=p99_budget_ms, expose=expose
    )
    try:
        for file in deploy_files.write(deployment, pathlib.Path(settings.release_file).parent):
            typer.echo(file)
    except ServingError as error:
        raise ConfigError(error.message) from error
