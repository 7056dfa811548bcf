"""Models, their versions and labels: what is loaded, what is being loaded, and who answers a ModelSpec.

All state belongs to the event loop's thread. Loading and freeing happen on threads of their own; a version becomes
visible by one assignment after it is loaded and warm, and is freed when the last request that holds it has ended.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import logging
import pathlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from serving.server import memory, source
from serving.server.batching import BatchingParameters, BatchQueue, Runtime
from serving.server.metrics import ServerMetrics
from serving.server.saved_model import SavedModelBundle, Signature
from serving.server.status import Code, ServingError, from_exception, invalid_argument

log = logging.getLogger(__name__)

PLATFORM = "tensorflow"
ENDED_VERSIONS_KEPT = 50


@dataclass(frozen=True)
class ServerCoreOptions:
    """What of the server's flags concerns models."""

    file_system_poll_wait_seconds: float = 1
    max_num_load_retries: int = 5
    load_retry_interval_seconds: float = 60
    num_load_threads: int = 0
    allow_version_labels_for_unavailable_models: bool = False
    batching: BatchingParameters | None = None
    session_threads: int = 4


class Servable:
    """One version of a model: its state as GetModelStatus tells it, and once available the loaded SavedModel."""

    def __init__(self, model: str, version: int, path: pathlib.Path):
        from tensorflow_serving.apis import get_model_status_pb2

        self.model = model
        self.version = version
        self.path = path
        self.states = get_model_status_pb2.ModelVersionStatus
        self.state: int = self.states.START
        self.error: ServingError | None = None
        self.bundle: SavedModelBundle | None = None
        self.specs: dict[str, bytes] = {}  # signature name -> the serialized ModelSpec of every answer
        self.queues: dict[str, BatchQueue] = {}
        self.aspired = True
        self.loading: asyncio.Task[None] | None = None
        self._holders = 0
        self._idle: asyncio.Event | None = None

    @property
    def available(self) -> bool:
        """Whether requests may have it."""
        return self.state == self.states.AVAILABLE

    def __enter__(self) -> Servable:
        self._holders += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._holders -= 1
        if not self._holders and self._idle:
            self._idle.set()

    async def drained(self) -> None:
        """Return once no request holds this version."""
        if self._holders:
            self._idle = asyncio.Event()
            await self._idle.wait()


@dataclass
class Model:
    """A configured model and the versions of it that are known."""

    config: Any
    servables: dict[int, Servable] = field(default_factory=dict)
    ended: dict[int, Servable] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    latest: Servable | None = None
    removed: bool = False

    def end(self, servable: Servable) -> None:
        """Keep the state of a version that is gone, for GetModelStatus; only so many are remembered."""
        self.ended[servable.version] = servable
        while len(self.ended) > ENDED_VERSIONS_KEPT:
            del self.ended[min(self.ended)]

    def refresh_latest(self) -> None:
        """Note which version answers requests that name none."""
        available = [servable for servable in self.servables.values() if servable.available]
        self.latest = max(available, key=lambda servable: servable.version, default=None)


Loader = Callable[[pathlib.Path, str], SavedModelBundle]


