"""`recsys ui`: all runs' reports in the browser, on this machine only."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.context import ConfigPath, Overrides


def ui(
    config: ConfigPath,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 takes a free one.")] = 8600,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard/--no-tensorboard", help="Start a TensorBoard beside it and link to it.")
    ] = True,
    set_: Overrides = None,
) -> None:
    """Serve all runs' reports, comparisons and the progress of the run under way, read-only, on 127.0.0.1."""
    from aiohttp import web

    from configs import ConfigError, load_config
    from pipeline.site import application

    settings = load_config(config, set_ or [])
    with socket.socket() as listening, _tensorboard(config, set_ or [], tensorboard) as board:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(("127.0.0.1", port))
        except OSError as error:
            raise ConfigError(f"--port {port}: {error.strerror}; choose another, or 0 for a free one") from None
        where = f"http://127.0.0.1:{listening.getsockname()[1]}"
        typer.echo(f"{where}  (Ctrl-C ends it)")
        if board:
            typer.echo(f"{board}  TensorBoard")
        web.run_app(application(settings, board), sock=listening, print=None, handle_signals=True)


@contextmanager
def _tensorboard(config: Path, overrides: list[str], wanted: bool) -> Iterator[str]:
    """Run `recsys tensorboard` while the context lasts, and yield its address."""
    if not wanted:
        yield ""
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["tensorboard", str(config), f"--port={port}", *(part for o in overrides for part in ("--set", o))]
    started = subprocess.Popen(
        [sys.executable, "-c", "from pipeline.cli import main; main()", *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://localhost:{port}/"
    finally:
        started.terminate()
        started.wait()
