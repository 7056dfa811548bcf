"""What clients of TensorFlow Serving rely on, asked of a real `recsys-model-server` process."""

from __future__ import annotations

import gzip
import json
import pathlib
import subprocess
import time
import types
import urllib.error
import urllib.parse
import urllib.request

import grpc
import pytest
from google.protobuf import text_format, wrappers_pb2

from tests.serving import saved_models
from tests.serving.conftest import unused_port

pytestmark = pytest.mark.slow
TIMEOUT = 20.0
ROOT = pathlib.Path(__file__).parents[2]


def poll(check, seconds: float = 30.0):
    """The first true answer of `check` within `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        answer = check()
        if answer or time.monotonic() > deadline:
            return answer
        time.sleep(0.05)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    saved_models.half_plus_two(folder / "half_plus_two", 123, warmup=True)
    saved_models.half_plus_two(folder / "half_plus_three", 1, add=3.0)
    saved_models.half_plus_two(folder / "half_plus_three", 2, add=3.5)
    saved_models.ranking(folder / "ranking")
    (folder / "half_plus_two" / "not-a-version").mkdir()
    return folder


def config_text(folder: pathlib.Path, log: pathlib.Path | None = None, labels: str = "", extra: str = "") -> str:
    logging = (
        f'logging_config {{ log_collector_config {{ type: "" filename_prefix: "{log}" }} '
        "sampling_config { sampling_rate: 1.0 } }"
        if log
        else ""
    )
    return f"""
    model_config_list {{
      config {{ name: "half_plus_two" base_path: "{folder}/half_plus_two" model_platform: "tensorflow" {logging} }}
      config {{ name: "half_plus_three" base_path: "{folder}/half_plus_three" model_platform: "tensorflow"
               model_version_policy {{ all {{}} }} {labels} }}
      config {{ name: "ranking" base_path: "{folder}/ranking" model_platform: "tensorflow" }}
      {extra}
    }}"""


LABELS = 'version_labels { key: "stable" value: 1 } version_labels { key: "canary" value: 2 }'


@pytest.fixture(scope="module")
def files(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("config")
    found = types.SimpleNamespace(
        folder=folder,
        models=folder / "models.config",
        socket=folder / "grpc.sock",
        log=folder / "log" / "requests",
        monitoring=folder / "monitoring.config",
    )
    found.models.write_text(config_text(models, found.log, LABELS))
    found.monitoring.write_text('prometheus_config { enable: true path: "/monitoring/prometheus/metrics" }')
    return found


@pytest.fixture(scope="module")
def server(start_server, files):
    return start_server(
        f"--model_config_file={files.models}",
        "--model_config_file_poll_wait_seconds=1",
        f"--monitoring_config_file={files.monitoring}",
        f"--grpc_socket_path={files.socket}",
        "--grpc_channel_arguments=grpc.max_connection_age_ms=20000,grpc.lb_policy_name=grpclb",
        "--enable_grpc_healthcheck_service",
        "--enable_grpc_reflection=true",
        "-rest_api_timeout_in_ms",
        "5000",
        "--noflush_filesystem_caches",
        "--max_message_bytes=1000000",
        "--max_batch_rows=1000",
        "--model_control_from=loopback",
    )


@pytest.fixture(scope="module")
def stubs(server):
    from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

    channel = server.channel()
    yield types.SimpleNamespace(
        prediction=prediction_service_pb2_grpc.PredictionServiceStub(channel),
        model=model_service_pb2_grpc.ModelServiceStub(channel),
        channel=channel,
    )
    channel.close()


def predict_request(model: str = "half_plus_two", x=2.0, **spec):
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    if "version" in spec:
        request.model_spec.version.value = spec["version"]
    if "label" in spec:
        request.model_spec.version_label = spec["label"]
    request.model_spec.signature_name = spec.get("signature", "")
    tensor = request.inputs["x"]
    tensor.dtype = 1
    tensor.float_val.append(x)
    tensor.tensor_shape.dim.add(size=1)
    return request


def fails(call, request, code: grpc.StatusCode, *texts: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=TIMEOUT)
    assert caught.value.code() == code, caught.value.details()
    for text in texts:
        assert text in caught.value.details()


def rest(server, path: str, body: object = None, data: bytes | None = None, headers=None, method: str | None = None):
    if body is not None:
        data = json.dumps(body).encode()
    request = urllib.request.Request(f"http://{server.rest_address}{path}", data, headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


# gRPC


def test_get_model_status(stubs):
    from tensorflow_serving.apis import get_model_status_pb2

    request = get_model_status_pb2.GetModelStatusRequest()
    fails(stubs.model.GetModelStatus, request, grpc.StatusCode.INVALID_ARGUMENT, "Missing ModelSpec")
    request.model_spec.name = "half_plus_two"
    (status,) = stubs.model.GetModelStatus(request, timeout=TIMEOUT).model_version_status
    assert (status.version, status.state, status.status.error_code) == (123, status.AVAILABLE, 0)
    request.model_spec.version.value = 7
    fails(stubs.model.GetModelStatus, request, grpc.StatusCode.NOT_FOUND, "Could not find version 7")
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "nobody"
    fails(stubs.model.GetModelStatus, request, grpc.StatusCode.NOT_FOUND, "Could not find any versions of model nobody")


def test_get_model_metadata(stubs):
    from tensorflow_serving.apis import get_model_metadata_pb2

    request = get_model_metadata_pb2.GetModelMetadataRequest()
    request.model_spec.name = "half_plus_two"
    call = stubs.prediction.GetModelMetadata
    fails(call, request, grpc.StatusCode.INVALID_ARGUMENT, "must specify at least one metadata_field")
    request.metadata_field.append("signature_def")
    response = call(request, timeout=TIMEOUT)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    response.metadata["signature_def"].Unpack(signatures)
    assert response.model_spec.version.value == 123
    assert signatures.signature_def["serving_default"].inputs["x"].dtype == 1
    assert "classify_x_to_y" in signatures.signature_def
    request.metadata_field.append("size")
    fails(call, request, grpc.StatusCode.INVALID_ARGUMENT, "Metadata field size is not supported")


@pytest.mark.parametrize("with_filter", [False, True])
def test_predict(stubs, with_filter):
    request = predict_request()
    if with_filter:
        request.output_filter.append("y")
    response = stubs.prediction.Predict(request, timeout=TIMEOUT)
    assert list(response.outputs["y"].float_val) == [3.0]
    assert response.outputs["y"].dtype == 1
    assert not response.outputs["y"].tensor_content
    spec = response.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("half_plus_two", 123, "serving_default")


def test_predict_by_version_and_label(stubs):
    for spec, expected in [
        ({}, 4.5),
        ({"version": 1}, 4.0),
        ({"label": "stable"}, 4.0),
        ({"label": "canary"}, 4.5),
    ]:
        response = stubs.prediction.Predict(predict_request("half_plus_three", **spec), timeout=TIMEOUT)
        assert list(response.outputs["y"].float_val) == [expected]


def test_predict_errors(stubs):
    predict, code = stubs.prediction.Predict, grpc.StatusCode
    fails(predict, predict_request("nobody"), code.NOT_FOUND, "Servable not found for request: Latest(nobody)")
    fails(
        predict,
        predict_request(version=7),
        code.NOT_FOUND,
        "Servable not found for request: Specific(half_plus_two, 7)",
    )
    fails(predict, predict_request(label="x"), code.INVALID_ARGUMENT, "Unrecognized servable version label: x")
    fails(predict, predict_request(""), code.INVALID_ARGUMENT, "ModelSpec has no name specified.")
    fails(predict, predict_request(signature="no"), code.FAILED_PRECONDITION, 'Serving signature key "no" not found.')
    request = predict_request()
    request.inputs["z"].CopyFrom(request.inputs["x"])
    fails(predict, request, code.INVALID_ARGUMENT, "input size does not match signature", "Sent extra: {z}")
    del request.inputs["x"]
    fails(predict, request, code.INVALID_ARGUMENT, "Missing but required: {x}")
    request = predict_request()
    request.output_filter.append("q")
    fails(predict, request, code.INVALID_ARGUMENT, "output tensor alias not found in signature: q")
    request.output_filter[:] = ["y", "y"]
    fails(predict, request, code.INVALID_ARGUMENT, "duplicate output tensor alias: y")
    request = predict_request()
    request.inputs["x"].dtype = 3
    fails(predict, request, code.INVALID_ARGUMENT, "to be float but int32 is provided")
    request = predict_request()
    request.inputs["x"].tensor_shape.dim[0].size = 10**12
    fails(predict, request, code.INVALID_ARGUMENT, "tensor parsing error")
    request = predict_request()
    request.inputs["x"].float_val.extend([1.0] * 2000)
    request.inputs["x"].tensor_shape.dim[0].size = 2001
    fails(predict, request, code.INVALID_ARGUMENT, "at most 1000 at once")
    request.inputs["x"].float_val.extend([1.0] * 500_000)
    fails(predict, request, code.RESOURCE_EXHAUSTED)
    broken = stubs.channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    fails(broken, b"\xff\xff\xff", code.INTERNAL)
    fails(stubs.channel.unary_unary("/tensorflow.serving.PredictionService/Nothing"), b"", code.UNIMPLEMENTED)


def test_classify_regress_and_multi_inference(stubs):
    from tensorflow_serving.apis import classification_pb2, inference_pb2, regression_pb2

    classify = classification_pb2.ClassificationRequest()
    classify.model_spec.name, classify.model_spec.signature_name = "half_plus_two", "classify_x_to_y"
    example = classify.input.example_list.examples.add()
    example.features.feature["x"].float_list.value.append(2.0)
    answer = stubs.prediction.Classify(classify, timeout=TIMEOUT)
    assert [each.score for each in answer.result.classifications[0].classes] == [3.0]
    assert answer.model_spec.version.value == 123
    assert answer.model_spec.signature_name == "classify_x_to_y"

    regress = regression_pb2.RegressionRequest()
    regress.model_spec.name, regress.model_spec.signature_name = "half_plus_two", "regress_x_to_y"
    regress.input.example_list_with_context.context.features.feature["x"].float_list.value.append(2.0)
    regress.input.example_list_with_context.examples.add()
    regress.input.example_list_with_context.examples.add()
    answer = stubs.prediction.Regress(regress, timeout=TIMEOUT)
    assert [each.value for each in answer.result.regressions] == [3.0, 3.0]

    multi = inference_pb2.MultiInferenceRequest()
    for method, signature in (("regress", "regress_x_to_y"), ("classify", "classify_x_to_y")):
        task = multi.tasks.add(method_name=f"tensorflow/serving/{method}")
        task.model_spec.name, task.model_spec.signature_name = "half_plus_two", signature
    multi.input.CopyFrom(classify.input)
    answer = stubs.prediction.MultiInference(multi, timeout=TIMEOUT)
    assert answer.results[0].regression_result.regressions[0].value == 3.0
    assert answer.results[1].classification_result.classifications[0].classes[0].score == 3.0
    assert [each.model_spec.version.value for each in answer.results] == [123, 123]

    code = grpc.StatusCode.INVALID_ARGUMENT
    classify.model_spec.signature_name = "regress_x_to_y"
    missing = "Expected classification signature outputs to contain at least one of"
    fails(stubs.prediction.Classify, classify, grpc.StatusCode.FAILED_PRECONDITION, missing)
    classify.model_spec.signature_name = "nothing"
    fails(stubs.prediction.Classify, classify, code, "No signature was found with the name: nothing")
    regress.input.Clear()
    fails(stubs.prediction.Regress, regress, code, "Input is empty.")
    multi.tasks[1].model_spec.signature_name = "regress_x_to_y"
    fails(stubs.prediction.MultiInference, multi, code, "Duplicate evaluation of signature: regress_x_to_y")
    multi.tasks[1].model_spec.name = "ranking"
    fails(stubs.prediction.MultiInference, multi, code, "must access the same model name")


def test_missing_inputs_take_the_signature_defaults(server, stubs):
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name = "ranking"
    tensor = request.inputs["item"]
    tensor.dtype = 7
    tensor.string_val.extend([b"a", b"xyz"])
    tensor.tensor_shape.dim.add(size=2)
    for signature, output in (("serving_default", "score"), ("rank", "scores")):
        request.model_spec.signature_name = signature
        response = stubs.prediction.Predict(request, timeout=TIMEOUT)
        assert list(response.outputs[output].float_val) == pytest.approx([101.3, 3.3])
    answer = rest(server, "/v1/models/ranking:predict", {"instances": [{"item": "a"}, {"item": "xyz"}]})
    assert answer == (200, {"predictions": pytest.approx([101.3, 3.3])})
    body = {"signature_name": "rank", "inputs": {"item": ["xyz"]}}
    assert rest(server, "/v1/models/ranking:predict", body) == (200, {"outputs": pytest.approx([3.3])})


def test_unix_socket_health_and_reflection(server, stubs, files):
    from grpc_health.v1 import health_pb2, health_pb2_grpc
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
    from tensorflow_serving.apis import prediction_service_pb2_grpc

    with grpc.insecure_channel(f"unix:{files.socket}") as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        assert list(stub.Predict(predict_request(), timeout=TIMEOUT).outputs["y"].float_val) == [3.0]
    health = health_pb2_grpc.HealthStub(stubs.channel).Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT)
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    stub = reflection_pb2_grpc.ServerReflectionStub(stubs.channel)
    (answer,) = stub.ServerReflectionInfo(
        iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=TIMEOUT
    )
    names = {each.name for each in answer.list_services_response.service}
    assert {"tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"} <= names


# REST


def test_rest_status_and_metadata(server):
    expected = {
        "model_version_status": [
            {"version": "123", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        ]
    }
    assert rest(server, "/v1/models/half_plus_two") == (200, expected)
    assert rest(server, "/V1/Models/half_plus_two/Versions/123") == (200, expected)
    status, metadata = rest(server, "/v1/models/half_plus_two/metadata")
    assert status == 200
    assert metadata["model_spec"] == {"name": "half_plus_two", "signature_name": "", "version": "123"}
    signature = metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["inputs"]["x"]["dtype"] == "DT_FLOAT"
    assert signature["method_name"] == "tensorflow/serving/predict"
    assert rest(server, "/v1/models/half_plus_three/labels/stable")[1]["model_version_status"][0]["version"] == "1"


def test_rest_predict_classify_regress(server):
    path = "/v1/models/half_plus_two:"
    assert rest(server, path + "predict", {"instances": [2.0, 3.0, 4.0]}) == (200, {"predictions": [3.0, 3.5, 4.0]})
    assert rest(server, path + "predict", {"instances": [{"x": [2.0]}]}) == (200, {"predictions": [[3.0]]})
    assert rest(server, path + "predict", {"inputs": [2.0, 3.0, 4.0]}) == (200, {"outputs": [3.0, 3.5, 4.0]})
    body = {"signature_name": "classify_x_to_y", "examples": [{"x": 2.0}]}
    assert rest(server, path + "classify", body) == (200, {"results": [[["", 3.0]]]})
    body = {"signature_name": "regress_x_to_y", "examples": [{"x": 2.0}]}
    assert rest(server, path + "regress", body) == (200, {"results": [3.0]})
    body = {"signature_name": "regress_x_to_y", "context": {"x": 4.0}, "examples": [{}, {"x": 2.0}]}
    assert rest(server, path + "regress", body) == (200, {"results": [4.0, 3.0]})
    for version in ("/versions/1", "/labels/stable"):
        answer = rest(server, f"/v1/models/half_plus_three{version}:predict", {"instances": [2.0]})
        assert answer == (200, {"predictions": [4.0]})
    packed = gzip.compress(json.dumps({"instances": [2.0]}).encode())
    assert rest(server, path + "predict", data=packed, headers={"Content-Encoding": "gzip"}) == (
        200,
        {"predictions": [3.0]},
    )


def test_rest_nan_infinity_and_whole_floats(server):
    request = urllib.request.Request(
        f"http://{server.rest_address}/v1/models/half_plus_two:predict", b'{"instances": [NaN, Infinity, 2, 0.4]}'
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        assert response.headers["Content-Type"] == "application/json"
        text = response.read().decode()
    assert text.replace(" ", "") == '{"predictions":[NaN,Infinity,3.0,2.2]}'


def test_rest_errors(server):
    path = "/v1/models/half_plus_two:predict"
    for answer, status, text in [
        (rest(server, "/v1/models/nobody:predict", {"instances": [1.0]}), 404, "Servable not found"),
        (rest(server, "/v1/models/half_plus_two/versions/7:predict", {"instances": [1.0]}), 404, "Specific("),
        (rest(server, "/v1/models/nobody"), 404, "Could not find any versions of model nobody"),
        (rest(server, "/v1/models"), 400, "Missing model name in request."),
        (rest(server, "/v1/models/half_plus_two/versions/99999999999999999999"), 400, "to numeric"),
        (rest(server, "/v1/nothing"), 400, "Malformed request: GET /v1/nothing"),
        (rest(server, "/"), 400, "Malformed request: GET /"),
        (rest(server, "/v1/models/half_plus_two:explain", {}), 400, "Malformed request: POST"),
        (rest(server, path), 400, "Malformed request: GET"),
        (rest(server, path, data=b"{}", method="PUT"), 400, "Malformed request: PUT"),
        (rest(server, path, data=b"{"), 400, "JSON Parse error"),
        (rest(server, path, data=b"[" * 100000), 400, "JSON Parse error"),
        (rest(server, path, data=b"\xff\xfe{}"), 400, "JSON Parse error"),
        (rest(server, path, []), 400, "Is not object"),
        (rest(server, path, {}), 400, "Missing 'inputs' or 'instances' key"),
        (rest(server, path, {"instances": [], "inputs": []}), 400, "only one of"),
        (rest(server, path, {"instances": []}), 400, "No values in 'instances'"),
        (rest(server, path, {"instances": 1}), 400, "to be an list/array"),
        (rest(server, path, {"instances": ["a"]}), 400, "is not of expected type: float"),
        (rest(server, path, {"instances": [None]}), 400, "Type: Null is not of expected type: float"),
        (rest(server, path, {"instances": [1.0, [2.0]]}), 400, "level"),
        (rest(server, path, {"instances": [[1.0], [2.0, 3.0]]}), 400, "unexpected size"),
        (rest(server, path, {"instances": [{"x": 1.0}, 2.0]}), 400, "Expecting object"),
        (rest(server, path, {"instances": [{"z": 1.0}]}), 400, "keys must be equal to: x"),
        (rest(server, path, {"instances": [16777217]}), 400, "without loss of precision"),
        (rest(server, path, {"signature_name": "no", "instances": [1.0]}), 400, 'name: "no" not found in signature'),
        (rest(server, path, {"signature_name": 1, "instances": [1.0]}), 400, "must be a string value"),
        (rest(server, path, data=b"x", headers={"Content-Encoding": "gzip"}), 400, ""),
        (rest(server, path, data=b" " * 2_000_000), 429, "too large"),
        (rest(server, path.replace("predict", "regress"), {}), 400, "'examples' is expected"),
    ]:
        assert answer[0] == status, (answer, text)
        assert text in answer[1]["error"]


def test_prometheus(server):
    with urllib.request.urlopen(
        f"http://{server.rest_address}/monitoring/prometheus/metrics", timeout=TIMEOUT
    ) as response:
        text = response.read().decode()
    assert "# TYPE :tensorflow:serving:request_count counter" in text
    assert (
        ':tensorflow:serving:request_latency_bucket{model_name="half_plus_two",API="Predict",entrypoint="GRPC",le="10"}'
        in text
    )
    assert ":tensorflow:serving:request_latency_sum" in text
    assert "half_plus_two" in text


@pytest.fixture(scope="module")
def prometheus_folder():
    done = subprocess.run(["deploy/prometheus.sh"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no Prometheus here: {done.stderr.strip()}")
    return pathlib.Path(done.stdout.strip().splitlines()[-1])


def test_a_real_prometheus_scrapes_it_and_every_query_works(server, stubs, prometheus_folder, tmp_path):
    from serving import deploy_files

    deployment = deploy_files.Deployment("half_plus_two", "/models/half_plus_two", rest_port=server.rest_port)
    deploy_files.write(deployment, tmp_path)
    subprocess.run([prometheus_folder / "promtool", "check", "rules", "alerts.yml"], cwd=tmp_path, check=True)
    scrape = (tmp_path / "prometheus.yml").read_text()
    scrape = scrape.replace(f"serving:{server.rest_port}", server.rest_address).replace("15s", "1s")
    (tmp_path / "prometheus.yml").write_text(scrape)
    subprocess.run([prometheus_folder / "promtool", "check", "config", "prometheus.yml"], cwd=tmp_path, check=True)
    stubs.prediction.Predict(predict_request(), timeout=TIMEOUT)
    address = f"localhost:{unused_port()}"
    process = subprocess.Popen(
        [
            prometheus_folder / "prometheus",
            "--config.file=prometheus.yml",
            f"--web.listen-address={address}",
            "--storage.tsdb.path=data",
        ],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def query(expression):
        url = f"http://{address}/api/v1/query?query={urllib.parse.quote(expression)}"
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
                return json.loads(response.read())["data"]["result"]
        except urllib.error.URLError as error:
            if isinstance(error, urllib.error.HTTPError) and error.code != 503:  # 503: Prometheus still starts
                raise  # the expression is wrong
            return []

    try:
        count = ':tensorflow:serving:request_count{model_name="half_plus_two",status="OK"}'
        assert poll(lambda: query(count), 60)
        assert query('up{job="serving"}')[0]["value"][1] == "1"
        dashboard = json.loads((tmp_path / "grafana" / "dashboard.json").read_text())
        expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
        for expression in expressions:  # a rate needs two scrapes
            assert poll(lambda expression=expression: query(expression), 30), expression
    finally:
        process.terminate()
        process.wait()


def test_requests_are_logged_as_prediction_logs(server, stubs, files):
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    for x in (10.0, 20.0):
        stubs.prediction.Predict(predict_request(x=x), timeout=TIMEOUT)
    rest(server, "/v1/models/half_plus_two:predict", {"instances": [30.0]})

    def seen():
        found = set()
        for file in files.log.parent.glob("requests-*"):
            try:
                for record in tf.compat.v1.io.tf_record_iterator(str(file)):
                    log = prediction_log_pb2.PredictionLog.FromString(record)
                    if log.HasField("predict_log") and log.log_metadata.model_spec.version.value == 123:
                        sent, answered = log.predict_log.request.inputs["x"], log.predict_log.response.outputs["y"]
                        pair = (tf.make_ndarray(sent).flat[0].item(), tf.make_ndarray(answered).flat[0].item())
                        found.add(pair)
            except tf.errors.DataLossError:  # the file is being written
                pass
        return found

    expected = {(10.0, 7.0), (20.0, 12.0), (30.0, 17.0)}
    # Small records wait in the writer's buffer until the file is finished, when the last test stops the server.
    server.expected_log = (seen, expected)


# Configuration


def test_reload_by_rpc(stubs, models, server):
    from tensorflow_serving.apis import model_management_pb2

    before = [text_format.Parse(config_text(models, labels=LABELS), _config())][0]
    request = model_management_pb2.ReloadConfigRequest(config=before)
    added = request.config.model_config_list.config.add(
        name="another", base_path=str(models / "half_plus_three"), model_platform="tensorflow"
    )
    added.model_version_policy.specific.versions.append(1)
    added.version_labels["only"] = 1
    response = stubs.model.HandleReloadConfigRequest(request, timeout=TIMEOUT)
    assert response.status.error_code == 0
    answer = stubs.prediction.Predict(predict_request("another", label="only"), timeout=TIMEOUT)
    assert list(answer.outputs["y"].float_val) == [4.0]

    code, reload = grpc.StatusCode, stubs.model.HandleReloadConfigRequest
    fails(reload, model_management_pb2.ReloadConfigRequest(), code.INVALID_ARGUMENT, "Only ModelConfigList")
    twice = model_management_pb2.ReloadConfigRequest(config=request.config)
    twice.config.model_config_list.config.add().CopyFrom(added)
    fails(reload, twice, code.INVALID_ARGUMENT, "another multiple times")
    changed = model_management_pb2.ReloadConfigRequest(config=request.config)
    changed.config.model_config_list.config[0].model_platform = "caffe"
    fails(reload, changed, code.INVALID_ARGUMENT, "platform")
    relative = model_management_pb2.ReloadConfigRequest(config=request.config)
    relative.config.model_config_list.config[0].base_path = "models"
    fails(reload, relative, code.INVALID_ARGUMENT, "absolute path")
    unavailable = model_management_pb2.ReloadConfigRequest(config=request.config)
    unavailable.config.model_config_list.config[1].version_labels["new"] = 99
    fails(reload, unavailable, code.FAILED_PRECONDITION, "not currently available for inference")

    stubs.model.HandleReloadConfigRequest(model_management_pb2.ReloadConfigRequest(config=before), timeout=TIMEOUT)
    fails(stubs.prediction.Predict, predict_request("another"), code.NOT_FOUND)


def _config():
    from tensorflow_serving.config import model_server_config_pb2

    return model_server_config_pb2.ModelServerConfig()


def test_config_file_is_polled(server, stubs, files, models):
    good = files.models.read_text()
    files.models.write_text("not a config {")
    time.sleep(1.5)
    assert stubs.prediction.Predict(predict_request(), timeout=TIMEOUT)
    # A model that never comes is waited for, and must not keep the next file from being read.
    never = f'config {{ name: "never" base_path: "{models}/never" model_platform: "tensorflow" }}'
    files.models.write_text(config_text(models, files.log, LABELS, never))
    time.sleep(1.5)
    assert stubs.prediction.Predict(predict_request(), timeout=TIMEOUT)
    files.models.write_text(
        config_text(
            models,
            files.log,
            LABELS.replace("1", "2"),
            f'config {{ name: "late" base_path: "{models}/half_plus_two" model_platform: "tensorflow" }}',
        )
    )

    def served():
        return rest(server, "/v1/models/late:predict", {"instances": [2.0]})[0] == 200

    assert poll(served), server.stderr()
    answer = stubs.prediction.Predict(predict_request("half_plus_three", label="stable"), timeout=TIMEOUT)
    assert list(answer.outputs["y"].float_val) == [4.5]
    files.models.write_text(good)
    assert poll(lambda: not served())


def test_versions_come_and_go(server, stubs, models):
    folder = models / "half_plus_two"
    saved_models.half_plus_two(folder, 124, add=4.0)

    def version():
        response = stubs.prediction.Predict(predict_request(), timeout=TIMEOUT)
        return response.model_spec.version.value, response.outputs["y"].float_val[0]

    assert poll(lambda: version() == (124, 5.0))
    corrupt = folder / "125"
    (folder / "124").joinpath("saved_model.pb").read_bytes()
    corrupt.mkdir()
    (corrupt / "saved_model.pb").write_bytes(b"not a model")
    assert poll(lambda: "125" in server.stderr() and "failed" in server.stderr())
    assert version() == (124, 5.0)
    (corrupt / "saved_model.pb").unlink()
    corrupt.rmdir()
    (folder / "124").rename(folder / "gone")
    assert poll(lambda: version() == (123, 3.0))


def test_graceful_stop_finishes_the_request_log(server, files):
    server.process.terminate()
    assert server.process.wait(20) == 0
    seen, expected = server.expected_log
    assert expected <= seen()
    assert not list(files.log.parent.glob("*.partial"))


# Starting


def wait_for_exit(server) -> tuple[int, str]:
    return server.process.wait(90), server.stderr()


def test_bad_starts_say_why_and_exit(start_server, tmp_path, models):
    bad = tmp_path / "bad.config"
    bad.write_text("improperly formatted file!\n")
    parameters = tmp_path / "batching.config"
    parameters.write_text("max_batch_size { value: 4 }")
    empty = tmp_path / "broken" / "1"
    empty.mkdir(parents=True)
    started = {
        "config": start_server(f"--model_config_file={bad}", wait=False),
        "batching": start_server(
            f"--model_base_path={models}/ranking", f"--batching_parameters_file={parameters}", wait=False
        ),
        "flag": start_server("--no_such_flag=1", wait=False),
        "broken": start_server(
            f"--model_base_path={empty.parent}",
            "--max_num_load_retries=1",
            "--load_retry_interval_micros=1000",
            wait=False,
        ),
    }
    code, text = wait_for_exit(started["config"])
    assert code != 0
    assert "Error parsing text-format tensorflow.serving.ModelServerConfig" in text
    assert f"Invalid protobuf file: '{bad}'" in text
    code, text = wait_for_exit(started["batching"])
    assert code != 0
    assert "--enable_batching" in text
    code, text = wait_for_exit(started["flag"])
    assert code != 0
    assert "no_such_flag" in text
    code, text = wait_for_exit(started["broken"])
    assert code != 0
    assert "1 model(s) did not become available" in text
    assert "UNKNOWN" in text


def test_version_spec_wrapper_is_an_int64value():
    """The wire type clients set; guards against a stub whose ModelSpec differs."""
    from tensorflow_serving.apis import model_pb2

    assert isinstance(model_pb2.ModelSpec().version, wrappers_pb2.Int64Value)
