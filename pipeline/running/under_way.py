"""How far the run under way is, in a file that others may read at any time."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from typing import Any

from components.outcomes import NodeState

_FILE = "under_way.json"


class UnderWay:
    """What a run tells of itself while it goes on. Each change replaces the file whole."""

    def __init__(self, folder: str, run: str, nodes: Sequence[str]):
        self._path = f"{folder}/{_FILE}"
        now = time.time()
        self._said: dict[str, Any] = {
            "run": run,
            "began": now,
            "nodes": [{"node": node, "state": NodeState.WAITING, "seconds": None} for node in nodes],
            "line": "",
        }
        self._write()

    def node(self, node: str, state: str, seconds: float | None = None) -> None:
        """Tell how a node is doing; `seconds` once it has ended."""
        for entry in self._said["nodes"]:
            if entry["node"] == node:
                entry |= {"state": state, "seconds": seconds, "at": time.time()}
        self._said["line"] = ""
        self._write()

    def line(self, line: str) -> None:
        """Tell what the node under way has just said."""
        self._said["line"] = line
        self._write()

    def over(self) -> None:
        """Remove the file."""
        if os.path.exists(self._path):
            os.remove(self._path)

    def _write(self) -> None:
        with open(f"{self._path}.partial", "w", encoding="utf-8") as stream:
            json.dump(self._said, stream)
        os.replace(f"{self._path}.partial", self._path)


def read(folder: str) -> dict[str, Any] | None:
    """Return what the run under way tells; None where there is none. A run that was killed leaves its last word."""
    try:
        with open(f"{folder}/{_FILE}", encoding="utf-8") as stream:
            return json.load(stream)
    except (FileNotFoundError, ValueError):
        return None
