"""`recsys deploy files`: what runs TensorFlow Serving and its surroundings."""

from __future__ import annotations

import pathlib
from typing import Annotated

import typer

EXIT_USAGE = 2

app = typer.Typer(no_args_is_help=True, help="Run the real thing.")


@app.callback()
def _deploy() -> None:
    """Keeps `files` a subcommand while it is the only one."""


@app.command()
def files(
    model: Annotated[str, typer.Option("--model", help="The model's name.")],
    base_path: Annotated[
        str, typer.Option("--base-path", help="Where the server sees its versions: folder or bucket.")
    ],
    folder: Annotated[pathlib.Path, typer.Option("--out", help="Folder to write to.")] = pathlib.Path("serving-files"),
    host_path: Annotated[str | None, typer.Option(help="Where they are on the machine that runs compose.")] = None,
    p99_budget_ms: Annotated[float, typer.Option(help="Latency above which an alert fires.")] = 50.0,
) -> None:
    """Write models, batching and monitoring config, compose, Kubernetes, Prometheus, alerts and a dashboard."""
    from serving import deploy_files
    from serving.server.status import ServingError

    deployment = deploy_files.Deployment(model, base_path, p99_budget_ms=p99_budget_ms)
    try:
        for file in deploy_files.write(deployment, folder, host_path=host_path):
            typer.echo(file)
    except ServingError as error:
        typer.echo(error.message, err=True)
        raise typer.Exit(EXIT_USAGE) from error
