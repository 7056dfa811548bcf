"""What every part of the config shares: strictness, and errors that name a place."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0.0, le=1.0)]
ColumnName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.]*$", max_length=200)]


class ConfigError(Exception):
    """The config, or what the command line set in it, is wrong. The message names file, key path and expectation."""


class Section(BaseModel):
    """A part of the config. Unknown keys are refused, values never change after reading."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, populate_by_name=True, protected_namespaces=(), allow_inf_nan=False
    )


def resolve(folder: Path, path: str) -> str:
    """Return `path` as it is if it names a remote file system, else made absolute from `folder`."""
    return path if "://" in path else os.path.normpath(os.path.join(folder.absolute(), path))


def check_mounted(path: str) -> str:
    """Return `path`; raise ValueError where it names a remote file system."""
    if "://" in path:
        raise ValueError(
            f"expected a local or mounted folder, got {path}. Versions and locks need a file system with rename; "
            "mount the bucket, or use a shared volume"
        )
    return path


def digest(*parts: Any) -> str:
    """Return a short digest of config sections or JSON values: equal when everything in them is equal."""
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()[:16]


def canonical_json(value: Any) -> str:
    """Return the one JSON text of config sections, containers of them, and JSON values."""
    return json.dumps(value, sort_keys=True, default=lambda section: section.model_dump(mode="json", by_alias=True))
