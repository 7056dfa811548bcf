"""`make fuzz-serving`: valid protocols, hostile contents. The last line of the output is one JSON object.

Hypothesis draws requests that parse (so that they get past the protocols' own checks) with shapes, ranks, types,
encodings and sizes that no client means, and sends them over gRPC and REST to a model server and to a router before
it. A second client in a process of its own asks for one row all the while. Wanted: nobody dies, no 5xx but 503, memory
within 1.5 times that of the start, and the second client's p99 under 100 ms.
"""

from __future__ import annotations

import argparse
import base64
import collections
import concurrent.futures
import contextlib
import gzip
import http.client
import json
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import hypothesis
import numpy as np
from hypothesis import strategies as st

from tests.serving import saved_models
from tests.serving.conftest import ServerFactory, ServerProcess, unused_port
from tests.serving.test_swaps import resident_mib

ROOT = pathlib.Path(__file__).parents[2]
SERVICE = "/tensorflow.serving."
TIMEOUT = 60.0
IN_FLIGHT = 4
# What gRPC's codes are as HTTP, of those that are 5xx and not 503.
SERVER_FAULTS = {grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL, grpc.StatusCode.DATA_LOSS}
SERVER_FAULTS |= {grpc.StatusCode.DEADLINE_EXCEEDED}
CONFIG = """\
name: m
data: {{source: none.csv, user: user, item: item, label: {{column: liked}}, split: {{by: hash}}}}
features: {{user: {{kind: vocabulary, of: user}}, item: {{kind: vocabulary, of: item}}}}
serving: {{folder: {served}, server: {server}}}
"""

# Requests

sizes = st.sampled_from([0, 1, 2, 3, 7, 100, 1 << 10, 1 << 16, (1 << 16) + 1, 1 << 22, 1 << 24, 1 << 31, 1 << 62, -1])
ranks = st.one_of(st.integers(0, 3), st.sampled_from([8, 16, 17, 31, 32, 33, 34, 63, 64, 65, 254, 255, 300]))
shapes = ranks.flatmap(lambda rank: st.lists(sizes, min_size=rank, max_size=rank) if rank < 5 else st.just([1] * rank))
repeats = st.sampled_from([0, 1, 1, 1, 1, 2, 3, 1000, 20_000, 70_000])
texts = st.one_of(st.text(max_size=8), st.sampled_from(["", "a", "x" * 5000, "\x00", "é", "1" * 400]))
names = st.one_of(st.sampled_from(["item", "item", "age", "examples", "x", ""]), texts)
models = st.sampled_from([*["m"] * 12, "other", ""])
signatures = st.sampled_from([*[""] * 6, "serving_default", "rank", "serve_examples", "transform_features", "none"])


@st.composite
def tensors(draw: st.DrawFn, name: str) -> Any:
    """A tensor for an input, mostly of its type."""
    from tensorflow.core.framework import tensor_pb2

    types = st.sampled_from(
        [*{"item": [7] * 20, "age": [9] * 20}.get(name, []), 7, 9, 1, 2, 3, 10, 14, 18, 20, 0, 99, 107]
    )
    tensor = tensor_pb2.TensorProto(dtype=draw(types))
    count = draw(repeats)
    shape = [count] if draw(st.booleans()) else draw(shapes)
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    right = {7: ["string_val"] * 8, 9: ["int64_val"] * 8}.get(tensor.dtype, [])
    kind = draw(st.sampled_from([*right, "string_val", "int64_val", "float_val", "content", "none"]))
    if kind == "string_val":
        tensor.string_val.extend([draw(texts).encode("utf-8", "replace")] * count)
    elif kind == "int64_val":
        tensor.int64_val.extend([draw(st.integers(-(2**63), 2**63 - 1))] * count)
    elif kind == "float_val":
        tensor.float_val.extend([draw(st.floats(width=32))] * count)
    elif kind == "content":
        tensor.tensor_content = draw(st.binary(max_size=16)) * count
    if draw(st.integers(0, 20)) == 0:
        tensor.tensor_shape.unknown_rank = True
    return tensor


def examples(draw: st.DrawFn, target: Any) -> None:
    from tensorflow.core.example import example_pb2

    example = example_pb2.Example()
    for name in draw(st.lists(names, max_size=3)):
        feature, count = example.features.feature[name], draw(repeats)
        if draw(st.booleans()):
            feature.bytes_list.value.extend([draw(texts).encode("utf-8", "replace")] * min(count, 5000))
        else:
            feature.int64_list.value.extend([draw(st.integers(-5, 5))] * count)
    count = draw(st.sampled_from([0, 1, 2, 500, 70_000]))
    if example.ByteSize() * count > 4 << 20:
        count = 1
    if draw(st.booleans()):
        target.example_list.examples.extend([example] * count)
    else:
        target.example_list_with_context.context.CopyFrom(example)
        for _ in range(count):
            target.example_list_with_context.examples.add()


