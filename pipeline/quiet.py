"""Keeping the terminal for what people read."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import IO


@contextmanager
def quiet(log: str | None) -> Iterator[IO[str]]:
    """Send all that libraries print, in Python and in C++, to the file `log`; yield the terminal's standard output.

    Without a log it goes to standard error, for callers that keep that themselves, and standard output stays ours.
    """
    if log is not None:
        os.makedirs(os.path.dirname(log), exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    terminal = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8", errors="replace")
    target = log if log is not None else os.dup(2)
    with open(target, "a", buffering=1, encoding="utf-8", errors="replace") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
        logging.basicConfig(
            level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s", stream=stream, force=True
        )
        try:
            with redirect_stdout(stream), redirect_stderr(stream):
                yield terminal
        finally:
            terminal.close()
            logging.basicConfig(level=logging.WARNING, force=True)
            os.dup2(saved[0], 1)
            os.dup2(saved[1], 2)
            for descriptor in saved:
                os.close(descriptor)
