"""What commands share: the config with its overrides, a log for what libraries print, and the terminal for people."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from configs import load_config
from pipeline.quiet import quiet

if TYPE_CHECKING:
    from rich.console import Console

    from configs import Config

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="The recommender's YAML file.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override a value of the config.")
]


@contextmanager
def command(config: Path, overrides: Iterable[str] | None, name: str) -> Iterator[tuple[Config, IO[str]]]:
    """Yield a config and the terminal while all else that is printed goes to the command's log. Raises ConfigError."""
    settings = load_config(config, overrides or [])
    with quiet(f"{settings.runs_folder}/logs/{name}.log") as terminal:
        yield settings, terminal


@contextmanager
def logged(settings: Config, name: str = "") -> Iterator[tuple[str, IO[str]]]:
    """Yield a log of this call's own, by its time, and the terminal while all else that is printed goes to the log."""
    log = f"{settings.runs_folder}/logs/{name}{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}.log"
    with quiet(log) as terminal:
        yield log, terminal


def console_on(terminal: IO[str], silent: bool = False) -> Console:
    """Return a console on the terminal; lines are not wrapped where it is a file or a pipe."""
    from rich.console import Console

    return Console(file=terminal, highlight=False, soft_wrap=not terminal.isatty(), quiet=silent)
