"""Who may work in a runs folder: one whole run, or nodes that keep out of each other's way.

The locks are the kernel's: they cannot be left behind, however a process dies.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO


class BusyError(Exception):
    """Another run is under way in the same folder."""


@contextmanager
def whole_folder(folder: str) -> Iterator[None]:
    """Hold the folder alone. Raises BusyError at once where anything else works in it."""
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/.lock", "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(
                f"{folder}: another run is under way (process {_holder(lock)}). Wait for it, or stop it."
            ) from None
        _sign(lock)
        yield


@contextmanager
def one_node(folder: str, node: str, alone: bool, waiting: Callable[[str], None]) -> Iterator[None]:
    """Hold a node of the folder, and with `alone` the folder as well; wait for whoever holds them.

    Waiting is what makes a second call safe while the first still runs, as when an orchestrator lost sight of it.
    """
    os.makedirs(f"{folder}/.nodes", exist_ok=True)
    with open(f"{folder}/.lock", "a+") as lock, open(f"{folder}/.nodes/{node}", "a+") as own:
        for file, mode in ((lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH), (own, fcntl.LOCK_EX)):
            try:
                fcntl.flock(file, mode | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting(f"waiting for process {_holder(file)}, which works in {folder}")
                fcntl.flock(file, mode)
        if alone:
            _sign(lock)
        _sign(own)
        yield


def _holder(lock: IO[str]) -> str:
    lock.seek(0)
    return lock.read().strip() or "unknown"


def _sign(lock: IO[str]) -> None:
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
