"""TensorFlow Serving's command line, parsed by absl as there, into one frozen object."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

from absl import flags as absl_flags
from google.protobuf import message, text_format

from serving.server import config_protos, large, limits
from serving.server.batching import BatchingParameters
from serving.server.server_core import PLATFORM
from serving.server.status import ServingError, invalid_argument

DEFAULT_PROMETHEUS_PATH = "/monitoring/prometheus/metrics"

# name, default, help; the default's type is the flag's. The second group is this server's own.
_FLAGS: tuple[tuple[str, Any, str], ...] = (
    ("port", 8500, "TCP port to listen on for gRPC; 0 with --grpc_socket_path listens on the socket alone."),
    ("grpc_socket_path", "", "UNIX socket to listen on for gRPC as well."),
    ("rest_api_port", 0, "TCP port to listen on for HTTP/REST; 0: no REST. Must differ from --port."),
    ("rest_api_timeout_in_ms", 30000, "Timeout of HTTP/REST requests."),
    ("rest_api_num_threads", 0, "Accepted; REST shares the event loop."),
    ("rest_api_enable_cors_support", False, "Answer browsers of other origins."),
    ("enable_batching", False, "Run waiting requests together."),
    ("batching_parameters_file", "", "Text BatchingParameters; needs --enable_batching."),
    ("model_config_file", "", "Text ModelServerConfig; replaces --model_name and --model_base_path."),
    ("model_config_file_poll_wait_seconds", 0, "Seconds between reads of --model_config_file; 0: read once."),
    ("model_name", "default", "Name of the one model, without --model_config_file."),
    ("model_base_path", "", "Its folder of version folders."),
    ("num_load_threads", 0, "Threads that load versions; 0: one."),
    ("num_unload_threads", 0, "Accepted; versions are freed by the loader's threads."),
    ("max_num_load_retries", 5, "How often a version that fails to load is tried again."),
    ("load_retry_interval_micros", 60 * 1000 * 1000, "Time between those tries."),
    ("file_system_poll_wait_seconds", 1, "Seconds between looks for new versions; 0: once, negative: never."),
    ("flush_filesystem_caches", True, "Accepted; the system's caches are left alone."),
    ("tensorflow_session_parallelism", 0, "Threads of a session, both kinds; 0: TensorFlow decides."),
    ("tensorflow_intra_op_parallelism", 0, "Threads inside one operation; 0: TensorFlow decides."),
    ("tensorflow_inter_op_parallelism", 0, "Threads between operations; 0: TensorFlow decides."),
    ("ssl_config_file", "", "Text SSLConfig: gRPC (and REST) over TLS."),
    ("platform_config_file", "", "Not supported: there is one platform."),
    ("saved_model_tags", "serve", "Comma-separated tags of the graph to load."),
    ("grpc_channel_arguments", "", "Comma-separated key=value pairs for the gRPC server."),
    ("grpc_max_threads", 0, "Accepted; gRPC shares the event loop."),
    ("enable_model_warmup", True, "Replay assets.extra/tf_serving_warmup_requests before a version serves."),
    ("monitoring_config_file", "", "Text MonitoringConfig: Prometheus metrics on the REST port."),
    ("allow_version_labels_for_unavailable_models", False, "Labels may name versions that are not loaded yet."),
    ("enable_grpc_healthcheck_service", False, "Serve grpc.health.v1."),
    ("enable_signature_method_name_check", False, "Classify and Regress take only signatures of these methods."),
    ("version", False, "Print the version and end."),
)  # fmt: skip
_OWN_FLAGS: tuple[tuple[str, Any, str], ...] = (
    ("enable_grpc_reflection", False, "Serve grpc.reflection."),
    ("host", "0.0.0.0", "Address to listen on."),
    ("max_concurrent_requests", 1024, "Requests in the server at once; more get RESOURCE_EXHAUSTED."),
    ("max_batch_rows", limits.DEFAULT_ROWS, "Rows of one request; more get INVALID_ARGUMENT. 0: no limit."),
    ("max_request_elements", limits.DEFAULT_ELEMENTS, "Elements of its tensors, repeated ones too. 0: no limit."),
    ("max_request_bytes", limits.DEFAULT_BYTES, "Bytes of them, strings padded to the longest. 0: no limit."),
    ("max_message_bytes", large.DEFAULT_MESSAGE_BYTES, "Size of one request, unpacked; more get RESOURCE_EXHAUSTED."),
    ("max_inflight_bytes", large.DEFAULT_INFLIGHT_BYTES, "Of large requests at once; more get RESOURCE_EXHAUSTED."),
    ("max_connections", 0, "Connections of each protocol. 0: as many as the process may have descriptors for."),
    ("connection_header_seconds", 10.0, "How long a new connection may take to say what it wants."),
    ("connection_body_seconds", 30.0, "How long the rest of a request may take to come."),
    ("connection_idle_seconds", 120.0, "How long a connection may stay open between requests."),
    ("model_control_address", "", "host:port or unix:PATH that takes HandleReloadConfigRequest; default: none."),
    ("model_control_from", "auto", "Whose --port takes: nobody, file (copies of --model_config_file), loopback, "
     "anybody; auto: file where there is one, else loopback."),
    ("model_control_paths", "", "Comma-separated folders that models and request logs may be put under by RPC; *: any. "
     "Default: the folders of the models and logs configured at the start."),
    ("num_session_threads", 4, "Threads for runs too long for the event loop."),
    ("num_processes", 1, "Server processes behind the port."),
    ("shutdown_grace_seconds", 30.0, "How long requests in flight may take to end after SIGTERM."),
    ("worker_sockets", "", "Set by the server itself for its processes."),
    ("worker_number", 0, "Set by the server itself for its processes."),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class ServerOptions:
    """The parsed flags (see `recsys-model-server --help`) and the files they name, read."""

    flags: dict[str, Any]
    batching: BatchingParameters | None
    prometheus_path: str | None
    ssl_config: Any
    config: Any

    def __getattr__(self, name: str) -> Any:
        try:
            return self.flags[name]
        except KeyError:
            raise AttributeError(name) from None


def _flag_values() -> absl_flags.FlagValues:
    values = absl_flags.FlagValues()
    for name, default, help_text in (*_FLAGS, *_OWN_FLAGS):
        if isinstance(default, bool):
            absl_flags.DEFINE_boolean(name, default, help_text, flag_values=values)
        elif isinstance(default, int):
            absl_flags.DEFINE_integer(name, default, help_text, flag_values=values)
        elif isinstance(default, float):
            absl_flags.DEFINE_float(name, default, help_text, flag_values=values)
        else:
            absl_flags.DEFINE_string(name, default, help_text, flag_values=values)
    return values


def usage() -> str:
    """What --help prints."""
    lines = ["usage: recsys-model-server --model_base_path=DIR [flags], as tensorflow_model_server takes them", ""]
    for title, group in (("Flags", _FLAGS), ("Flags that TensorFlow Serving does not have", _OWN_FLAGS)):
        lines.append(f"{title}:")
        lines.extend(f"  --{name}={default!r}  {text}" for name, default, text in group)
    return "\n".join(lines)


def parse(argv: Sequence[str]) -> ServerOptions:
    """Parse a command line (without the program's name) and read the config files it names.

    Raises ServingError (or absl's flag errors) saying which flag or file is at fault.
    """
    values = _flag_values()
    try:
        rest = values(["recsys-model-server", *argv])
    except absl_flags.Error as error:
        raise invalid_argument(f"{error}\nSee recsys-model-server --help.") from error
    if len(rest) > 1:
        raise invalid_argument(f"unknown argument: {rest[1]}\nSee recsys-model-server --help.")
    flags = {name: values[name].value for name, _, _ in (*_FLAGS, *_OWN_FLAGS)}
    if flags["version"]:
        return ServerOptions(flags, None, None, None, None)
    if flags["platform_config_file"]:
        raise invalid_argument("--platform_config_file is not supported: this server knows one platform, tensorflow")
    if flags["batching_parameters_file"] and not flags["enable_batching"]:
        raise invalid_argument("--batching_parameters_file supplied without --enable_batching")
    if flags["rest_api_port"] and flags["rest_api_port"] == flags["port"]:
        raise invalid_argument(
            "--rest_api_port cannot be same as --port. Please use a different port for HTTP/REST API."
        )
    if not flags["port"] and not flags["grpc_socket_path"]:
        raise invalid_argument("--port is 0 and --grpc_socket_path is not given: there is nothing to listen on")
    _check_numbers(flags)
    batching = None
    if flags["enable_batching"]:
        file = flags["batching_parameters_file"]
        batching = BatchingParameters.from_proto(_read(file, "BatchingParameters")) if file else BatchingParameters()
    path = None
    if flags["monitoring_config_file"]:
        prometheus = _read(flags["monitoring_config_file"], "MonitoringConfig").prometheus_config
        path = (prometheus.path or DEFAULT_PROMETHEUS_PATH) if prometheus.enable else None
    ssl_config = _ssl_config(flags["ssl_config_file"]) if flags["ssl_config_file"] else None
    return ServerOptions(flags, batching, path, ssl_config, model_server_config(flags))


_POSITIVE = (
    "max_concurrent_requests",
    "max_message_bytes",
    "max_inflight_bytes",
    "num_session_threads",
    "num_processes",
    "connection_header_seconds",
    "connection_body_seconds",
    "connection_idle_seconds",
)
_NOT_NEGATIVE = ("max_batch_rows", "max_request_elements", "max_request_bytes", "max_connections")


def _check_numbers(flags: dict[str, Any]) -> None:
    for name in _POSITIVE:
        if flags[name] <= 0:
            raise invalid_argument(f"--{name} must be positive; got {flags[name]}")
    for name in _NOT_NEGATIVE:
        if flags[name] < 0:
            raise invalid_argument(f"--{name} must not be negative; got {flags[name]}")


def _ssl_config(file: str) -> Any:
    config = _read(file, "SSLConfig")
    if not config.server_key or not config.server_cert:
        raise invalid_argument(f"{file}: the SSL config needs server_key and server_cert, both as PEM text")
    if config.client_verify and not config.custom_ca:
        raise invalid_argument(
            f"{file}: client_verify needs custom_ca, the PEM text of the authority that signs clients' certificates"
        )
    return config


def _read(file: str, kind: str) -> Any:
    try:
        text = pathlib.Path(file).read_text()
    except OSError as error:
        raise ServingError(invalid_argument("").code, f"{file}: {error.strerror}") from error
    try:
        return config_protos.parse_text(kind, text)
    except text_format.ParseError as error:
        raise invalid_argument(f"Invalid protobuf file: '{file}': {kind}: {error}") from error


def model_server_config(flags: dict[str, Any]) -> message.Message:
    """The ModelServerConfig to serve: the config file's, or the one model's."""
    from tensorflow_serving.config import model_server_config_pb2

    if flags["model_config_file"]:
        return read_model_server_config(flags["model_config_file"])
    if not flags["model_base_path"]:
        raise invalid_argument("Both server_options.model_base_path and server_options.model_config_file are empty!")
    config = model_server_config_pb2.ModelServerConfig()
    config.model_config_list.config.add(
        name=flags["model_name"], base_path=flags["model_base_path"], model_platform=PLATFORM
    )
    return config


def read_model_server_config(file: str) -> message.Message:
    """A ModelServerConfig from its text form."""
    from tensorflow_serving.config import model_server_config_pb2

    try:
        text = pathlib.Path(file).read_text()
    except OSError as error:
        raise invalid_argument(f"{file}: {error.strerror}") from error
    try:
        return text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    except text_format.ParseError as error:
        raise invalid_argument(
            f"Error parsing text-format tensorflow.serving.ModelServerConfig: {error}\nInvalid protobuf file: '{file}'"
        ) from error
