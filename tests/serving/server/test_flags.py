from __future__ import annotations

import pytest

from serving.server import flags
from serving.server.grpc_server import channel_arguments
from serving.server.status import ServingError


def test_flags_are_written_as_absl_writes_them(tmp_path):
    options = flags.parse(
        ["--port=1", "--rest_api_port", "2", "-model_name=m", f"--model_base_path={tmp_path}", "--enable_batching",
         "--noenable_model_warmup", "--flush_filesystem_caches=false"]
    )  # fmt: skip
    assert (options.port, options.rest_api_port) == (1, 2)
    assert options.batching is not None
    assert not options.enable_model_warmup
    (model,) = options.config.model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == ("m", str(tmp_path), "tensorflow")
    assert flags.parse([f"--model_base_path={tmp_path}"]).file_system_poll_wait_seconds == 1


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ([], "are empty"),
        (["--nothing"], "nothing"),
        (["--port=x"], "port"),
        (["stray"], "unknown argument: stray"),
        (["--batching_parameters_file=x", "--model_base_path=/m"], "without --enable_batching"),
        (["--rest_api_port=8500", "--model_base_path=/m"], "cannot be same as --port"),
        (["--port=0", "--model_base_path=/m"], "nothing to listen on"),
        (["--max_concurrent_requests=0", "--model_base_path=/m"], "must be positive"),
        (["--monitoring_config_file=/none", "--model_base_path=/m"], "/none"),
        (["--platform_config_file=x", "--model_base_path=/m"], "not supported"),
    ],
)
def test_wrong_command_lines_are_named(argv, text):
    with pytest.raises(ServingError, match=text):
        flags.parse(argv)


def test_help_names_every_flag():
    assert "--allow_version_labels_for_unavailable_models=False" in flags.usage()


def test_channel_arguments():
    assert channel_arguments("grpc.a=1,grpc.b=x") == [("grpc.a", 1), ("grpc.b", "x")]
    assert channel_arguments("") == []
    with pytest.raises(ServingError, match="not key=value"):
        channel_arguments("grpc.a")
