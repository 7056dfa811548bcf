"""Release management above a model server: which version is `stable`, which is `canary`, who said so and why.

The state is the ModelServerConfig file that the server itself reads, so it survives every restart, and a
`<file>.routes.json` beside it for what a server has no word for: the share of the canary. Both are replaced by one
rename. Every change goes to `<file>.audit.jsonl` with who, when, from, to and why.

A label may only name a version that is loaded, or a server that restarts refuses the whole file. So labels move in two
steps: first the version is added to those served, labels untouched, and the server is waited for; then the label moves.
If the server cannot load the version, the file is put back. The last stable version stays loaded, so that a rollback is
one move of a label.
"""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import os
import pathlib
import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any

from configs import Config
from serving.release_state import (
    CANARY,
    STABLE,
    Change,
    Route,
    Standing,
    append_change,
    parse_server_config,
    read_history,
    read_route,
    read_server_config,
    replace_file,
    summary,
    write_route,
)
from serving.server.status import Code, ServingError

RELOAD_TIMEOUT_SECONDS = 300.0


Apply = Callable[[Any], None]
"""Makes a running server serve a ModelServerConfig and returns when it does; raises ServingError."""


class Release:
    """The releases of the models in one ModelServerConfig file."""

    def __init__(
        self,
        config_file: str | pathlib.Path,
        model: str,
        *,
        base_path: str | None = None,
        apply: Apply | None = None,
        who: str | None = None,
    ):
        """`apply` tells a running server at once (see `reload_by_rpc`); without it, servers poll the file.

        With `base_path`, a model that the file does not have yet (or no file at all) is entered by the first change.
        """
        self.config_file = pathlib.Path(config_file)
        self.routes_file = self.config_file.with_name(self.config_file.name + ".routes.json")
        self.audit_file = self.config_file.with_name(self.config_file.name + ".audit.jsonl")
        self.model = model
        self._base_path = base_path
        self._apply = apply
        self._who = who or _user()

    @classmethod
    def of(cls, config: Config) -> Release:
        """The release of a recommender, as its config says."""
        server = config.serving.server
        return cls(
            config.release_file,
            config.model_name,
            base_path=config.model_folder,
            apply=reload_by_rpc(server) if server else None,
        )

    def enter(self) -> None:
        """Write the model into the file if it is not there yet; it then follows the newest version."""
        from google.protobuf import text_format

        with self._locked():
            config, _ = self._read()
            text = text_format.MessageToString(config)
            if not self.config_file.exists() or read_server_config(self.config_file) != config:
                replace_file(self.config_file, text)

    def standing(self) -> Standing:
        """What the files say, without asking a server."""
        return self._standing(self._read()[1])

    def labels(self) -> dict[str, int]:
        """The labels that are given out, without looking at the versions on disk; empty before the first promotion."""
        return dict(self._read()[1].version_labels)

    def canary(
        self, percent: float, *, version: int | None = None, shadow_percent: float = 0.0, why: str = ""
    ) -> Standing:
        """Give `percent` of users version `version` (the newest on disk by default) beside the stable one."""
        if not 0 <= percent <= 100 or not 0 <= shadow_percent <= 100:
            raise _usage(f"a canary's share is between 0 and 100 percent; got {percent} and {shadow_percent}")
        with self._change("canary", why) as (config, entry):
            before = self._standing(entry)
            chosen = self._on_disk(entry, version)
            stable = before.labels.get(STABLE)
            if stable is None:
                raise _usage(f"model {self.model!r} has no stable version yet: promote one first")
            if chosen == stable:
                raise _usage(f"version {chosen} is the stable one; there is nothing to compare it with")
            # A larger share of a running canary keeps its users; another start of it is another experiment.
            running = before.labels.get(CANARY) == chosen
            salt = before.route.salt if running else f"{chosen}.{secrets.token_hex(16)}"
            self._move(config, entry, {STABLE: stable, CANARY: chosen}, keep=[stable])
            self._write_route(Route(percent, shadow_percent, salt))
        return self.standing()

    def promote(self, version: int | None = None, *, why: str = "") -> Standing:
        """Make `version` (the canary, or else the newest on disk) the stable one; all traffic goes to it.

        A version that was rolled back is promoted only where it is named.
        """
        with self._change("promote", why) as (config, entry):
            before = self._standing(entry)
            chosen = self._on_disk(entry, before.labels.get(CANARY) if version is None else version)
            undone = self._rolled_back(chosen)
            if version is None and undone:
                raise _usage(
                    f"version {chosen} was rolled back at {undone.time} by {undone.who} "
                    f"({undone.why or 'no reason given'}); name it to promote it all the same"
                )
            last = before.labels.get(STABLE)
            # Traffic leaves the canary label before the label goes.
            self._write_route(Route())
            self._move(config, entry, {STABLE: chosen}, keep=[last] if last not in (None, chosen) else [])
        return self.standing()

    def rollback(self, *, canary: int | None = None, why: str = "") -> Standing:
        """End a running canary; without one, make the version that was stable before this one stable again.

        With `canary`, only that one is ended: INVALID_ARGUMENT where it is no longer the canary.
        """
        with self._change("rollback", why) as (config, entry):
            before = self._standing(entry)
            stable = before.labels.get(STABLE)
            if canary is not None and before.labels.get(CANARY) != canary:
                raise _usage(f"version {canary} of model {self.model!r} is no canary any more")
            self._write_route(Route())
            if CANARY in before.labels:
                assert stable is not None
                self._move(config, entry, {STABLE: stable}, keep=self._earlier(stable, entry)[:1])
            else:
                earlier = self._earlier(stable, entry)
                if not earlier:
                    raise _usage(f"model {self.model!r} has no earlier stable version on disk to go back to")
                self._move(config, entry, {STABLE: earlier[0]}, keep=[stable] if stable is not None else [])
        return self.standing()

    def pin(self, version: int, *, why: str = "") -> Standing:
        """Serve `version` and nothing else, whatever appears on disk."""
        with self._change("pin", why) as (config, entry):
            chosen = self._on_disk(entry, version)
            self._write_route(Route())
            self._move(config, entry, {STABLE: chosen}, keep=[])
        return self.standing()

    def history(self) -> list[Change]:
        """Every change of this model, oldest first."""
        return read_history(self.audit_file, self.model)

    # The two steps

    def _move(self, config: Any, entry: Any, labels: dict[str, int], keep: list[int]) -> None:
        """Load what `labels` name beside what is labelled now, then move the labels, then let the rest go."""
        original = self.config_file.read_text() if self.config_file.exists() else None
        wanted = sorted({*labels.values(), *keep})
        present = set(entry.version_labels.values())
        try:
            # An unlabelled server follows the newest version; from here on it serves what it is told.
            self._serve(entry, sorted({*wanted, *present}))
            self._take_over(config)
            entry.version_labels.clear()
            entry.version_labels.update(labels)
            self._take_over(config)
        except ServingError:
            if original is None:
                self.config_file.unlink(missing_ok=True)
            else:
                replace_file(self.config_file, original)
            with contextlib.suppress(ServingError):
                if self._apply and original is not None:
                    self._apply(parse_server_config(original, self.config_file))
            raise
        self._serve(entry, wanted)
        self._take_over(config)

    @staticmethod
    def _serve(entry: Any, versions: list[int]) -> None:
        entry.model_version_policy.Clear()
        entry.model_version_policy.specific.versions.extend(versions)

    def _take_over(self, config: Any) -> None:
        from google.protobuf import text_format

        replace_file(self.config_file, text_format.MessageToString(config))
        if self._apply:
            self._apply(config)

    # Files

    @contextlib.contextmanager
    def _change(self, action: str, why: str) -> Iterator[tuple[Any, Any]]:
        """A change, which goes to the audit log."""
        with self._locked():
            config, entry = self._read()
            before = self._standing(entry)
            route = before.route
            try:
                yield config, entry
            except ServingError:
                self._write_route(route)
                raise
            after = self.standing()
            change = Change(
                time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                who=self._who,
                model=self.model,
                action=action,
                before=summary(before),
                after=summary(after),
                why=why,
            )
            append_change(self.audit_file, change)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One change at a time, whoever makes it."""
        self.config_file.parent.mkdir(parents=True, exist_ok=True)
        with (self.config_file.with_name(self.config_file.name + ".lock")).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _read(self) -> tuple[Any, Any]:
        config = read_server_config(self.config_file)
        for entry in config.model_config_list.config:
            if entry.name == self.model:
                return config, entry
        if self._base_path is not None:
            entry = config.model_config_list.config.add(
                name=self.model, base_path=self._base_path, model_platform="tensorflow"
            )
            return config, entry
        names = [entry.name for entry in config.model_config_list.config]
        raise _usage(f"{self.config_file} has no model {self.model!r}; it has {names}")

    def _standing(self, entry: Any) -> Standing:
        return Standing(
            model=self.model,
            labels=dict(entry.version_labels),
            versions=list(entry.model_version_policy.specific.versions),
            on_disk=_on_disk(entry),
            route=read_route(self.routes_file, self.model),
        )

    def _on_disk(self, entry: Any, version: int | None) -> int:
        found = _on_disk(entry)
        if not found:
            raise _usage(f"no version of model {self.model!r} under {entry.base_path}")
        if version is None:
            return found[-1]
        if version not in found:
            raise _usage(f"version {version} of model {self.model!r} is not under {entry.base_path}; it has {found}")
        return version

    def _rolled_back(self, version: int) -> Change | None:
        """The change that took `version` back, if it has not been promoted or made a canary since."""
        for change in reversed(self.history()):
            if version in change.after["labels"].values():
                return None
            if change.action == "rollback" and version in change.before["labels"].values():
                return change
        return None

    def _earlier(self, stable: int | None, entry: Any) -> list[int]:
        """Versions that were stable before, latest first, still on disk."""
        found = _on_disk(entry)
        past: list[int] = []
        for change in reversed(self.history()):
            version = change.before["labels"].get(STABLE)
            if version is not None and version != stable and version in found and version not in past:
                past.append(version)
        return past

    def _write_route(self, route: Route) -> None:
        write_route(self.routes_file, self.model, route)


def reload_by_rpc(target: str, timeout: float = RELOAD_TIMEOUT_SECONDS) -> Apply:
    """An `apply` for a server (TensorFlow Serving or ours) at host:port or unix:/socket."""

    def apply(config: Any) -> None:
        import grpc
        from tensorflow_serving.apis import model_management_pb2, model_service_pb2_grpc

        with grpc.insecure_channel(target) as channel:
            stub = model_service_pb2_grpc.ModelServiceStub(channel)
            try:
                response = stub.HandleReloadConfigRequest(
                    model_management_pb2.ReloadConfigRequest(config=config), timeout=timeout
                )
            except grpc.RpcError as error:
                raise ServingError(error.code(), f"{target} did not take the config over: {error.details()}") from error
        if response.status.error_code:
            raise ServingError(Code.UNKNOWN, f"{target} did not take the config over: {response.status.error_message}")

    return apply


def _on_disk(entry: Any) -> list[int]:
    from serving.server.source import versions_on_disk

    try:
        return sorted(versions_on_disk(entry.base_path))
    except ServingError:
        return []


def _usage(message: str) -> ServingError:
    return ServingError(Code.INVALID_ARGUMENT, message)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
