"""Can this machine run the pipeline? Each check says what it found and, where that will not do, what to do about it.

Nothing here imports the libraries it judges: compiled ones are only loaded, in a process of their own.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

DISTRIBUTION = "tfx-recsys"
PORTS = (8500, 8501)  # TensorFlow Serving's gRPC and REST

_GIB = 1 << 30
_NEEDED_PYTHON = (3, 11)
_NEEDED_GLIBC = Version("2.38")  # what the wheels of TFDV 1.21 and ml-metadata 1.21 were linked against
_SET_UP = "run `make setup` in the project's folder; elsewhere, install the distribution anew"
_COMPILED = {
    "pyarrow": ("libarrow.so.*", "libarrow.*.dylib"),
    "tensorflow": ("libtensorflow_framework.*", "libtensorflow_cc.*"),
    "tfx_bsl": ("cc/*.so",),
    "tensorflow_data_validation": ("pywrap/*.so",),
    "ml_metadata": ("metadata_store/pywrap/*.so",),
}

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """What one check found. `warn` may slow or limit a run, `fail` stops it; both say what to do in `advice`."""

    name: str
    status: Status
    found: str
    advice: str = ""


def examine(folder: Path, ports: Iterable[int] = PORTS) -> Iterator[Finding]:
    """Check this machine and environment for runs that write below `folder`, and yield each finding as it is made."""
    yield python_version(sys.version_info[:3])
    yield glibc_version(platform.system(), _glibc())
    yield cores(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    yield memory(psutil.virtual_memory().available, _memory_limit())
    for name, place in (
        ("disk, runs", folder),
        ("disk, temporary", Path(tempfile.gettempdir())),
    ):
        yield disk(name, place)
    for port in ports:
        yield port_free(port)
    try:
        yield required_libraries(importlib.metadata.requires(DISTRIBUTION) or [], _installed_version)
    except importlib.metadata.PackageNotFoundError:
        yield Finding("libraries", "fail", f"{DISTRIBUTION} itself is not installed", _SET_UP)
    lock = Path(__file__).parents[1] / "uv.lock"
    if lock.exists():
        yield locked_libraries(tomllib.loads(lock.read_text(encoding="utf-8")), _installed_version)
    else:
        yield Finding("lock", "ok", "no uv.lock beside the program: only its own requirements were compared")
    yield from compiled_libraries(_COMPILED)


def python_version(version: tuple[int, int, int]) -> Finding:
    """TFX 1.21 with these versions is tried on one Python only."""
    found = ".".join(map(str, version))
    if version[:2] == _NEEDED_PYTHON:
        return Finding("Python", "ok", found)
    return Finding("Python", "fail", f"{found}, needed 3.11", "install Python 3.11, then `make setup`")


def glibc_version(system: str, version: str | None) -> Finding:
    """`version` is the C library's, None where it is not glibc."""
    if system == "Darwin":
        return Finding("C library", "ok", "macOS, which needs no glibc")
    if version is None:
        return Finding(
            "C library", "fail", "not glibc", "use a glibc Linux: Debian 13, Ubuntu 24.04, Fedora 40 or newer"
        )
    if Version(version) >= _NEEDED_GLIBC:
        return Finding("C library", "ok", f"glibc {version}")
    return Finding(
        "C library",
        "fail",
        f"glibc {version}, needed {_NEEDED_GLIBC}",
        "on Debian `make setup` puts a newer one beside the system's; else build deploy/pipeline.Dockerfile",
    )


def cores(count: int) -> Finding:
    """`count` is the cores this process may use."""
    if count >= 2:
        return Finding("cores", "ok", str(count))
    return Finding("cores", "warn", str(count), "it works, slowly; several local training workers will not")


def memory(available: int, limit: int | None) -> Finding:
    """`available` and the container's `limit`, where it has one, are in bytes."""
    usable = min(available, limit) if limit is not None else available
    found = f"{usable / _GIB:.1f} GiB available" + (" (container limit)" if usable != available else "")
    if usable >= 6 * _GIB:
        return Finding("memory", "ok", found)
    if usable >= 2 * _GIB:
        return Finding("memory", "warn", found, "6 GiB are comfortable; close programs or keep data and batches small")
    return Finding("memory", "fail", found, "free at least 2 GiB, or give the container more")


