"""The versions in a model folder, and what each was pushed with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tensorflow.core.protobuf import saved_model_pb2

from serving.server.source import versions_on_disk
from serving.server.status import ServingError

MANIFEST_FILE = "manifest.json"


def versions(folder: str | Path) -> dict[int, Path]:
    """Return the versions that a model server sees in a folder, by number, oldest first; none where it is missing."""
    try:
        return dict(sorted(versions_on_disk(str(folder)).items()))
    except ServingError:
        return {}


def manifest_path(version: Path) -> Path:
    """Return where a version says what it was pushed with."""
    return version / "assets.extra" / MANIFEST_FILE


def manifest_of(version: Path) -> dict[str, Any]:
    """Return what a version was pushed with; nothing for one that somebody else put there."""
    try:
        manifest = json.loads(manifest_path(version).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def signatures_of(version: Path) -> set[str]:
    """Return the signatures of a version's SavedModel."""
    saved = saved_model_pb2.SavedModel.FromString((version / "saved_model.pb").read_bytes())
    return {name for graph in saved.meta_graphs for name in graph.signature_def if not name.startswith("__")}


def artifacts_of(version: Path) -> dict[str, str]:
    """Return the artifacts that a version was made of: what each is, and where it lies."""
    artifacts = manifest_of(version).get("artifacts")
    return artifacts if isinstance(artifacts, dict) else {}