class ServerCore:
    """Keeps the configured models served."""

    def __init__(self, options: ServerCoreOptions, load: Loader, metrics: ServerMetrics):
        """`load(path, model name)` loads and warms one version; it is called on a loader thread."""
        self.options = options
        self.metrics = metrics
        self.runtime = Runtime(options.session_threads)
        self.models: dict[str, Model] = {}
        self.config: Any = None
        self._load = load
        self._loaders = concurrent.futures.ThreadPoolExecutor(
            options.num_load_threads or 1, thread_name_prefix="load-servable"
        )
        self._pollers = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="poll-file-system")
        self._changed = asyncio.Condition()
        self._reloads = 0
        self._asked: Any = None  # the latest config that was to be served, whether or not it is by now
        self._background: set[asyncio.Task[Any]] = set()
        self._poll: asyncio.Task[None] | None = None

    # Requests

    def servable(self, spec: Any) -> Servable:
        """The available version that `spec` (a ModelSpec) means; the caller holds it with `with`."""
        name = spec.name
        if not name:
            raise invalid_argument("ModelSpec has no name specified.")
        choice = spec.WhichOneof("version_choice")
        model = self.models.get(name)
        if choice is None:
            if model is None or model.latest is None:
                raise ServingError(Code.NOT_FOUND, f"Servable not found for request: Latest({name})")
            return model.latest
        version = self.labelled(name, spec.version_label) if choice == "version_label" else spec.version.value
        servable = model.servables.get(version) if model else None
        if servable is None or not servable.available:
            raise ServingError(Code.NOT_FOUND, f"Servable not found for request: Specific({name}, {version})")
        return servable

    def labelled(self, name: str, label: str) -> int:
        """The version behind a label."""
        model = self.models.get(name)
        if model is None or label not in model.labels:
            raise invalid_argument(f"Unrecognized servable version label: {label}")
        return model.labels[label]

    def queue(self, servable: Servable, signature: Signature) -> BatchQueue | None:
        """Where requests for `signature` wait for company, or None where batching is off or cannot be."""
        if self.options.batching is None or not signature.batchable:
            return None
        queue = servable.queues.get(signature.name)
        if queue is None:
            queue = servable.queues[signature.name] = BatchQueue(
                servable.model, signature, self.options.batching, self.runtime, self.metrics
            )
        return queue

    def status(self, spec: Any) -> list[Servable]:
        """The versions GetModelStatus tells of, newest first, those that ended among them."""
        if not spec.name:
            raise invalid_argument("ModelSpec has no name specified.")
        model = self.models.get(spec.name)
        known = {**model.ended, **model.servables} if model else {}
        choice = spec.WhichOneof("version_choice")
        if choice is not None:
            version = self.labelled(spec.name, spec.version_label) if choice == "version_label" else spec.version.value
            if version not in known:
                raise ServingError(Code.NOT_FOUND, f"Could not find version {version} of model {spec.name}")
            return [known[version]]
        if not known:
            raise ServingError(Code.NOT_FOUND, f"Could not find any versions of model {spec.name}")
        return [known[version] for version in sorted(known, reverse=True)]

    # Configuration

    async def reload(self, config: Any) -> None:
        """Serve `config` (a ModelServerConfig) from now on; returns when every model has an available version.

        Raises UNKNOWN where a model has none because its versions failed, and leaves other models serving; ABORTED
        where a later reload of something else came while this one waited.
        """
        self.check_config(config)
        if config != self._asked:
            self._reloads += 1
            self._asked = config
        number = self._reloads
        wanted = {each.name: each for each in config.model_config_list.config}
        for name in [name for name in self.models if name not in wanted]:
            model = self.models[name]
            model.removed = True
            self._reconcile(model, {})
            if not model.servables:
                del self.models[name]
        for name, each in wanted.items():
            known = self.models.get(name)
            if known is None:
                self.models[name] = Model(each)
            else:
                known.config, known.removed = each, False
        await self._notify()  # whoever waits for an earlier config
        if self.options.file_system_poll_wait_seconds >= 0:
            await self.poll_once()
        await self._until_available(wanted, number)
        self._check_labels(wanted.values())
        for name, each in wanted.items():
            self.models[name].labels = dict(each.version_labels)
        self.config = config

    def check_config(self, config: Any) -> None:
        """INVALID_ARGUMENT where `config` (a ModelServerConfig) cannot be served in place of the present one."""
        check_config(config, {name: model.config.model_platform for name, model in self.models.items()})

    def _check_labels(self, configs: Iterable[Any]) -> None:
        """A label may only be put on a version that is available, or with the flag on a model not yet served.

        A server that starts serves what there is: a label whose version is gone must not take the others down with it.
        """
        for config in configs:
            model = self.models[config.name]
            for label, version in config.version_labels.items():
                servable = model.servables.get(version)
                if (servable is not None and servable.available) or model.labels.get(label) == version:
                    continue  # or it was fine when it was set, and the version has gone since
                if self.options.allow_version_labels_for_unavailable_models and label not in model.labels:
                    continue
                if self.config is None:
                    log.error(
                        "Label %s of model %s names version %d, which is not available: requests for it fail",
                        label,
                        config.name,
                        version,
                    )
                    continue
                raise ServingError(
                    Code.FAILED_PRECONDITION,
                    f"Request to assign label {label} to version {version} of model {config.name}, which is not "
                    "currently available for inference",
                )

    async def _until_available(self, wanted: Iterable[str], number: int) -> None:
        if self.options.file_system_poll_wait_seconds >= 0:
            once = self.options.file_system_poll_wait_seconds == 0
            async with self._changed:
                await self._changed.wait_for(
                    lambda: (
                        number != self._reloads
                        or all(
                            _settled(self.models[name]) or (once and not self.models[name].servables) for name in wanted
                        )
                    )
                )
        if number != self._reloads:
            raise ServingError(Code.ABORTED, "A later configuration took the place of this one before it was served.")
        if self.options.file_system_poll_wait_seconds < 0:
            return
        failed = [causes for name in wanted if (causes := _why_unavailable(self.models[name]))]
        if failed:
            raise ServingError(
                Code.UNKNOWN, f"{len(failed)} model(s) did not become available: {{{', '.join(failed)}}}"
            )

    # Versions

    def start_polling(self) -> None:
        """Look for new and vanished versions every so often, if the options say so."""
        if self.options.file_system_poll_wait_seconds > 0 and self._poll is None:
            self._poll = asyncio.get_running_loop().create_task(self._poll_forever())

    async def _poll_forever(self) -> None:
        while True:
            await asyncio.sleep(self.options.file_system_poll_wait_seconds)
            await self.poll_once()

    async def poll_once(self) -> None:
        """Compare every model's folder with what is served, once."""
        loop = asyncio.get_running_loop()
        for name, model in list(self.models.items()):
            if model.removed:
                continue
            config = model.config
            try:
                on_disk = await loop.run_in_executor(self._pollers, source.versions_on_disk, config.base_path)
            except ServingError as error:
                log.warning("model %s: %s; what is served stays", name, error.message)
                continue
            if model.config is config and self.models.get(name) is model:
                if not on_disk:
                    log.warning("No versions of servable %s found under base path %s", name, config.base_path)
                self._reconcile(model, source.aspired_versions(config.model_version_policy, on_disk))
                await self._notify()

    def _reconcile(self, model: Model, aspired: dict[int, pathlib.Path]) -> None:
        for version, servable in list(model.servables.items()):
            servable.aspired = version in aspired
            if not servable.aspired and not servable.available and servable.state != servable.states.UNLOADING:
                self._give_up(model, servable)
        for version in sorted(aspired, reverse=True):
            if version not in model.servables:
                servable = Servable(model.config.name, version, aspired[version])
                model.servables[version] = servable
                model.ended.pop(version, None)
                servable.loading = self._spawn(self._bring_up(model, servable))
        self._unload_unwanted(model)

    def _unload_unwanted(self, model: Model) -> None:
        """Availability-preserving: what is no longer wanted goes only when something wanted serves, or nothing is."""
        servables = model.servables.values()
        wanted = [servable for servable in servables if servable.aspired]
        if wanted and not any(servable.available for servable in wanted):
            return
        for servable in list(servables):
            if servable.available and not servable.aspired:
                servable.state = servable.states.UNLOADING
                self._spawn(self._take_down(model, servable))
        model.refresh_latest()

    def _give_up(self, model: Model, servable: Servable) -> None:
        if servable.loading:
            servable.loading.cancel()
        servable.state = servable.states.END
        model.servables.pop(servable.version, None)
        model.end(servable)

    async def _bring_up(self, model: Model, servable: Servable) -> None:
        options, loop = self.options, asyncio.get_running_loop()
        servable.state = servable.states.LOADING
        for attempt in range(options.max_num_load_retries + 1):
            if attempt:
                await asyncio.sleep(options.load_retry_interval_seconds)
            start = time.perf_counter()
            loaded = loop.run_in_executor(self._loaders, self._load, servable.path, servable.model)
            try:
                bundle = await asyncio.shield(loaded)
            except asyncio.CancelledError:
                loaded.add_done_callback(_discard)
                raise
            except Exception as error:
                servable.error = from_exception(error)
                self.metrics.load_attempt_count.add(str(servable.path), "fail")
                log.error(
                    "Loading servable: {name: %s version: %d} failed (try %d of %d): %s",
                    servable.model,
                    servable.version,
                    attempt + 1,
                    options.max_num_load_retries + 1,
                    servable.error.message,
                )
                continue
            self.metrics.load_attempt_count.add(str(servable.path), "success")
            self.metrics.load_latency.add(str(servable.path), by=int((time.perf_counter() - start) * 1e6))
            servable.bundle, servable.error, servable.loading = bundle, None, None
            servable.state = servable.states.AVAILABLE
            self.metrics.available_version.set(servable.model, str(servable.version), to=1)
            log.info("Successfully loaded servable version {name: %s version: %d}", servable.model, servable.version)
            self._unload_unwanted(model)
            await self._notify()
            return
        servable.loading = None
        servable.state = servable.states.END
        await self._notify()

    async def _take_down(self, model: Model, servable: Servable) -> None:
        await servable.drained()
        bundle, servable.bundle = servable.bundle, None
        assert bundle is not None
        servable.queues.clear()
        self.runtime.forget([id(signature) for signature in bundle.signatures.values()])
        await asyncio.get_running_loop().run_in_executor(self._loaders, _free, bundle)
        servable.state = servable.states.END
        if model.servables.get(servable.version) is servable:
            del model.servables[servable.version]
            model.end(servable)
        if model.removed and not model.servables and self.models.get(servable.model) is model:
            del self.models[servable.model]
        self.metrics.available_version.set(servable.model, str(servable.version), to=0)
        log.info("Done unloading servable version {name: %s version: %d}", servable.model, servable.version)
        await self._notify()
        if servable.aspired and not model.removed:
            await self.poll_once()  # wanted back while it was on its way out

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    def close(self) -> None:
        """Stop polling and loading; versions die with the process."""
        for task in [*self._background, *([self._poll] if self._poll else [])]:
            task.cancel()
        self._loaders.shutdown(wait=False, cancel_futures=True)
        self._pollers.shutdown(wait=False, cancel_futures=True)
        self.runtime.close()


