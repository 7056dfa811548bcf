"""What a stranger may try against a server with its default limits, and what must come of it."""

from __future__ import annotations

import concurrent.futures
import contextlib
import gzip
import http.client
import json
import resource
import signal
import socket
import threading
import time
import zlib

import grpc
import pytest

from tests.serving import saved_models
from tests.serving.test_swaps import resident_mib

pytestmark = pytest.mark.slow
TIMEOUT = 20.0
CODE = grpc.StatusCode
PREDICT = "/tensorflow.serving.PredictionService/Predict"
RELOAD = "/tensorflow.serving.ModelService/HandleReloadConfigRequest"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    saved_models.ranking(folder / "m")
    saved_models.answer_version(folder / "tf2", 1)
    config = folder / "models.config"
    config.write_text(config_text(folder))
    return folder


def config_text(folder, extra=""):
    return (
        f'model_config_list {{ config {{ name: "m" base_path: "{folder}/m" model_platform: "tensorflow" }}'
        f' config {{ name: "tf2" base_path: "{folder}/tf2" model_platform: "tensorflow" }} {extra} }}'
    )


@pytest.fixture(scope="module")
def server(start_server, models):
    flags = ["--connection_header_seconds=2", "--connection_body_seconds=2", "--connection_idle_seconds=2"]
    return start_server(f"--model_config_file={models}/models.config", "--host=127.0.0.1", *flags)


def post(server, body, path="/v1/models/m:predict", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=TIMEOUT)
    try:
        connection.request("POST", path, body, headers)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def tensor_request(model="m", **inputs):
    """A PredictRequest of string or int64 inputs, each (shape, values)."""
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    for name, (shape, values) in inputs.items():
        tensor = request.inputs[name]
        for size in shape:
            tensor.tensor_shape.dim.add(size=size)
        if values and isinstance(values[0], bytes):
            tensor.dtype = 7
            tensor.string_val.extend(values)
        else:
            tensor.dtype = 9
            tensor.int64_val.extend(values)
    return request


def ask(server, request, method=PREDICT, data=None):
    """The status code and details of a call."""
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        try:
            channel.unary_unary(method)(request.SerializeToString() if data is None else data, timeout=TIMEOUT)
        except grpc.RpcError as error:
            return error.code(), error.details()
    return CODE.OK, ""


def healthy(server):
    assert post(server, b'{"instances": [{"item": "abc"}]}')[0] == 200
    assert ask(server, tensor_request(item=([1], [b"abc"])))[0] is CODE.OK


@pytest.mark.parametrize("rank", [2, 32, 33, 64, 65, 300])
def test_a_tensor_of_many_dimensions_is_refused(server, rank):
    code, details = ask(server, tensor_request(item=([1] * rank, [b"1"])))
    assert (code, f"{rank} dimensions" in details) == (CODE.INVALID_ARGUMENT, True), details
    body = '{"inputs": {"item": ' + "[" * rank + '"1"' + "]" * rank + "}}"
    status, text = post(server, body.encode())
    assert status == 400, text
    healthy(server)


@pytest.mark.parametrize(
    "inputs",
    [
        {"item": ([1 << 24], [b"1"])},
        {"item": ([1 << 16], [b"x" * 2000])},
        {"item": ([1, 1 << 23], [b"1"])},
        {"item": ([0, 1 << 62], [b""])},
        {"item": ([1 << 62], [])},
        {"age": ([1 << 40], [1])},
        {"item": ([40_000], [b"x"] * 39_999 + [b"y" * 5000])},
    ],
)
def test_what_a_request_expands_to_is_bounded(server, inputs):
    healthy(server)
    before = resident_mib(server.process.pid)
    code, details = ask(server, tensor_request(**inputs))
    assert code is CODE.INVALID_ARGUMENT, details
    assert resident_mib(server.process.pid) < before + 50


def test_a_context_is_not_copied_for_ever(server):
    from tensorflow_serving.apis import regression_pb2

    request = regression_pb2.RegressionRequest()
    request.model_spec.name, request.model_spec.signature_name = "m", "serve_examples"
    both = request.input.example_list_with_context
    both.context.features.feature["item"].bytes_list.value.append(b"x" * 100_000)
    for _ in range(10_000):
        both.examples.add()
    method = "/tensorflow.serving.PredictionService/Regress"
    assert ask(server, request, method)[0] in (CODE.INVALID_ARGUMENT, CODE.FAILED_PRECONDITION)
    healthy(server)


