from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import psutil
import pytest

from configs import load_config
from serving.client import connect
from serving.release import Release
from serving.release_state import CANARY, STABLE
from serving.router.split import choose_arm
from serving.server.status import ServingError
from tests.serving import saved_models
from tests.serving.conftest import ServerProcess, unused_port
from tests.serving.test_limits_and_tls import certificates

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
        self.port, self.rest_port, self.admin_port = unused_port(), unused_port(), unused_port()
        self.flags: list[str] = []
        self.log = folder / "router.log"

    def command(self, *arguments: str) -> list[str]:
        return [str(RECSYS), "release", arguments[0], str(self.config), *arguments[1:]]

    def start(self, wait: bool = True) -> None:
        command = self.command("route", "--host=localhost", f"--port={self.port}", f"--rest-port={self.rest_port}")
        command += [f"--rest-server={self.server.rest_address}", f"--admin-port={self.admin_port}", *self.flags]
        with self.log.open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=Path(__file__).parents[3])
        self.router = ServerProcess(process, self.port, self.rest_port, self.log)
        if wait:
            self.router.wait_until_ready()

    def admin(self, path: str, body: object = None, token: str | None = "") -> bytes:
        """Ask at the router's own address; '' is the token that it made."""
        token = (self.release.config_file.parent / "router.token").read_text().strip() if token == "" else token
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.admin_port}{path}", data=data)
        if token is not None:
            request.add_header("Authorization", f"Bearer {token}")
        return urllib.request.urlopen(request, timeout=20).read()


