"""Who may change what is served by RPC, and to what.

HandleReloadConfigRequest can unload every model, load any folder, and write clients' requests to any file. TensorFlow
Serving takes it from whoever reaches its port. Here, where a config file says what is served, a request may only ask
for what the file says now: whoever changes the file can have it read at once, and a stranger changes nothing. Without
a file it is taken from this machine alone. An address of its own (--model_control_address) is for operators. Whatever
is no copy of the file must name folders that the operator allowed.
"""

from __future__ import annotations

import ipaddress
import os
import urllib.parse
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from serving.server.status import Code, ServingError, invalid_argument


class From(StrEnum):
    """Whose requests the serving address takes."""

    AUTO = "auto"
    NOBODY = "nobody"
    FILE = "file"
    LOOPBACK = "loopback"
    ANYBODY = "anybody"


@dataclass(frozen=True)
class ModelControl:
    """The operator's rules; `paths` are the folders that models and request logs may lie under."""

    taken_from: From = From.NOBODY
    paths: tuple[str, ...] = ()
    read_file: Callable[[], Any] | None = None

    @classmethod
    def of(cls, asked: str, paths: str, config: Any, read_file: Callable[[], Any] | None) -> ModelControl:
        """From the flags and the config that the server starts with; `read_file` reads the config file, if any.

        Raises INVALID_ARGUMENT for an unknown word.
        """
        try:
            taken_from = From(asked)
        except ValueError:
            raise invalid_argument(f"--model_control_from must be one of {', '.join(From)}; got {asked!r}") from None
        if taken_from is From.AUTO:
            taken_from = From.FILE if read_file else From.LOOPBACK
        found = tuple(filter(None, paths.split(","))) or tuple(sorted(set(_folders(config))))
        return cls(taken_from, found, read_file)

    def check(self, config: Any, peer: str, *, own_address: bool = False) -> None:
        """PERMISSION_DENIED where `peer` (as gRPC names it) may not ask for `config` (a ModelServerConfig)."""
        if self.read_file is not None and self.taken_from is not From.NOBODY and config == self.read_file():
            return
        if not own_address:
            if self.taken_from is From.FILE:
                raise _denied(
                    "This server serves what its --model_config_file says, and the request asks for something else: "
                    "change the file, or see --model_control_address"
                )
            if self.taken_from is From.NOBODY:
                raise _denied("This address takes no configuration: see --model_control_address")
            if self.taken_from is From.LOOPBACK and not is_local(peer):
                raise _denied("Configuration is taken from the server's own machine only: see --model_control_address")
            if self.taken_from is not From.ANYBODY and not config.model_config_list.config:
                raise _denied("A list without models would unload all of them: see --model_control_address")

    def check_paths(self, config: Any) -> None:
        """PERMISSION_DENIED where `config` puts models or request logs where the operator did not allow it."""
        if self.read_file is not None and config == self.read_file():
            return
        for each in config.model_config_list.config:
            self._check_path(each.base_path, f"base_path of model {each.name}")
            prefix = each.logging_config.log_collector_config.filename_prefix
            if prefix:
                self._check_path(prefix, f"filename_prefix of model {each.name}")

    def _check_path(self, path: str, what: str) -> None:
        if "\0" in path:
            raise invalid_argument(f"{what} has a null byte")
        if "*" in self.paths:
            return
        place = _real(path)
        if not any(place == folder or place.startswith(folder.rstrip("/") + "/") for folder in map(_real, self.paths)):
            raise _denied(f"{what} is {path!r}, which is not under a folder that --model_control_paths allows")


def is_local(peer: str) -> bool:
    """Whether gRPC's name of a peer is of this machine: a loopback address or a UNIX socket."""
    kind, _, rest = peer.partition(":")
    if kind == "unix":
        return True
    host = urllib.parse.unquote(rest).rpartition(":")[0].strip("[]")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _folders(config: Any) -> Iterable[str]:
    """Where the models of the first config lie, beside each other, and their request logs."""
    for each in config.model_config_list.config:
        yield os.path.dirname(each.base_path.rstrip("/"))
        prefix = each.logging_config.log_collector_config.filename_prefix
        if prefix:
            yield os.path.dirname(prefix)


def _real(path: str) -> str:
    if "://" in path:
        scheme, _, rest = path.partition("://")
        return f"{scheme}://{os.path.normpath(rest)}"
    return os.path.realpath(path)


def _denied(message: str) -> ServingError:
    return ServingError(Code.PERMISSION_DENIED, message)