@st.composite
def grpc_calls(draw: st.DrawFn) -> tuple[str, bytes]:
    """A method's full name and a request message of its type."""
    from tensorflow_serving.apis import (
        classification_pb2,
        get_model_metadata_pb2,
        get_model_status_pb2,
        inference_pb2,
        model_management_pb2,
        predict_pb2,
        regression_pb2,
    )

    kinds: dict[str, Any] = {
        "PredictionService/Predict": predict_pb2.PredictRequest,
        "PredictionService/Classify": classification_pb2.ClassificationRequest,
        "PredictionService/Regress": regression_pb2.RegressionRequest,
        "PredictionService/MultiInference": inference_pb2.MultiInferenceRequest,
        "PredictionService/GetModelMetadata": get_model_metadata_pb2.GetModelMetadataRequest,
        "ModelService/GetModelStatus": get_model_status_pb2.GetModelStatusRequest,
        "ModelService/HandleReloadConfigRequest": model_management_pb2.ReloadConfigRequest,
    }
    method = draw(st.sampled_from([*["PredictionService/Predict"] * 6, *kinds]))
    request = kinds[method]()
    if method.endswith("HandleReloadConfigRequest"):
        for _ in range(draw(st.integers(0, 2))):  # the model itself stays: everything else is tried on it
            request.config.model_config_list.config.add(name=draw(texts), base_path="/nowhere/" + draw(texts))
        return SERVICE + method, request.SerializeToString()
    for spec in (
        [request.model_spec]
        if method != "PredictionService/MultiInference"
        else [
            request.tasks.add(method_name=draw(st.sampled_from(["tensorflow/serving/regress", "x"]))).model_spec
            for _ in range(draw(st.sampled_from([0, 1, 2, 3000])))
        ]
    ):
        spec.name, spec.signature_name = draw(models) if len(request.ListFields()) < 3 else "m", draw(signatures)
        choice = draw(st.integers(0, 9))
        if choice == 0:
            spec.version.value = draw(st.integers(-(2**63), 2**63 - 1))
        elif choice == 1:
            spec.version_label = draw(texts)
        if method == "PredictionService/MultiInference" and len(request.tasks) > 3:
            break
    if method == "PredictionService/Predict":
        inputs = st.one_of(st.lists(st.sampled_from(["item", "age"]), max_size=2), st.lists(names, max_size=3))
        for name in draw(inputs):
            request.inputs[name].CopyFrom(draw(tensors(name)))
        request.output_filter.extend(draw(st.lists(st.sampled_from(["score", "scores", "x"]), max_size=2)))
    elif "input" in request.DESCRIPTOR.fields_by_name:
        examples(draw, request.input)
    elif method.endswith("Metadata"):
        request.metadata_field.extend(["signature_def"] * draw(repeats))
    return SERVICE + method, request.SerializeToString()


scalars = st.one_of(
    st.integers(-(2**70), 2**70), st.floats(), st.booleans(), st.none(), texts,
    st.builds(lambda data: {"b64": base64.b64encode(data).decode()}, st.binary(max_size=9)),
    st.just({"b64": "?"}), st.just({}),
)  # fmt: skip


@st.composite
def json_values(draw: st.DrawFn) -> str:
    """A JSON value as text, perhaps in many brackets or many times over."""
    value = json.dumps(draw(scalars))
    count = draw(repeats)
    if draw(st.booleans()):
        value = f"[{','.join([value] * count)}]"
    depth = draw(st.sampled_from([0, 0, 0, 1, 2, 31, 32, 33, 34, 64, 65, 1030, 5000]))
    return "[" * depth + value + "]" * depth