def gzipped_blanks(megabytes):
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join([*(packer.compress(b" " * (1 << 20)) for _ in range(megabytes)), packer.flush()])


def slowest_neighbour(server, work):
    """Do `work` while a second client asks; its slowest answer in seconds."""
    slowest, stop = [0.0], threading.Event()
    body = tensor_request(item=([1], [b"abc"])).SerializeToString()

    def neighbour():
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            call = channel.unary_unary(PREDICT)
            while not stop.is_set():
                start = time.perf_counter()
                call(body, timeout=TIMEOUT)
                slowest[0] = max(slowest[0], time.perf_counter() - start)

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(neighbour)
        try:
            result = work()
        finally:
            stop.set()
        running.result()
    return slowest[0], result


def test_large_bodies_hold_nobody_up(server):
    healthy(server)
    before = resident_mib(server.process.pid)
    bomb = gzipped_blanks(1500)
    plain = b'{"instances": [' + b",".join([b'{"item": "abcdefgh", "age": 12345}'] * 500_000) + b"]}"
    assert len(bomb) < 2 << 20 < 16 << 20 < len(plain)

    def work():
        return [post(server, bomb, **{"Content-Encoding": "gzip"})[0], post(server, plain)[0]]

    slowest, statuses = slowest_neighbour(server, work)
    assert statuses == [429, 400]
    assert slowest < 1.0  # both took many seconds; a machine that is shared is slow by itself
    assert resident_mib(server.process.pid) < before * 1.5 + 100


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (gzip.compress(b'{"instances": ["a"]}', mtime=0)[:-9], "gzip"),
        (gzip.compress(b'{"instances": ["a"]}', mtime=0) + b"more", "gzip"),
        (b"no gzip at all", "gzip"),
        (b'{"instances": [{"item": "a"}]}', "br"),
        (b'{"instances": [{"item": "a"}]}', "gzip, gzip"),
        (b'{"inputs": {"age": [1e400]}}', "identity"),
        (b'{"inputs": {"age": [NaN, 1e400]}}', ""),
        (b'{"inputs": {"item": ["\\ud800"]}}', ""),
        (b'{"signature_name": "\\ud800", "instances": [NaN]}', ""),
    ],
    ids=["cut", "more", "none", "br", "twice", "1e400", "1e400 beside NaN", "surrogate", "surrogate name"],
)
def test_what_cannot_be_read_is_the_clients_fault(server, body, encoding):
    status, text = post(server, body, **({"Content-Encoding": encoding} if encoding else {}))
    assert status == 400, text
    assert json.loads(text)["error"]


def test_compressed_bodies_are_read(server):
    body = b'{"instances": [{"item": "abc"}]}'
    raw = zlib.compressobj(wbits=-15)
    for packed, encoding in (
        (gzip.compress(body), "gzip"),
        (gzip.compress(body[:9]) + gzip.compress(body[9:]), "gzip"),
        (zlib.compress(body), "deflate"),
        (raw.compress(body) + raw.flush(), "deflate"),
    ):
        status, text = post(server, packed, **{"Content-Encoding": encoding})
        assert status == 200, text


@pytest.mark.parametrize("path", ["/v1/models/m/versions/" + "9" * 5000, "/v1/models/m/versions/" + "9" * 19])
def test_a_version_of_many_digits_is_refused(server, path):
    assert post(server, b"{}", path + ":predict")[0] == 400


def test_names_that_nobody_reads_do_not_come_back_whole(server):
    request = tensor_request(**{f"input {number}" + "x" * 50: ([1], [1]) for number in range(3000)})
    code, details = ask(server, request)
    assert code is CODE.INVALID_ARGUMENT
    assert len(details) < 3000


