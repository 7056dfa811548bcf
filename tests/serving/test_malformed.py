"""What broken and hostile clients send, ten thousand requests: the right status each time, no crash, nothing kept."""

from __future__ import annotations

import gzip
import http.client
import json
import pathlib
import random
import socket

import grpc
import pytest
from google.protobuf.message import DecodeError

from tests.serving import saved_models
from tests.serving.test_swaps import resident_mib

pytestmark = pytest.mark.slow

REQUESTS = 10_000
TIMEOUT = 20.0
PREDICTION = "/tensorflow.serving.PredictionService/"
MODEL = "/tensorflow.serving.ModelService/"
# What a client's own mistake may be called. INTERNAL is for messages that are no protobuf, as gRPC itself says.
CLIENT_CODES = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "OUT_OF_RANGE", "UNIMPLEMENTED"}
HTTP_CODES = {200, 400, 404, 405, 413, 414, 429, 431, 501, 505}


@pytest.fixture(scope="module")
def server(start_server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    saved_models.half_plus_two(folder / "m", 1)
    config = folder / "models.config"
    config.write_text(
        f'model_config_list {{ config {{ name: "m" base_path: "{folder}/m" model_platform: "tensorflow" }} }}'
    )
    return start_server(f"--model_config_file={config}", "--enable_batching", "--max_message_bytes=100000")


def requests():
    from tensorflow_serving.apis import (
        classification_pb2,
        get_model_metadata_pb2,
        get_model_status_pb2,
        inference_pb2,
        predict_pb2,
        regression_pb2,
    )

    predict = predict_pb2.PredictRequest()
    predict.model_spec.name = "m"
    predict.inputs["x"].dtype = 1
    predict.inputs["x"].float_val.extend([1.0, 2.0])
    predict.inputs["x"].tensor_shape.dim.add(size=2)
    classify = classification_pb2.ClassificationRequest()
    classify.model_spec.name, classify.model_spec.signature_name = "m", "classify_x_to_y"
    example = classify.input.example_list.examples.add()
    example.features.feature["x"].float_list.value.append(1.0)
    regress = regression_pb2.RegressionRequest(input=classify.input)
    regress.model_spec.name, regress.model_spec.signature_name = "m", "regress_x_to_y"
    multi = inference_pb2.MultiInferenceRequest(input=classify.input)
    multi.tasks.add(method_name="tensorflow/serving/regress").model_spec.CopyFrom(regress.model_spec)
    metadata = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    metadata.model_spec.name = "m"
    status = get_model_status_pb2.GetModelStatusRequest()
    status.model_spec.name = "m"
    return {
        PREDICTION + "Predict": predict,
        PREDICTION + "Classify": classify,
        PREDICTION + "Regress": regress,
        PREDICTION + "MultiInference": multi,
        PREDICTION + "GetModelMetadata": metadata,
        MODEL + "GetModelStatus": status,
    }


def mutate(data: bytes, dice: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        kind, place = dice.randrange(5), dice.randrange(len(out) + 1)
        if kind == 0 and out:
            out[place % len(out)] = dice.randrange(256)
        elif kind == 1:
            out[place:place] = dice.randbytes(dice.randint(1, 8))
        elif kind == 2:
            del out[place : place + dice.randint(1, 8)]
        elif kind == 3:
            out[place:place] = out[dice.randrange(len(out) + 1) :][:16]
        else:
            out = out[:place]
    return bytes(out)


def test_fuzzed_protobufs(server):
    dice = random.Random(1)
    kinds = requests()
    wrong = []
    with server.channel() as channel:
        calls = {method: channel.unary_unary(method) for method in kinds}
        for _ in range(REQUESTS // 2):
            method = dice.choice(list(kinds))
            data = dice.randbytes(dice.randint(0, 300)) if dice.random() < 0.1 else None
            data = mutate(kinds[method].SerializeToString(), dice) if data is None else data
            try:
                calls[method](data, timeout=TIMEOUT)
                code = "OK"
            except grpc.RpcError as error:
                code = error.code().name
            try:
                type(kinds[method]).FromString(data)
                readable = True
            except DecodeError:
                readable = False
            if code not in CLIENT_CODES if readable else code != "INTERNAL":
                wrong.append((method, code, readable, data.hex()))
        with pytest.raises(grpc.RpcError) as caught:
            calls[PREDICTION + "Predict"](b"x" * 200_000, timeout=TIMEOUT)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert not wrong, wrong[:3]


def http_request(dice: random.Random) -> tuple[str, str, bytes, dict[str, str]]:
    path = dice.choice(["/v1/models/m:predict", "/v1/models/m:classify", "/v1/models/m", "/v1/models/m/metadata"])
    body = json.dumps(
        dice.choice(
            [
                {"instances": [1.0, 2.0]},
                {"inputs": {"x": [[1.0]]}},
                {"signature_name": "classify_x_to_y", "examples": [{"x": 1.0}], "context": {"x": 2.0}},
            ]
        )
    ).encode()
    method = dice.choice(["POST", "POST", "POST", "GET", "PUT", "DELETE", "OPTIONS", "HEAD"])
    headers = {}
    kind = dice.randrange(6)
    if kind == 0:
        path = "/" + "".join(chr(dice.randint(33, 126)) for _ in range(dice.randint(0, 60)))
    elif kind == 1:
        path += dice.choice(["/versions/x", "/versions/99999999999999999999", "/labels/", ":", "%00", "//", "?a=b"])
    elif kind == 2:
        headers = {"Content-Encoding": dice.choice(["gzip", "deflate", "br", "x"])}
        body = gzip.compress(b" " * 1_000_000) if dice.random() < 0.1 else mutate(gzip.compress(body), dice)
    elif kind == 3:
        headers = {"X-" + "a" * dice.randint(1, 100): "b" * dice.randint(0, 20_000)}
    elif kind == 4:
        body = dice.choice(
            [b"[" * 5000, b'{"instances":' * 500, b"\x00" * 100, b"9" * 5000, b'{"inputs": {"x": 1e999}}']
        )
    else:
        body = mutate(body, dice)
    return method, path, body, headers


def test_fuzzed_http(server):
    dice = random.Random(2)
    wrong = []
    for _ in range(REQUESTS // 2):
        method, path, body, headers = http_request(dice)
        connection = http.client.HTTPConnection("localhost", server.rest_port, timeout=TIMEOUT)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            response.read()
            if response.status not in HTTP_CODES:
                wrong.append((method, path, body[:100], headers, response.status))
        except http.client.InvalidURL:
            pass  # this client would not send it
        finally:
            connection.close()
    assert not wrong, wrong[:3]


def test_half_open_connections_and_noise_leave_nothing_behind(server):
    dice = random.Random(3)
    descriptors = pathlib.Path(f"/proc/{server.process.pid}/fd")

    def healthy():
        connection = http.client.HTTPConnection("localhost", server.rest_port, timeout=TIMEOUT)
        connection.request("POST", "/v1/models/m:predict", b'{"instances": [2.0]}')
        assert json.loads(connection.getresponse().read()) == {"predictions": [3.0]}
        connection.close()
        with server.channel() as channel:
            kinds = requests()
            channel.unary_unary(PREDICTION + "Predict")(
                kinds[PREDICTION + "Predict"].SerializeToString(), timeout=TIMEOUT
            )

    def round_of_noise():
        held = []
        for number in range(60):
            for port in (server.port, server.rest_port):
                connection = socket.create_connection(("localhost", port), TIMEOUT)
                noise = [
                    b"",
                    b"POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{",
                    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + dice.randbytes(50),
                    dice.randbytes(200),
                ][number % 4]
                connection.sendall(noise)
                held.append(connection)
        healthy()
        for connection in held:
            connection.close()
        healthy()

    round_of_noise()
    before, memory = len(list(descriptors.iterdir())), resident_mib(server.process.pid)
    for _ in range(4):
        round_of_noise()
    assert len(list(descriptors.iterdir())) <= before + 20
    assert resident_mib(server.process.pid) <= memory * 1.10 + 5
    assert server.process.poll() is None
