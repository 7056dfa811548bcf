"""Which versions of a model the file system and the version policy ask for."""

from __future__ import annotations

import pathlib
from typing import Any

from serving.server.status import Code, ServingError


def versions_on_disk(base_path: str) -> dict[int, pathlib.Path]:
    """Version number to folder. Names that are not numbers are other people's; of `1` and `001` one wins.

    Raises NOT_FOUND where the base path is missing, which says nothing about what should be served.
    """
    base = pathlib.Path(base_path)
    try:
        children = sorted(base.iterdir())
    except OSError as error:
        raise ServingError(
            Code.NOT_FOUND, f"Could not find base path {base_path}: {error.strerror or error}"
        ) from error
    return {
        int(child.name): child
        for child in children
        if child.name.isascii() and child.name.isdigit() and len(child.name) < 19 and child.is_dir()
    }


def aspired_versions(policy: Any, on_disk: dict[int, pathlib.Path]) -> dict[int, pathlib.Path]:
    """The versions that `policy` (a ServableVersionPolicy) wants of those on disk; the latest one by default."""
    choice = policy.WhichOneof("policy_choice")
    if choice == "all":
        wanted = set(on_disk)
    elif choice == "specific":
        wanted = set(policy.specific.versions)
    else:
        count = policy.latest.num_versions if choice == "latest" and policy.latest.num_versions else 1
        wanted = set(sorted(on_disk)[-count:])
    return {version: on_disk[version] for version in sorted(wanted & set(on_disk))}
