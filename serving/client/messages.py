"""What callers of a client see, and what it sends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Features = Sequence[Mapping[str, Any]] | Mapping[str, Any]

DEFAULT_TIMEOUT_SECONDS = 10.0
DEFAULT_RETRIES = 4
DEFAULT_SIGNATURE = "serving_default"
RANK_SIGNATURE = "rank"


@dataclass(frozen=True)
class Prediction:
    """A model's answer: its outputs by name, and who gave it (REST does not tell the version: None)."""

    outputs: dict[str, np.ndarray]
    model: str
    signature: str
    version: int | None = None


@dataclass(frozen=True)
class VersionStatus:
    """One version of a model as the server sees it, such as AVAILABLE or LOADING."""

    version: int
    state: str
    error: str = ""


@dataclass(frozen=True)
class Which:
    """A model and, where not the latest, the version by number or by label."""

    model: str
    version: int | None = None
    label: str | None = None


@dataclass(frozen=True)
class TensorTypes:
    """A signature's element types: input and output names to DataType numbers."""

    inputs: dict[str, int]
    outputs: dict[str, int]


@dataclass(frozen=True)
class Send:
    """One message to the server, and how long its answer may take."""

    method: str
    path: str
    body: bytes
    timeout: float


@dataclass(frozen=True)
class Sleep:
    """A pause before the next try."""

    seconds: float
