"""`recsys tensorboard`: curves and embeddings in a browser."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.commands.context import ConfigPath, Overrides, command


def tensorboard(
    config: ConfigPath,
    run: Annotated[str | None, typer.Option(help="Show this run's models; default: the newest of each.")] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on this machine; 0 for any free one.")] = 6006,
    set_: Overrides = None,
) -> None:
    """Show curves of candidate and baselines, and the embeddings with titles, in TensorBoard until Ctrl-C.

    The projector is in the menu beside the search field; its labels are the items' columns in the logs.
    """
    import os
    import sys

    with command(config, set_, "tensorboard") as (settings, _):
        from pipeline.tensorboard import make_board

        folder = make_board(settings, run)
    print(f"{folder}\nprojector: http://localhost:{port}/#projector" if port else folder, flush=True)
    # In place of this process, so that it and nothing else ends at Ctrl-C.
    program = [sys.executable, "-m", "tensorboard.main", "--logdir", folder, "--port", str(port), "--load_fast=false"]
    os.execv(sys.executable, program)