def test_classify_takes_signatures_of_tensorflow_2(server, models):
    """They are all of the predict method; TensorFlow Serving looks at that only where it is told to."""
    from tensorflow_serving.apis import classification_pb2

    request = classification_pb2.ClassificationRequest()
    request.model_spec.name = "m"
    request.model_spec.signature_name = "serve_examples"
    request.input.example_list.examples.add()
    code, details = ask(server, request, "/tensorflow.serving.PredictionService/Classify")
    assert (code, "method_name" in details) == (CODE.FAILED_PRECONDITION, False), details


# Model control


def reload_request(text):
    from google.protobuf import text_format
    from tensorflow_serving.apis import model_management_pb2
    from tensorflow_serving.config import model_server_config_pb2

    return model_management_pb2.ReloadConfigRequest(
        config=text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    )


def test_where_a_file_is_the_source_a_stranger_changes_nothing(server, models, tmp_path):
    saved_models.ranking(tmp_path / "evil")
    logged = (
        f'logging_config {{ log_collector_config {{ filename_prefix: "{tmp_path}/stolen" }} '
        "sampling_config { sampling_rate: 1.0 } }"
    )
    for text in (
        "model_config_list {}",
        config_text(models, f'config {{ name: "e" base_path: "{tmp_path}/evil" model_platform: "tensorflow" }}'),
        config_text(models, f'config {{ name: "l" base_path: "{models}/m" model_platform: "tensorflow" {logged} }}'),
        config_text(models, f'config {{ name: "never" base_path: "{models}/never" model_platform: "tensorflow" }}'),
    ):
        code, details = ask(server, reload_request(text), RELOAD)
        assert code is CODE.PERMISSION_DENIED, (text, details)
    assert ask(server, reload_request(config_text(models)), RELOAD)[0] is CODE.OK  # what the file says
    assert ask(server, None, "/recsys.serving.Workers/Reload", b"")[0] is CODE.UNIMPLEMENTED
    healthy(server)


def test_an_operator_has_an_address_and_folders(start_server, models, tmp_path):
    socket_path = tmp_path / "control.sock"
    server = start_server(
        f"--model_config_file={models}/models.config",
        f"--model_control_address=unix:{socket_path}",
        "--host=127.0.0.1",
    )

    def control(text, timeout=TIMEOUT):
        with grpc.insecure_channel(f"unix:{socket_path}") as channel:
            try:
                channel.unary_unary(RELOAD)(reload_request(text).SerializeToString(), timeout=timeout)
            except grpc.RpcError as error:
                return error.code()
        return CODE.OK

    other = f'config {{ name: "other" base_path: "{models}/m" model_platform: "tensorflow" }}'
    assert control(config_text(models, other)) is CODE.OK
    assert ask(server, tensor_request("other", item=([1], [b"abc"])))[0] is CODE.OK
    outside = other.replace(f"{models}/m", str(tmp_path))
    assert control(config_text(models, outside)) is CODE.PERMISSION_DENIED
    # One that waits for a model that never comes gives way to the next.
    never = other.replace("other", "late").replace(f"{models}/m", f"{models}/never")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(control, config_text(models, never))
        time.sleep(0.5)
        assert control(config_text(models)) is CODE.OK
        assert waiting.result() is CODE.ABORTED
    assert control("model_config_list {}") is CODE.OK
    assert ask(server, tensor_request(item=([1], [b"abc"])))[0] is CODE.NOT_FOUND


# Connections


def test_idle_and_half_sent_connections_shut_nobody_out(start_server, models):
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, limit[1]))
        server = start_server(
            f"--model_config_file={models}/models.config",
            "--host=127.0.0.1",
            "--max_connections=200",
            "--connection_header_seconds=3",
        )
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    halves = [
        b"",
        b"POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nContent-",
        b"POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{",
    ]
    held = []
    try:
        for number in range(1100):
            for port, data in (
                (server.rest_port, halves[number % 3]),
                (server.port, b"PRI * HTTP/2.0\r\n"[: number % 16]),
            ):
                with contextlib.suppress(OSError):
                    held.append(socket.create_connection(("127.0.0.1", port), TIMEOUT))
                    held[-1].sendall(data)
        assert post(server, b'{"instances": [{"item": "abc"}]}')[0] == 200
        deadline = time.monotonic() + 30
        while ask(server, tensor_request(item=([1], [b"abc"])))[0] is not CODE.OK:
            assert time.monotonic() < deadline, "gRPC's half-open connections were kept"
    finally:
        for each in held:
            each.close()


