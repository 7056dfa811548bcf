from __future__ import annotations

import os
import signal
import time
import urllib.request

import pytest

from serving.client import connect
from serving.release import Release, reload_by_rpc
from serving.server.metrics import ServerMetrics
from serving.server.status import ServingError
from serving.server.workers import merge_metrics
from tests.serving import saved_models
from tests.serving.test_model_server import poll


def test_pages_of_workers_are_added_up():
    first, second = ServerMetrics(), ServerMetrics()
    first.request_count.add("m", "OK", by=2)
    second.request_count.add("m", "OK", by=3)
    second.request_count.add("n", "OK")
    for each in (first, second):
        each.request_latency.add("m", "Predict", "GRPC", sample=15.0)
        each.available_version.set("m", "1", to=1)
    lines = merge_metrics([first.text(), second.text()]).splitlines()
    assert ':tensorflow:serving:request_count{model_name="m",status="OK"} 5' in lines
    assert ':tensorflow:serving:request_count{model_name="n",status="OK"} 1' in lines
    assert ':tensorflow:serving:request_latency_count{model_name="m",API="Predict",entrypoint="GRPC"} 2' in lines
    assert ':recsys:serving:available_version{model_name="m",version="1"} 1' in lines
    start = lines.index("# TYPE :tensorflow:serving:request_count counter")
    assert lines[start + 1].startswith(":tensorflow:serving:request_count")
    assert merge_metrics([first.text()]) == first.text()


@pytest.mark.slow
def test_two_workers_are_one_server(start_server, tmp_path):
    base = tmp_path / "answer"
    for version in (1, 2):
        saved_models.answer_version(base, version)
    config, monitoring = tmp_path / "models.config", tmp_path / "monitoring.config"
    config.write_text(
        f'model_config_list {{ config {{ name: "answer" base_path: "{base}" model_platform: "tensorflow" }} }}'
    )
    monitoring.write_text("prometheus_config { enable: true }")
    server = start_server(
        f"--model_config_file={config}", f"--monitoring_config_file={monitoring}", "--num_processes=2"
    )

    def children():
        listed = f"/proc/{server.process.pid}/task/{server.process.pid}/children"
        return [int(each) for each in open(listed).read().split()]

    def settled():
        return server.stderr().count("Exporting HTTP/REST API") >= 2

    assert poll(settled, 120)

    def ask(count):
        """Each with a connection of its own, so that both workers get some."""
        found = set()
        for number in range(count):
            protocol = ("grpc", server.grpc_address) if number % 2 else ("http", server.rest_address)
            with connect("{}://{}".format(*protocol), "answer", retries=5) as client:
                found |= set(client.predict({"x": [1.0]}).outputs["version"].tolist())
        return found

    assert ask(20) == {2}
    # One RPC reaches one worker, and every worker follows before it is answered.
    Release(config, "answer", apply=reload_by_rpc(server.grpc_address)).promote(1)
    assert ask(20) == {1}
    url = f"http://{server.rest_address}/monitoring/prometheus/metrics"
    with urllib.request.urlopen(url, timeout=20) as response:
        page = response.read().decode()
    assert ':tensorflow:serving:request_count{model_name="answer",status="OK"} 40' in page

    first, second = children()
    os.kill(first, signal.SIGKILL)
    assert poll(lambda: len(children()) == 2 and first not in children(), 30)
    assert second in children()
    deadline = time.monotonic() + 120
    while server.stderr().count("Exporting HTTP/REST API") < 3:
        try:
            assert ask(2) == {1}  # the other one answers meanwhile
        except ServingError:
            assert time.monotonic() < deadline
        time.sleep(0.2)
    assert ask(10) == {1}
    server.process.terminate()
    assert server.process.wait(30) == 0