@pytest.fixture(scope="module")
def routed(start_server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("routed")
    for version in (1, 2):
        saved_models.ranking(folder / "served" / "ranking", version, offset=float(version))
    server = start_server("--model_name=ranking", f"--model_base_path={folder}/served/ranking")
    routed = RoutedServer(server, folder)
    routed.flags.append("--max-connections=50")
    routed.start()
    yield routed
    routed.router.stop()


ITEM = {"item": ["zzz"]}


def _request(**spec: object) -> bytes:
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name = "ranking"
    for name, value in spec.items():
        setattr(request.model_spec, name, value)
    request.inputs["item"].CopyFrom(tf.make_tensor_proto(["zzz"]))
    return request.SerializeToString()


REQUEST = _request()
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
    from tensorflow_serving.apis import predict_pb2

    with grpc.insecure_channel(f"localhost:{routed.port}") as channel:
        call = channel.unary_unary(
            "/tensorflow.serving.PredictionService/Predict",
            response_deserializer=predict_pb2.PredictResponse.FromString,
        )
        return call(_request(**spec), timeout=10.0, metadata=metadata)


def report(routed: RoutedServer):
    return json.loads(routed.admin("/router/report"))


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
    routed.admin("/router/shown", {"user": "ann", "items": ["zzz"]})
    time.sleep(1.0)  # it is kept every half second
    shown = subprocess.run(routed.command("report"), capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    for text in ("stable 1", "canary 2", "40 % canary", "p99 ms", "click-through rate"):
        assert text in shown.stdout
    kept = json.loads(subprocess.run(routed.command("report", "--json"), capture_output=True, check=True).stdout)
    assert kept["labels"] == {STABLE: 1, CANARY: 2}


MALFORMED_SHOWN = [
    {"user": 1},
    {"user": ["a"], "items": []},
    {"user": "a", "items": "b"},
    {"user": "a", "items": [None]},
    {"user": "a", "items": [["b"]]},
    {"user": "a" * 1000, "items": ["b"]},
    {"user": "a", "items": ["b"] * 1001},
    b"",
    b"[" * 100_000,
    b'{"user": "\\ud800", "items": []}',
    b"\xff",
]


def test_administration_has_an_address_of_its_own_and_a_token(routed):
    def code(ask, *arguments):
        with pytest.raises(urllib.error.HTTPError) as error:
            ask(*arguments)
        error.value.close()
        return error.value.code

    for path, body in (("/router/report", None), ("/router/shown", {"user": "a", "items": ["b"]})):
        for token in (None, "wrong", "é"):
            assert code(routed.admin, path, body, token) == 401
        address = f"http://localhost:{routed.rest_port}{path}"
        assert code(urllib.request.urlopen, address, None if body is None else json.dumps(body).encode()) == 404
    for body in MALFORMED_SHOWN:
        assert code(routed.admin, "/router/shown", body) == 400
    assert code(routed.admin, "/router/shown", b" " * (2 << 20)) == 429
    assert code(routed.admin, "/nothing") == 404
    assert b'"watching"' in routed.admin("/router/health", None, None)
    page = routed.admin("/monitoring/prometheus/metrics").decode()
    assert ':recsys:router:request_count{arm="stable",outcome="answered"}' in page
    assert f':recsys:router:exposure_count{{status="malformed"}} {len(MALFORMED_SHOWN)}' in page
    assert (routed.release.config_file.parent / "router.token").stat().st_mode & 0o077 == 0
    addresses = {
        each.laddr.ip
        for each in psutil.Process(routed.router.process.pid).net_connections("tcp")
        if each.laddr.port == routed.admin_port
    }
    assert addresses == {"127.0.0.1"}


def test_users_of_any_language_have_an_arm_and_what_is_no_text_is_refused(routed):
    def code(header: bytes, body: bytes = json.dumps({"inputs": ITEM}).encode()) -> int:
        head = b"POST /v1/models/ranking:predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        head += b"Content-Length: %d\r\n%s\r\n" % (len(body), header)
        with socket.create_connection(("localhost", routed.rest_port), 20) as connection:
            connection.sendall(head + body)
            return int(connection.makefile("rb").readline().split()[1])

    assert code(b"recsys-user: \xc3\xa9lodie\r\n") == 200
    assert code("recsys-user: 李\r\n".encode()) == 200
    assert code(b"recsys-user: \xe9lodie\r\n") == 400
    assert code(b"recsys-user: " + b"a" * 1000 + b"\r\n") == 400
    assert code(b"", b'{"inputs": {"item": ["zzz"], "user": ["\\ud800"]}}') == 400  # the server's own word
    assert code(b"", b"[" * 100_000) == 400
    assert code(b"Content-Encoding: gzip\r\n", b"\x1f\x8b damaged") == 400


def test_a_split_that_cannot_be_read_fails_no_request(routed):
    good = routed.release.routes_file.read_text()
    before = {user: ask(routed, user, "grpc") for user in map(str, range(10))}
    routed.release.routes_file.write_text("{")
    time.sleep(2.2)
    assert {user: ask(routed, user, "grpc") for user in before} == before
    assert b":recsys:router:unreadable_state_count" in routed.admin("/monitoring/prometheus/metrics")
    routed.release.routes_file.write_text(good)
    time.sleep(1.2)
    assert "the last split stays in force" in routed.log.read_text()


def test_model_control_does_not_pass_and_names_of_methods_are_not_kept(routed):
    memory = psutil.Process(routed.router.process.pid).memory_info
    with grpc.insecure_channel(f"localhost:{routed.port}") as channel:

        def call(method: str) -> grpc.StatusCode:
            with pytest.raises(grpc.RpcError) as error:
                channel.unary_unary(method)(b"", timeout=20)
            return error.value.code()

        assert call("/tensorflow.serving.ModelService/HandleReloadConfigRequest") is grpc.StatusCode.PERMISSION_DENIED
        for number in range(200):
            assert call(f"/nothing/{number}") is grpc.StatusCode.UNIMPLEMENTED
        before = memory().rss
        for number in range(2500):
            call(f"/nothing/{number:06}{'x' * 6000}")
        assert memory().rss - before < 10 << 20
    assert ask(routed, "ann", "grpc") in SCORES.values()


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


def test_a_stop_under_load_loses_nothing_that_was_accepted(routed):
    """Whoever asks while the router stops gets an answer or UNAVAILABLE, which clients try again elsewhere."""
    codes, done = [], []

    def keep_asking(number: int) -> None:
        with grpc.insecure_channel(f"localhost:{routed.port}") as channel:
            call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
            while not done:
                try:
                    call(REQUEST, timeout=10, metadata=[("recsys-user", str(number))])
                    codes.append(None)
                except grpc.RpcError as error:
                    codes.append(error.code())
                    time.sleep(0.01)

    with ThreadPoolExecutor(16) as pool:
        asking = [pool.submit(keep_asking, number) for number in range(16)]
        time.sleep(1.0)
        routed.router.process.terminate()
        assert routed.router.process.wait(20) == 0
        done.append(True)
        for each in asking:
            each.result()
    assert codes.count(None) > 50
    assert set(codes) <= {None, grpc.StatusCode.UNAVAILABLE}
    routed.start()


def test_idle_connections_shut_nobody_out(routed):
    idle = [socket.create_connection(("localhost", port), 20) for port in [routed.rest_port] * 60 + [routed.port] * 60]
    try:
        for user in ("a", "b", "c"):
            for wire in ("grpc", "rest"):
                assert ask(routed, user, wire) in SCORES.values()
    finally:
        for connection in idle:
            connection.close()


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


def test_tls_on_both_sides(start_server, tmp_path):
    roots, (key, certificate), (client_key, client_certificate) = certificates()

    def quoted(data: bytes) -> str:
        return '"' + data.decode().replace("\n", "\\n") + '"'

    front = f"server_key: {quoted(key)} server_cert: {quoted(certificate)}"
    (tmp_path / "front.config").write_text(front)
    (tmp_path / "server.config").write_text(f"{front} custom_ca: {quoted(roots)} client_verify: true")
    for name, pem in (("ca", roots), ("cert", client_certificate), ("key", client_key)):
        (tmp_path / f"{name}.pem").write_bytes(pem)
    saved_models.ranking(tmp_path / "served" / "ranking", 1, offset=1.0)
    server = start_server(
        "--model_name=ranking", f"--model_base_path={tmp_path}/served/ranking",
        f"--ssl_config_file={tmp_path}/server.config", wait=False,
    )  # fmt: skip
    routed = RoutedServer(server, tmp_path)
    pems = [f"--server-{name}={tmp_path}/{name}.pem" for name in ("ca", "cert", "key")]
    refused = subprocess.run(
        routed.command("route", pems[1]), capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3]
    )
    assert refused.returncode == 2
    assert "--server-ca" in refused.stderr
    routed.flags = [f"--ssl-config-file={tmp_path}/front.config", *pems]
    try:
        routed.start(wait=False)
        for scheme, port in (("grpcs", routed.port), ("https", routed.rest_port)):
            deadline = time.monotonic() + 60
            while True:
                try:
                    with connect(f"{scheme}://localhost:{port}", "ranking", root_certificates=roots) as client:
                        assert round(float(client.rank({"age": 30}, ITEM)[0]), 3) == SCORES[STABLE]
                    break
                except ServingError:
                    assert time.monotonic() < deadline, routed.log.read_text()
                    time.sleep(0.2)
        context = ssl.create_default_context(cadata=roots.decode())
        health = f"https://localhost:{routed.admin_port}/router/health"
        with urllib.request.urlopen(health, timeout=20, context=context) as response:
            assert response.status == 200
    finally:
        routed.router.stop()