def disk(name: str, place: Path) -> Finding:
    """`place` need not exist yet: its nearest existing parent is looked at."""
    existing = next(p for p in (place.absolute(), *place.absolute().parents) if p.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        return Finding(name, "fail", f"{place}: cannot be written", "choose another folder, or change its permissions")
    free = shutil.disk_usage(existing).free
    found = f"{free / _GIB:.1f} GiB free in {place}"
    if free >= 5 * _GIB:
        return Finding(name, "ok", found)
    return Finding(
        name, "warn" if free >= _GIB else "fail", found, "free some space: a run keeps several copies of its data"
    )


def port_free(port: int) -> Finding:
    """A taken port is no hindrance to training, only to serving on it."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Else a port whose last connection ended a minute ago counts as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            advice = "end the server that listens on it, or serve on another port"
            return Finding(f"port {port}", "warn", error.strerror or "taken", advice)
    return Finding(f"port {port}", "ok", "free")


def required_libraries(requirements: Iterable[str], installed: Callable[[str], str | None]) -> Finding:
    """Hold what is installed against the distribution's own requirements."""
    wrong, count = [], 0
    for requirement in map(Requirement, requirements):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        count += 1
        version = installed(requirement.name)
        if version is None:
            wrong.append(f"{requirement.name} is missing")
        elif not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} {version}, needed {requirement.specifier}")
    if wrong:
        return Finding("libraries", "fail", "; ".join(wrong), _SET_UP)
    return Finding("libraries", "ok", f"all {count} required ones")


def locked_libraries(lock: Mapping[str, Any], installed: Callable[[str], str | None]) -> Finding:
    """Hold what is installed against a parsed uv.lock: what the distribution needs here, directly or through others."""
    packages: dict[str, list[Mapping[str, Any]]] = {}
    for package in lock["package"]:
        packages.setdefault(package["name"], []).append(package)
    missing, different = [], []
    needed = _closure(packages)
    for name in sorted(needed):
        version = installed(name)
        locked = [package["version"] for package in packages[name] if "version" in package]
        if version is None:
            missing.append(f"{name} is missing")
        elif locked and version not in locked:
            different.append(f"{name} {version}, locked {' or '.join(locked)}")
    if missing:
        return Finding("lock", "fail", "; ".join(missing + different), _SET_UP)
    if different:
        return Finding("lock", "warn", "; ".join(different), f"what was tested is in uv.lock: {_SET_UP}")
    return Finding("lock", "ok", f"all {len(needed)} as in uv.lock")


def compiled_libraries(globs: Mapping[str, Iterable[str]]) -> Iterator[Finding]:
    """Load each package's shared objects; `globs` maps a package to patterns in its folder."""
    files = {package: _shared_objects(package, patterns) for package, patterns in globs.items()}
    load = (
        "import ctypes, json, sys\n"
        "for path in sys.argv[1:]:\n"
        "    try: ctypes.CDLL(path); reason = ''\n"
        "    except OSError as error: reason = str(error)\n"
        "    print(json.dumps([path, reason]), flush=True)\n"
    )
    command = [sys.executable, "-c", load, *(str(file) for found in files.values() for file in found)]
    child = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    reasons = dict(json.loads(line) for line in child.stdout.splitlines() if line.startswith("["))
    for package, found in files.items():
        name = f"loading {package}"
        if not found:
            yield Finding(name, "fail", "its compiled part is not installed", _SET_UP)
            continue
        # A file without an answer is where the process ended.
        bad = [reason for file in found if (reason := reasons.get(str(file), "loading it ended the process"))]
        if bad:
            advice = "its wheel needs newer system libraries" if "GLIBC" in bad[0] or "CXXABI" in bad[0] else _SET_UP
            yield Finding(name, "fail", bad[0], advice)
        else:
            yield Finding(name, "ok", "works")


def _shared_objects(package: str, patterns: Iterable[str]) -> list[Path]:
    spec = importlib.util.find_spec(package)  # finding a top-level package does not import it
    folders = spec.submodule_search_locations if spec else None
    return sorted(file for folder in folders or () for pattern in patterns for file in Path(folder).glob(pattern))


def _closure(packages: Mapping[str, list[Mapping[str, Any]]]) -> set[str]:
    needed: set[tuple[str, str]] = set()
    waiting = [(DISTRIBUTION, "")]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in needed:
            continue
        needed.add((name, extra))
        for package in packages.get(name, ()):
            wanted = (
                package.get("optional-dependencies", {}).get(extra, ()) if extra else package.get("dependencies", ())
            )
            for dependency in wanted:
                if "marker" not in dependency or Marker(dependency["marker"]).evaluate({"extra": ""}):
                    waiting += [(dependency["name"], e) for e in ("", *dependency.get("extra", ()))]
    return {name for name, _ in needed} - {DISTRIBUTION}


def _installed_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(canonicalize_name(name))
    except importlib.metadata.PackageNotFoundError:
        return None


def _glibc() -> str | None:
    try:
        name, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").split()
    except (ValueError, OSError, AttributeError):  # another C library, or none that answers
        return None
    return version if name == "glibc" else None


def _memory_limit() -> int | None:
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            return int(Path(file).read_text())
        except (OSError, ValueError):  # no such cgroup, or "max"
            continue
    return None
