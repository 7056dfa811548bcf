"""What a release keeps in files: the server's config, the split of the traffic, the audit log.

Every file is replaced by one rename or grows by whole lines, so that whoever reads one sees a whole state.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import tempfile
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from serving.server.status import Code, ServingError

_WITHOUT_ROUTES = "mend or delete it (without it, all traffic goes to the stable version)"
STABLE = "stable"
CANARY = "canary"


@dataclass(frozen=True)
class Change:
    """One line of the audit log."""

    time: str
    who: str
    model: str
    action: str
    before: dict[str, Any]
    after: dict[str, Any]
    why: str


Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]


@dataclass(frozen=True)
class Route:
    """How a model's traffic is split: the canary's share of users, and of requests copied to it unseen.

    `salt` goes into the hash that gives a user his arm. It is random, so that nobody who talks to the router can work
    out which users are the canary's.
    """

    canary_percent: Percent = 0.0
    shadow_percent: Percent = 0.0
    salt: str = "0"


@dataclass(frozen=True)
class Standing:
    """Where a model stands."""

    model: str
    labels: dict[str, int]
    versions: list[int]
    on_disk: list[int]
    route: Route
    states: dict[int, str] = field(default_factory=dict)


def read_route(file: pathlib.Path, model: str) -> Route:
    """The split of a model's traffic; all to the stable version where the file says nothing.

    Raises ServingError (INVALID_ARGUMENT) naming file and key where the file is not what `write_route` writes.
    """
    try:
        return TypeAdapter(Route).validate_python(_read_routes(file).get(model, {}))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, (model, *first["loc"])))
        raise _unreadable(f"{file}: {key}: {first['msg']}; {_WITHOUT_ROUTES}") from error


def write_route(file: pathlib.Path, model: str, route: Route) -> None:
    """Set a model's split; what the file says of other models stays."""
    routes = _read_routes(file)
    routes[model] = asdict(route)
    replace_file(file, json.dumps(routes, indent=2) + "\n")


def _read_routes(file: pathlib.Path) -> dict[str, Any]:
    try:
        routes = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise _unreadable(f"{file}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise _unreadable(f"{file}: not JSON: {error}; {_WITHOUT_ROUTES}") from error
    if not isinstance(routes, dict):
        raise _unreadable(f"{file}: not a JSON object of models; {_WITHOUT_ROUTES}")
    return routes


def parse_server_config(text: str, file: pathlib.Path) -> Any:
    """A ModelServerConfig from its text form; ServingError (INVALID_ARGUMENT) naming `file` where it is none."""
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    try:
        return text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    except text_format.ParseError as error:
        raise _unreadable(f"{file}: not a ModelServerConfig: {error}") from error


def read_server_config(file: pathlib.Path) -> Any:
    """The ModelServerConfig in `file`, empty where there is no file."""
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        text = ""
    except OSError as error:
        raise _unreadable(f"{file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise _unreadable(f"{file}: not a ModelServerConfig: {error}") from error
    return parse_server_config(text, file)


def read_history(file: pathlib.Path, model: str) -> list[Change]:
    """Every change of a model, oldest first. A line that a crash cut short is passed over."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    changes = []
    for line in lines:
        with contextlib.suppress(ValueError, TypeError, RecursionError):
            changes.append(Change(**json.loads(line)))
    return [change for change in changes if change.model == model]


def append_change(file: pathlib.Path, change: Change) -> None:
    """Add a line to the audit log; it is on the disk when this returns."""
    with file.open("a+b") as log:
        if log.tell() and (log.seek(-1, os.SEEK_END), log.read(1))[1] != b"\n":
            log.write(b"\n")  # a crash cut the last line short; it must not spoil this one
        log.write(json.dumps(asdict(change)).encode() + b"\n")
        log.flush()
        os.fsync(log.fileno())


def replace_file(file: pathlib.Path, text: str) -> None:
    """Whoever reads `file` sees the old text or the new, also after a power cut."""
    with tempfile.NamedTemporaryFile("w", dir=file.parent, prefix=f".{file.name}.", delete=False) as new:
        new.write(text)
        new.flush()
        os.fsync(new.fileno())
    if file.exists():
        os.chmod(new.name, file.stat().st_mode & 0o777)
    else:
        os.chmod(new.name, 0o644)
    os.replace(new.name, file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def summary(standing: Standing) -> dict[str, Any]:
    """What the audit log keeps of a standing."""
    return {
        "labels": standing.labels,
        "canary_percent": standing.route.canary_percent,
        "shadow_percent": standing.route.shadow_percent,
    }


def _unreadable(message: str) -> ServingError:
    return ServingError(Code.INVALID_ARGUMENT, message)
