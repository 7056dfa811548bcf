from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from configs import load_config
from serving.client import connect
from serving.release import CANARY, STABLE, Release
from serving.router.split import choose_arm
from serving.server.status import ServingError
from tests.serving import saved_models
from tests.serving.conftest import ServerProcess, unused_port

pytestmark = pytest.mark.slow

RECSYS = Path(sys.executable).parent / "recsys"
CONFIG = """\
name: ranking
data: {{source: none.csv, user: user, item: item, time: when, label: {{column: liked}}, split: {{by: hash}}}}
features: {{user: {{kind: vocabulary, of: user}}, item: {{kind: vocabulary, of: item}}}}
serving:
  folder: {served}
  server: {server}
  rollback: {{min_requests: 20, check_seconds: 0.5, max_p99_ratio: 1000}}
"""


class RoutedServer:
    """A model server, a router before it, and the release of the model they serve."""

    def __init__(self, server: ServerProcess, folder: Path):
        self.server = server
        self.config = folder / "ranking.yaml"
        self.config.write_text(CONFIG.format(served=folder / "served", server=server.grpc_address))
        self.release = Release.of(load_config(self.config))
        self.port, self.rest_port = unused_port(), unused_port()
        self.log = folder / "router.log"

    def command(self, *arguments: str) -> list[str]:
        return [str(RECSYS), "release", arguments[0], str(self.config), *arguments[1:]]

    def start(self) -> None:
        command = self.command("route", "--host=localhost", f"--port={self.port}", f"--rest-port={self.rest_port}")
        command.append(f"--rest-server={self.server.rest_address}")
        with self.log.open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=Path(__file__).parents[3])
        self.router = ServerProcess(process, self.port, self.rest_port, self.log)
        self.router.wait_until_ready()