@st.composite
def rest_calls(draw: st.DrawFn) -> tuple[str, str, bytes, dict[str, str]]:
    """Method, path, body and headers."""
    place = draw(
        st.sampled_from(["", "", "", "", "/versions/1", "/versions/" + "9" * 5000, "/labels/x", "/labels/%ff"])
    )
    verb = draw(st.sampled_from(["predict"] * 4 + ["classify", "regress", "explain"]))
    path = f"/v1/models/{draw(st.sampled_from(['m', 'm', 'm', 'other', '%00', '%ED%A0%80']))}{place}"
    if draw(st.integers(0, 9)) == 0:
        return "GET", path + draw(st.sampled_from(["", "/metadata"])), b"", {}
    fields = [f"{json.dumps(draw(names))}: {draw(json_values())}" for _ in range(draw(st.integers(0, 3)))]
    row = "{" + ", ".join(fields) + "}"
    count = min(draw(repeats), max(1, (3 << 20) // len(row)))
    body = draw(
        st.sampled_from(
            [
                f'{{"inputs": {row}}}',
                f'{{"instances": [{", ".join([row] * count)}]}}',
                f'{{"signature_name": {json.dumps(draw(signatures))}, "inputs": {row}}}',
                f'{{"signature_name": "serve_examples", "examples": [{", ".join([row] * count)}], "context": {row}}}',
                f'{{"instances": {draw(json_values())}}}',
                draw(json_values()),
                '{"inputs": {"age": [1e400]}}',
                '{"instances": [NaN, "\\ud800"]}',
                " " * count,
            ]
        )
    ).encode("utf-8", "replace")
    headers = {"recsys-user": draw(st.sampled_from(["1", "é", "x" * 4000]))} if draw(st.booleans()) else {}
    encoding = draw(st.sampled_from([None] * 6 + ["gzip", "gzip", "deflate", "br", "gzip, gzip", "bomb", "cut"]))
    if encoding == "gzip":
        body = gzip.compress(body, 1)
    elif encoding == "deflate":
        body = zlib.compress(body, 1)
    elif encoding == "bomb":
        body, encoding = BOMB, "gzip"
    elif encoding == "cut":
        body, encoding = gzip.compress(body, 1)[:-5], "gzip"
    if encoding:
        headers["Content-Encoding"] = encoding
    return "POST", path + ":" + verb, body, headers


def _bomb() -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join(packer.compress(b" " * (1 << 20)) for _ in range(64)) + packer.flush()


BOMB = _bomb()

# Who is asked, and what came of it


@dataclass
class Outcome:
    """What was seen."""

    counts: collections.Counter[str] = field(default_factory=collections.Counter)
    faults: list[str] = field(default_factory=list)

    def add(self, where: str, status: str, fault: bool, what: object) -> None:
        """Count an answer; keep the first requests that were answered as they must not be."""
        self.counts[f"{where} {status}"] += 1
        if fault and len(self.faults) < 20:
            self.faults.append(f"{where} {status}: {repr(what)[:500]}")


class Sender:
    """Sends what was drawn, a few at once."""

    def __init__(self, targets: dict[str, ServerProcess]):
        self.outcome = Outcome()
        self._targets = targets
        self._channels = {name: grpc.insecure_channel(f"127.0.0.1:{each.port}") for name, each in targets.items()}
        self._pool = concurrent.futures.ThreadPoolExecutor(IN_FLIGHT)
        self._room = threading.Semaphore(IN_FLIGHT * 2)

    def send(self, call: Callable[..., None], *arguments: Any) -> None:
        """Send when there is room."""
        self._room.acquire()
        self._pool.submit(call, *arguments).add_done_callback(self._done)

    def _done(self, future: concurrent.futures.Future[None]) -> None:
        self._room.release()
        if error := future.exception():
            self.outcome.faults.append(f"the fuzzer itself failed: {error!r}")

    def grpc(self, where: str, method: str, data: bytes) -> None:
        """One call."""
        try:
            self._channels[where].unary_unary(method)(data, timeout=TIMEOUT)
            code = grpc.StatusCode.OK
        except grpc.RpcError as error:
            code = error.code()
            if code in SERVER_FAULTS:
                method += f" {error.details()}"
        self.outcome.add(f"{where} gRPC", code.name, code in SERVER_FAULTS, (method, data))

    def rest(self, where: str, method: str, path: str, body: bytes, headers: dict[str, str]) -> None:
        """One request, on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self._targets[where].rest_port, timeout=TIMEOUT)
        text = b""
        try:
            with contextlib.suppress(
                BrokenPipeError, ConnectionResetError
            ):  # a refused body need not be read to its end
                connection.request(method, path, body, {key: value.encode() for key, value in headers.items()})  # type: ignore[misc]
            response = connection.getresponse()
            text, status = response.read(), response.status
        except (ConnectionError, http.client.HTTPException):
            status = 0
        finally:
            connection.close()
        # A connection that was reset while its refused body was under way has no status to be read.
        fault = (status >= 500 and status != 503) or (status == 0 and len(body) < 100_000)
        self.outcome.add(f"{where} REST", str(status), fault, (method, path, headers, text[:200], body))

    def close(self) -> None:
        """Wait for what is under way."""
        self._pool.shutdown()
        for channel in self._channels.values():
            channel.close()


def neighbour(port: int) -> None:
    """The second client's process: asks for one row, over and over, until its standard input ends."""
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name = "m"
    request.inputs["item"].dtype = 7
    request.inputs["item"].string_val.append(b"abc")
    request.inputs["item"].tensor_shape.dim.add(size=1)
    data, stop, latencies, failed = request.SerializeToString(), threading.Event(), [], 0
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(SERVICE + "PredictionService/Predict")
        call(data, timeout=TIMEOUT)
        print("ready", flush=True)
        while not stop.is_set():
            start = time.perf_counter()
            try:
                call(data, timeout=TIMEOUT)
            except grpc.RpcError:
                failed += 1
            latencies.append((time.perf_counter() - start) * 1000)
            time.sleep(0.002)
    p50, p99 = np.percentile(latencies, [50, 99])
    print(json.dumps({"requests": len(latencies), "failed": failed, "p50_ms": round(p50, 2), "p99_ms": round(p99, 2)}))


@contextlib.contextmanager
def targets(folder: pathlib.Path) -> Iterator[dict[str, ServerProcess]]:
    """A model server and a router before it."""
    saved_models.ranking(folder / "served" / "m")
    factory = ServerFactory(folder)
    router = None
    try:
        server = factory("--model_name=m", f"--model_base_path={folder}/served/m", "--host=127.0.0.1")
        config = folder / "m.yaml"
        config.write_text(CONFIG.format(served=folder / "served", server=server.grpc_address))
        port, rest_port = unused_port(), unused_port()
        command = [pathlib.Path(sys.executable).parent / "recsys", "release", "route", config, "--host=127.0.0.1"]
        command += [f"--port={port}", f"--rest-port={rest_port}", f"--rest-server={server.rest_address}"]
        command += ["--admin-port=0"]
        log = folder / "router.log"
        with log.open("wb") as out:
            process = subprocess.Popen(list(map(str, command)), stdout=out, stderr=out, cwd=ROOT)
        router = ServerProcess(process, port, rest_port, log)
        router.wait_until_ready()
        yield {"server": server, "router": router}
    finally:
        if router:
            router.stop()
        factory.stop()


def fuzz(requests: int, seed: int) -> dict[str, Any]:
    """Send so many requests; returns what was seen."""
    with tempfile.TemporaryDirectory() as folder, targets(pathlib.Path(folder)) as found:
        sender = Sender(found)
        before: dict[str, float] = {}
        most: dict[str, float] = collections.defaultdict(float)
        second = subprocess.Popen(
            [sys.executable, "-m", "tests.serving.fuzz", "--neighbour", str(found["server"].port)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT,
        )  # fmt: skip
        assert second.stdout is not None
        assert second.stdout.readline() == b"ready\n"
        sent = 0

        @hypothesis.seed(seed)
        @hypothesis.settings(
            max_examples=requests, deadline=None, database=None, phases=[hypothesis.Phase.generate],
            suppress_health_check=list(hypothesis.HealthCheck), verbosity=hypothesis.Verbosity.quiet,
        )  # fmt: skip
        @hypothesis.given(
            st.sampled_from(["server", "server", "router"]),
            st.one_of(grpc_calls(), rest_calls()),
        )
        def run(where: str, call: Any) -> None:
            nonlocal sent
            sent += 1
            sender.send(sender.grpc if len(call) == 2 else sender.rest, where, *call)
            if sent == 20:  # what the first requests bring in stays
                before.update({name: resident_mib(each.process.pid) for name, each in found.items()})
            if sent % 50 == 0:
                for name, each in found.items():
                    if each.process.poll() is not None:
                        raise SystemExit(f"the {name} died with {each.process.returncode}:\n{each.stderr()[-2000:]}")
                    most[name] = max(most[name], resident_mib(each.process.pid))

        run()
        sender.close()
        neighbours = json.loads(second.communicate(b"")[0])
        dead = [name for name, each in found.items() if each.process.poll() is not None]
    return {
        "requests": sum(sender.outcome.counts.values()),
        "dead": dead,
        "server_faults": len(sender.outcome.faults),
        "faults": sender.outcome.faults,
        "answers": dict(sorted(sender.outcome.counts.items())),
        "memory_ratio": {name: round(most[name] / before[name], 3) for name in before},
        "second_client": neighbours,
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--neighbour", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.neighbour:
        neighbour(options.neighbour)
        return
    seen = fuzz(options.requests, options.seed)
    faults = seen.pop("faults")
    for each in faults:
        print(each)
    for answer, count in seen["answers"].items():
        print(f"{count:8} {answer}")
    print(json.dumps(seen))
    sys.exit(bool(faults or seen["dead"]))


if __name__ == "__main__":
    main()
