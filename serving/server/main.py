"""`recsys-model-server`: serves SavedModels where `tensorflow_model_server` would."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import pathlib
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from serving.server.flags import ServerOptions, parse, read_model_server_config, usage
from serving.server.status import Code, ServingError

log = logging.getLogger("recsys-model-server")

EXIT_USAGE = 2
EXIT_FAILED = 1
# The interpreter's lock changes hands this often when several threads want it: requests wait for each other's Python,
# and for that of a version being loaded, at most this long. The default of 5 ms is longer than a whole request.
SWITCH_INTERVAL_SECONDS = 0.0005
# Between the last answer and the end: what was written must reach its reader.
LAST_ANSWERS_SECONDS = 0.5


class ModelServer:
    """A whole server in one process: core, gRPC and REST in one event loop."""

    def __init__(self, options: ServerOptions):
        self.options = options
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Load, serve until SIGTERM or SIGINT, let what runs end. Raises ServingError if the models cannot load."""
        from serving.server import grpc_server
        from serving.server.large import LargeRequests
        from serving.server.limits import RequestLimits
        from serving.server.metrics import ServerMetrics
        from serving.server.model_control import ModelControl
        from serving.server.prediction_service import Admission, PredictionService
        from serving.server.server_core import ServerCore, ServerCoreOptions
        from serving.server.workers import Peers

        options = self.options
        loop = asyncio.get_running_loop()
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(each, self._stop.set)
        metrics = ServerMetrics()
        core = ServerCore(
            ServerCoreOptions(
                file_system_poll_wait_seconds=options.file_system_poll_wait_seconds,
                max_num_load_retries=options.max_num_load_retries,
                load_retry_interval_seconds=options.load_retry_interval_micros / 1e6,
                num_load_threads=options.num_load_threads,
                allow_version_labels_for_unavailable_models=options.allow_version_labels_for_unavailable_models,
                batching=options.batching,
                session_threads=options.num_session_threads,
            ),
            loader(options, metrics),
            metrics,
        )
        admission = Admission(options.max_concurrent_requests)
        peers = Peers(options.worker_sockets, options.worker_number) if options.worker_sockets else None
        service = PredictionService(
            core,
            metrics,
            admission,
            RequestLimits(options.max_batch_rows, options.max_request_elements, options.max_request_bytes),
            LargeRequests(options.max_inflight_bytes),
            peers,
            control=ModelControl.of(
                options.model_control_from,
                options.model_control_paths,
                options.config,
                (lambda: read_model_server_config(options.model_config_file)) if options.model_config_file else None,
            ),
            check_method_names=options.enable_signature_method_name_check,
        )
        arguments = grpc_server.channel_arguments(options.grpc_channel_arguments)

        core.start_polling()
        loading = asyncio.ensure_future(core.reload(options.config))
        stopping = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait({loading, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if self._stop.is_set():
            return
        await loading
        service.logger.configure(options.config)
        # What is alive now stays: collections after a swap need not look at TensorFlow's million objects again.
        gc.collect()
        gc.freeze()

        server, health = grpc_server.make_server(
            service,
            arguments=arguments,
            limits=grpc_server.GrpcLimits(
                message_bytes=options.max_message_bytes,
                connections=options.max_connections,
                header_seconds=options.connection_header_seconds,
                body_seconds=options.connection_body_seconds,
                idle_seconds=options.connection_idle_seconds,
            ),
            health=options.enable_grpc_healthcheck_service,
            reflection=options.enable_grpc_reflection,
            share_port=bool(options.worker_sockets),
        )
        self._bind(server)
        await server.start()
        await grpc_server.set_serving(health, True)
        log.info("Running gRPC ModelServer at %s:%d ...", options.host, options.port)
        control = await self._start_control(service)
        rest = await self._start_rest(service)
        polling = (
            asyncio.ensure_future(self._poll_config(core, service))
            if options.model_config_file and options.model_config_file_poll_wait_seconds > 0
            else None
        )
        await self._stop.wait()

        log.info("Stopping: requests in flight may take %g s to end.", options.shutdown_grace_seconds)
        if polling:
            polling.cancel()
        await grpc_server.set_serving(health, False)
        if rest:
            rest.stop_listening()
        # From here on every new request is answered UNAVAILABLE, so that clients go elsewhere.
        done = await admission.drained(options.shutdown_grace_seconds)
        if not done:
            log.warning("%d requests were still running and are cut off.", admission.in_flight)
        await asyncio.sleep(LAST_ANSWERS_SECONDS)
        if rest:
            await rest.cleanup()
        service.logger.close()
        core.close()
        # gRPC's servers are not stopped: that cancels calls which arrived a moment ago, and clients must not try
        # CANCELLED again. The process ends instead, and to a client a connection that ends is UNAVAILABLE.
        self._kept = (server, control)

    def _bind(self, server: Any) -> None:
        from serving.server import grpc_server
        from serving.server.workers import socket_path

        options = self.options
        if options.port:
            address = f"{options.host}:{options.port}"
            try:
                if options.ssl_config is not None:
                    server.add_secure_port(address, grpc_server.credentials(options.ssl_config))
                else:
                    server.add_insecure_port(address)
            except RuntimeError as error:
                raise ServingError(Code.UNAVAILABLE, f"cannot listen on {address}: {error}") from error
        if options.worker_sockets:
            path = socket_path(options.worker_sockets, options.worker_number)
            server.add_insecure_port(f"unix:{path}")
        if options.grpc_socket_path and not options.worker_number:  # a path cannot be shared: the first worker has it
            pathlib.Path(options.grpc_socket_path).unlink(missing_ok=True)  # a killed server leaves its socket behind
            server.add_insecure_port(f"unix:{options.grpc_socket_path}")
            log.info("Running gRPC ModelServer at UNIX socket %s ...", options.grpc_socket_path)

    async def _start_control(self, service: Any) -> Any:
        """The operators' address, where there is one; of several processes the first has it."""
        options = self.options
        if not options.model_control_address or options.worker_number:
            return None
        from serving.server import grpc_server

        server, _ = grpc_server.make_server(service, control=True)
        try:
            server.add_insecure_port(options.model_control_address)
        except RuntimeError as error:
            raise ServingError(
                Code.UNAVAILABLE, f"cannot listen on {options.model_control_address}: {error}"
            ) from error
        await server.start()
        log.info("Taking configuration at %s ...", options.model_control_address)
        return server

    async def _start_rest(self, service: Any) -> Any:
        options = self.options
        if not options.rest_api_port:
            return None
        from serving.server import http_server, rest_server

        limits = http_server.HttpLimits(
            body_bytes=options.max_message_bytes,
            buffered_bytes=options.max_inflight_bytes,
            connections=options.max_connections,
            header_seconds=options.connection_header_seconds,
            body_seconds=options.connection_body_seconds,
            idle_seconds=options.connection_idle_seconds,
        )
        handler = rest_server.RestHandler(
            service,
            timeout_seconds=options.rest_api_timeout_in_ms / 1000,
            metrics_path=options.prometheus_path,
            cors=options.rest_api_enable_cors_support,
        )
        context = rest_server.ssl_context(options.ssl_config) if options.ssl_config is not None else None
        try:
            runner = await http_server.start(
                handler,
                options.host,
                options.rest_api_port,
                limits,
                context,
                share_port=bool(options.worker_sockets),
            )
        except OSError as error:
            raise ServingError(
                Code.UNAVAILABLE, f"cannot listen on {options.host}:{options.rest_api_port}: {error.strerror}"
            ) from error
        log.info("Exporting HTTP/REST API at:%s:%d ...", options.host, options.rest_api_port)
        return runner

    async def _poll_config(self, core: Any, service: Any) -> None:
        """Take over the config file whenever it changed; a file that does not parse changes nothing."""
        file = self.options.model_config_file
        seconds = self.options.model_config_file_poll_wait_seconds
        seen = core.config
        taking_over: asyncio.Task[None] | None = None

        async def take_over(config: Any) -> None:
            try:
                await service.reload(config)
            except ServingError as error:
                log.error("%s: not taken over: %s", file, error.message)

        while True:
            await asyncio.sleep(seconds)
            try:
                config = await asyncio.to_thread(read_model_server_config, file)
            except ServingError as error:
                log.error("%s: not taken over: %s", file, error.message)
                continue
            if config != seen:
                seen = config
                if taking_over:  # it may be waiting for a model that never comes; the new file is what counts
                    taking_over.cancel()
                taking_over = asyncio.ensure_future(take_over(config))


def loader(options: ServerOptions, metrics: Any) -> Any:
    """The function that loads and warms one version."""
    from serving.server.prediction_service import replay
    from serving.server.saved_model import SavedModelBundle
    from serving.server.warmup import run_warmup

    both = options.tensorflow_session_parallelism
    tags = frozenset(options.saved_model_tags.split(","))

    def load(path: pathlib.Path, model: str) -> SavedModelBundle:
        before = _snapshot(path)
        bundle = SavedModelBundle(
            path,
            tags=tags,
            intra_op_parallelism=both or options.tensorflow_intra_op_parallelism,
            inter_op_parallelism=both or options.tensorflow_inter_op_parallelism,
        )
        try:
            if options.enable_model_warmup:
                count = run_warmup(path, lambda record: replay(bundle, record), metrics)
                if count:
                    log.info("Finished warmup of model %s version %s with %d records", model, path.name, count)
            if _snapshot(path) != before:
                raise ServingError(Code.UNAVAILABLE, f"{path} changed while it was loaded: it is still being copied")
        except BaseException:
            bundle.close()
            raise
        return bundle

    return load


def _snapshot(path: pathlib.Path) -> list[tuple[str, int, int]]:
    """Every file under a version's folder with its size and time: a version that changes is not whole yet."""
    return sorted(
        (str(file), status.st_size, status.st_mtime_ns)
        for file in path.rglob("*")
        if (status := file.stat()) and not file.is_dir()
    )


def main(argv: Sequence[str] | None = None) -> None:
    """The `recsys-model-server` command."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if any(each in ("--help", "-help", "-h", "--helpfull") for each in arguments):
        print(usage())
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        options = parse(arguments)
    except ServingError as error:
        print(error.message, file=sys.stderr)
        sys.exit(EXIT_USAGE)
    if options.version:
        _print_version()
        return
    if options.num_processes > 1 and not options.worker_sockets:
        from serving.server.workers import supervise

        sys.exit(supervise(arguments, options.num_processes))
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    _run(options)


def _end(code: int) -> NoReturn:
    """End the process at once: threads of TensorFlow take a second to be torn down and have nothing left to say."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _run(options: ServerOptions) -> None:
    import uvloop

    async def serve() -> None:
        try:
            await ModelServer(options).run()
        except ServingError as error:
            print(f"Failed to start server. Error: {error.code.name}: {error.message}", file=sys.stderr)
            _end(EXIT_FAILED)
        _end(0)  # while the loop still runs: ending it would cancel calls that wait to be turned away

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())


def _print_version() -> None:
    import importlib.metadata

    for name in ("tfx-recsys", "tensorflow", "tensorflow-serving-api"):
        print(f"{name}: {importlib.metadata.version(name)}")


if __name__ == "__main__":
    main()