@pytest.fixture(scope="module")
def routed(start_server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("routed")
    for version in (1, 2):
        saved_models.ranking(folder / "served" / "ranking", version, offset=float(version))
    server = start_server("--model_name=ranking", f"--model_base_path={folder}/served/ranking")
    routed = RoutedServer(server, folder)
    routed.start()
    yield routed
    routed.router.stop()


ITEM = {"item": ["zzz"]}
SCORES = {STABLE: 4.3, CANARY: 5.3}


def ask(routed: RoutedServer, user: str, wire: str) -> float:
    if wire == "rest":
        request = urllib.request.Request(
            f"http://localhost:{routed.rest_port}/v1/models/ranking:predict",
            data=json.dumps({"inputs": ITEM}).encode(),
            headers={"recsys-user": user},
        )
        return round(json.load(urllib.request.urlopen(request))["outputs"][0], 3)
    return round(_predict(routed, metadata=[("recsys-user", user)]).outputs["score"].float_val[0], 3)


def _predict(routed: RoutedServer, metadata=(), **spec):
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    request = predict_pb2.PredictRequest()
    request.model_spec.name = "ranking"
    for name, value in spec.items():
        setattr(request.model_spec, name, value)
    request.inputs["item"].CopyFrom(tf.make_tensor_proto(["zzz"]))
    with grpc.insecure_channel(f"localhost:{routed.port}") as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        return stub.Predict(request, 10.0, metadata=metadata)


def report(routed: RoutedServer):
    return json.load(urllib.request.urlopen(f"http://localhost:{routed.rest_port}/router/report"))


def test_before_a_release_everything_passes_as_it_came(routed):
    for target in (f"grpc://localhost:{routed.port}", f"http://localhost:{routed.rest_port}"):
        with connect(target, "ranking") as client:
            assert [each.state for each in client.status()] == ["AVAILABLE"]
            assert round(float(client.rank({"age": 30}, ITEM)[0]), 3) == SCORES[CANARY]  # the newest version
        with connect(target, "nobody") as client, pytest.raises(Exception, match=r"(?i)not found"):
            client.rank({"age": 30}, ITEM)


@pytest.mark.parametrize("wire", ["grpc", "rest"])
def test_every_user_has_one_arm_on_both_protocols(routed, wire):
    routed.release.promote(1)
    routed.release.canary(40, version=2, shadow_percent=100)
    time.sleep(1.1)  # the split is looked at every second
    before = report(routed)["arms"]
    users = [f"user {number}" for number in range(60)]
    with ThreadPoolExecutor(8) as pool:
        answers = dict(zip(users, pool.map(lambda user: ask(routed, user, wire), users), strict=True))
    route = routed.release.standing().route
    assert answers == {user: SCORES[choose_arm(user, route)] for user in users}
    deadline = time.monotonic() + 10  # shadow copies come after the answers
    while (after := report(routed)["arms"])[CANARY]["requests"] - before[CANARY]["requests"] < 60:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    stable = sum(choose_arm(user, route) == STABLE for user in users)
    assert after[STABLE]["requests"] - before[STABLE]["requests"] == stable
    assert after[CANARY]["shadows"] - before[CANARY]["shadows"] == stable
    assert after[STABLE]["errors"] == after[CANARY]["errors"] == 0
    assert after[STABLE]["score_mean"] == pytest.approx(4.3, abs=1e-3)
    assert after[CANARY]["score_mean"] == pytest.approx(5.3, abs=1e-3)
    if wire == "grpc":
        assert _predict(routed, metadata=[("recsys-user", "x")], version_label=CANARY).model_spec.version.value == 2
    with connect(f"grpc://localhost:{routed.port}", "ranking") as client:
        assert client.predict(ITEM).version == 1  # nobody in particular


def test_what_was_shown_is_noted_and_the_report_is_printed(routed):
    address = f"http://localhost:{routed.rest_port}/router/shown"
    body = json.dumps({"user": "ann", "items": ["zzz"]}).encode()
    urllib.request.urlopen(urllib.request.Request(address, data=body)).read()
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(urllib.request.Request(address, data=b'{"user": 1}'))
    assert error.value.code == 400
    time.sleep(1.0)  # it is kept every half second
    shown = subprocess.run(routed.command("report"), capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    for text in ("stable 1", "canary 2", "40 % canary", "p99 ms", "click-through rate"):
        assert text in shown.stdout
    kept = json.loads(subprocess.run(routed.command("report", "--json"), capture_output=True, check=True).stdout)
    assert kept["labels"] == {STABLE: 1, CANARY: 2}


def test_a_canary_that_fails_harms_nobody_and_is_taken_back(routed):
    """Version 3 has another input: every request the canary gets is wrong for it and right for the stable version."""
    base = Path(routed.release.standing().model and load_config(routed.config).model_folder)
    saved_models.answer_version(base, 3)
    routed.release.canary(50, version=3)
    time.sleep(1.1)
    users = [f"user {number}" for number in range(100)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda user: ask(routed, user, "grpc"), users))
    assert answers == [SCORES[STABLE]] * 100
    deadline = time.monotonic() + 20
    while "rolled back" not in routed.log.read_text():
        assert time.monotonic() < deadline, routed.log.read_text()
        time.sleep(0.1)
    assert routed.release.standing().labels == {STABLE: 1}
    assert "of the canary's requests failed" in routed.release.history()[-1].why
    with pytest.raises(ServingError, match="version 3 was rolled back"):
        routed.release.promote()
    assert ask(routed, "anyone", "rest") == SCORES[STABLE]


def test_no_request_fails_while_releases_change(routed):
    routed.release.canary(100, version=2)
    failed, done = [], []

    def keep_asking():
        while not done:
            try:
                ask(routed, "ann", "grpc")
            except grpc.RpcError as error:
                failed.append(error)

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(keep_asking) for _ in range(4)]
        try:
            for change in (
                lambda: routed.release.promote(),
                lambda: routed.release.rollback(),
                lambda: routed.release.canary(50, version=2),
                lambda: routed.release.rollback(),
            ):
                time.sleep(0.3)
                change()
            time.sleep(1.2)
        finally:
            done.append(True)
        for each in asking:
            each.result()
    assert failed == []


def test_kill_9_and_start_again(routed):
    routed.release.canary(40, version=2)
    time.sleep(1.1)
    users = [f"user {number}" for number in range(20)]
    before = [ask(routed, user, "grpc") for user in users]
    assert set(before) == set(SCORES.values())
    routed.router.process.kill()
    routed.router.process.wait()
    routed.start()
    assert [ask(routed, user, "rest") for user in users] == before
    command = routed.command("route", f"--port={routed.port}", "--host=localhost")
    taken = subprocess.run(command, capture_output=True, text=True, check=False)
    assert taken.returncode == 1
    assert "cannot listen" in taken.stderr
    os.kill(routed.router.process.pid, signal.SIGTERM)
    assert routed.router.process.wait(20) == 0
