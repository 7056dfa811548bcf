"""The training's history as the page shows it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from models.training.history import HISTORY_FILE


def history(folder: str, train_rows: int | None) -> dict[str, Any]:
    """Return epochs with examples a second, the best epoch, and the workers and tables that training wrote down.

    `workers` and `tables` are None where the training recorded none.
    """
    with open(os.path.join(folder, HISTORY_FILE), encoding="utf-8") as stream:
        found: Mapping[str, Any] = json.load(stream)
    epochs = [
        {**epoch, "examples_per_second": _rate(train_rows, epoch.get("seconds"))} for epoch in found.get("epochs", [])
    ]
    return {
        **{key: found.get(key) for key in ("model", "seed", "seconds", "best_epoch", "parameters")},
        "epochs": epochs,
        "workers": found.get("workers"),
        "tables": found.get("tables"),
    }


def _rate(rows: int | None, seconds: float | None) -> float | None:
    return rows / seconds if rows and seconds else None