def test_connections_that_say_nothing_are_ended(server):
    for data in (b"", b"POST /v1/models/m:predict HTTP/1.1\r\nHost", b"GET /v1/models/m HTTP/1.1\r\nHost: x\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", server.rest_port), 15) as connection:
            connection.sendall(data)
            with contextlib.suppress(ConnectionResetError):
                while connection.recv(65536):
                    pass
    body = b"POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"
    with socket.create_connection(("127.0.0.1", server.rest_port), 15) as connection:
        connection.sendall(body)
        assert b"504" in connection.recv(65536)


def test_a_call_that_never_sends_its_message_is_ended(server):
    """Headers alone, as no client of gRPC sends them."""
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"")
    block = b"".join(
        [b"\x83\x86\x44", text(PREDICT), b"\x41", text("localhost"), b"\x40", text("te"), text("trailers"),
         b"\x5f", text("application/grpc")]
    )  # fmt: skip
    with socket.create_connection(("127.0.0.1", server.port), 30) as connection:
        connection.settimeout(30)
        connection.sendall(preface + frame(1, 4, 1, block))
        seen = b""
        while (part := connection.recv(65536)) and frame_types(seen + part).isdisjoint({3, 7}):
            seen += part
            if 6 in frame_types(seen):
                break
        assert part == b"" or frame_types(seen + part) & {1, 3, 7}


def text(value):
    return bytes([len(value)]) + value.encode()


def frame(kind, flags, stream, payload):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def frame_types(data):
    found, place = set(), 0
    while place + 9 <= len(data):
        found.add(data[place + 3])
        place += 9 + int.from_bytes(data[place : place + 3], "big")
    return found


# The end, and the start


def test_under_load_a_stopping_server_says_unavailable(start_server, models):
    server = start_server(f"--model_config_file={models}/models.config", "--host=127.0.0.1", "--num_session_threads=2")
    body = tensor_request(item=([1], [b"abc"])).SerializeToString()
    codes, stop = [], threading.Event()

    def load():
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            call = channel.unary_unary(PREDICT)
            while not stop.is_set():
                try:
                    call(body, timeout=TIMEOUT)
                except grpc.RpcError as error:
                    codes.append(error.code())
                    if len(codes) > 20_000:
                        return

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        running = [pool.submit(load) for _ in range(16)]
        time.sleep(1.5)
        assert not codes
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0
        stop.set()
        for each in running:
            each.result()
    assert set(codes) == {CODE.UNAVAILABLE}


def test_a_label_whose_version_is_gone_takes_no_other_down(start_server, models, tmp_path):
    config = tmp_path / "models.config"
    labels = 'version_labels { key: "stable" value: 1 } version_labels { key: "canary" value: 2 }'
    config.write_text(
        f'model_config_list {{ config {{ name: "m" base_path: "{models}/m" model_platform: "tensorflow" '
        f"model_version_policy {{ specific {{ versions: 1 versions: 2 }} }} {labels} }} }}"
    )
    server = start_server(f"--model_config_file={config}", "--host=127.0.0.1")
    request = tensor_request(item=([1], [b"abc"]))
    request.model_spec.version_label = "stable"
    assert ask(server, request)[0] is CODE.OK
    request.model_spec.version_label = "canary"
    assert ask(server, request)[0] is CODE.NOT_FOUND
    assert "canary" in server.stderr()


def test_client_certificates_need_an_authority(start_server, models, tmp_path):
    file = tmp_path / "ssl.config"
    file.write_text('server_key: "x" server_cert: "y" client_verify: true')
    server = start_server(f"--model_base_path={models}/m", f"--ssl_config_file={file}", wait=False)
    file_of_nonsense = tmp_path / "nonsense.config"
    file_of_nonsense.write_text('server_key: "x" server_cert: "y"')
    other = start_server(f"--model_base_path={models}/m", f"--ssl_config_file={file_of_nonsense}", wait=False)
    assert server.process.wait(60) == 2
    assert "client_verify needs custom_ca" in server.stderr()
    assert other.process.wait(60) != 0
    for each in (server, other):
        assert "Traceback" not in each.stderr()