def _settled(model: Model) -> bool:
    """Whether a model has what it will have for now: a version that serves, or none that may yet."""
    aspired = [servable for servable in model.servables.values() if servable.aspired]
    if any(servable.available for servable in aspired):  # the others need only have had their first try
        return all(servable.available or servable.error for servable in aspired)
    return bool(aspired) and all(servable.error and not servable.loading for servable in aspired)


def _why_unavailable(model: Model) -> str:
    """Why none of a model's versions serves, or empty."""
    servables = [each for each in model.servables.values() if each.aspired]
    if any(each.available for each in servables):
        return ""
    name = model.config.name
    causes = [
        f"{{name: {name} version: {each.version}}} due to error: {each.error.message if each.error else ''}"
        for each in servables
    ]
    return " ".join(causes) or f"{{name: {name}}} due to error: no version found under {model.config.base_path}"


def check_config(config: Any, platforms: dict[str, str]) -> None:
    """INVALID_ARGUMENT where a ModelServerConfig cannot be served, judged against the models served now."""
    if config.WhichOneof("config") == "custom_model_config":
        raise invalid_argument("custom_model_config is not supported; list the models in model_config_list")
    seen = set()
    for each in config.model_config_list.config:
        if each.name in seen:
            raise invalid_argument(f"Illegal to list model {each.name} multiple times in config list")
        seen.add(each.name)
        platform = each.model_platform or PLATFORM
        if not each.name:
            raise invalid_argument("A model in the config list has no name")
        if (not each.base_path.startswith("/") and "://" not in each.base_path) or "\0" in each.base_path:
            raise invalid_argument(
                f"Expected model {each.name} to have an absolute path or URI; got base_path()={each.base_path}"
            )
        before = platforms.get(each.name, platform) or PLATFORM
        if platform != before:
            raise invalid_argument(
                f"Illegal to change a model's platform. For model {each.name} current platform is {before} and "
                f"requested platform is {platform}."
            )
        if platform != PLATFORM:
            raise invalid_argument(f"Model {each.name}: platform {platform!r} is not known; only {PLATFORM!r} is")


def _discard(loaded: asyncio.Future[SavedModelBundle]) -> None:
    """A load that nobody waits for any more ended: free what it made."""
    if not loaded.cancelled() and loaded.exception() is None:
        loaded.result().close()


def _free(bundle: SavedModelBundle) -> None:
    bundle.close()
    gc.collect(1)
    memory.give_back()
