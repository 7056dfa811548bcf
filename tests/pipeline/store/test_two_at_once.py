"""Two processes run nodes of the same runs at the same time, with their metadata in a real MariaDB."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from configs import ConfigError, load_config
from pipeline.running.store import connection

ROOT = Path(__file__).parents[3]
CONFIG = ROOT / "configs" / "movielens.yaml"
RUNS = 50
PASSWORD = "pässword-4-tests"


@pytest.fixture(scope="module")
def mariadb(tmp_path_factory) -> Iterator[int]:
    """A server of Debian's packages on a free port of this machine; yields the port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("mariadb")
    with open(folder / "log", "w") as log:
        server = subprocess.Popen(
            [ROOT / "deploy" / "mariadb.sh", folder / "data", str(port)],
            env=os.environ | {"MARIADB_PASSWORD": PASSWORD}, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 180
        while "ready for connections" not in (said := (folder / "log").read_text()) or f"port: {port}" not in said:
            assert server.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.2)
        yield port
    finally:
        server.terminate()
        server.wait(30)


class Worker:
    """A process that runs nodes one after the other."""

    def __init__(self, *arguments: str, **variables: str):
        environment = os.environ | {"RECSYS_DB": PASSWORD} | variables
        self.settings = arguments
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.pipeline.store.small_graph", *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, env=environment, cwd=ROOT,
        )  # fmt: skip

    def ready(self) -> None:
        assert self._process.stdout.readline() == "ready\n"

    def run(self, node: str, run: str) -> dict:
        self._process.stdin.write(f"{node} {run}\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture
def workers(mariadb, tmp_path) -> Iterator[list[Worker]]:
    settings = [str(CONFIG), f"runs.folder={tmp_path}/runs", "metadata.type=mysql", f"metadata.port={mariadb}"]
    names = {"host": "127.0.0.1", "database": "recsys", "user": "recsys", "password_variable": "RECSYS_DB"}
    settings += [f"metadata.{key}={value}" for key, value in names.items()]
    started = [Worker(*settings) for _ in range(2)]
    try:
        for worker in started:
            worker.ready()
        yield started
    finally:
        for worker in started:
            worker.stop()


@pytest.mark.slow
def test_two_nodes_at_once_meet_no_lock(workers):
    """Left and Right of a run start together; so do Start of the next run and End of this one."""
    one, other = workers
    began = time.monotonic()
    with ThreadPoolExecutor(2) as both:
        assert one.run("Start", "run-0") == {"state": "done", "text": "start"}
        for number in range(RUNS):
            run, following = f"run-{number}", f"run-{number + 1}"
            left, right = both.map(lambda call: call[0].run(call[1], run), [(one, "Left"), (other, "Right")])  # noqa: B023
            assert (left, right) == (
                {"state": "done", "text": "left(start)"},
                {"state": "done", "text": "right(start)"},
            ), run
            calls = [(one, "End", run), (other, "Start", following)]
            end, start = both.map(lambda call: call[0].run(*call[1:]), calls)
            assert (end["state"], end["text"]) == ("done", "left(start) right(start)"), (run, end)
            assert start["state"] == "done", (following, start)
    print(f"\n{RUNS} runs of 4 nodes, two at once: {time.monotonic() - began:.1f} s")


@pytest.mark.slow
def test_two_calls_for_one_node_make_it_once(workers):
    one, other = workers
    assert one.run("Start", "twice")["state"] == "done"
    with ThreadPoolExecutor(2) as both:
        answers = list(both.map(lambda worker: worker.run("Left", "twice"), (one, other)))
    assert answers == [{"state": "done", "text": "left(start)"}] * 2
    assert len(list((one_folder(one) / "artifacts" / "Left" / "made").iterdir())) == 1


@pytest.mark.slow
def test_a_node_that_is_killed_runs_again_and_leaves_nothing_behind(workers):
    one, _ = workers
    assert one.run("Start", "killed")["state"] == "done"
    made = one_folder(one) / "artifacts" / "Left" / "made"
    slow = Worker(*one.settings, SECONDS_A_SIDE="600")
    try:
        slow.ready()
        with ThreadPoolExecutor(1) as beside:
            answer = beside.submit(slow.run, "Left", "killed")
            deadline = time.monotonic() + 60
            while not list(made.glob("*/text")):
                assert time.monotonic() < deadline
                time.sleep(0.1)
            (left_behind,) = made.glob("*/text")
            written = left_behind.stat().st_mtime_ns
            slow.stop()
            with pytest.raises(ValueError, match="Expecting value"):
                answer.result()  # it never answered
    finally:
        slow.stop()
    assert one.run("Left", "killed") == {"state": "done", "text": "left(start)"}
    (whole,) = made.glob("*/text")
    assert whole.stat().st_mtime_ns > written
    assert one.run("Left", "killed")["state"] == "done"
    assert list(made.glob("*/text")) == [whole]


def one_folder(worker: Worker) -> Path:
    return Path(next(a for a in worker.settings if a.startswith("runs.folder=")).partition("=")[2])


def test_a_password_that_is_not_set_is_asked_for_by_name(monkeypatch):
    monkeypatch.delenv("NOT_SET", raising=False)
    where = "{type: postgresql, host: db, database: recsys, user: r, password_variable: NOT_SET}"
    with pytest.raises(ConfigError, match=r"metadata\.password_variable: NOT_SET is not set; put the password of r"):
        connection(load_config(CONFIG, [f"metadata={where}"]))


@pytest.mark.parametrize(
    ("settings", "expectation"),
    [
        ("metadata={type: mysql, host: db}", "type: mysql needs database and user"),
        ("metadata={type: mysql, database: d, user: u}", "needs a host, or a socket"),
        ("metadata={type: postgresql, database: d, user: u, socket: /s}", "socket only goes with type: mysql"),
        ("metadata={host: db}", "host only goes with type: mysql or postgresql"),
        ("orchestration.nodes_at_once=2", "SQLite metadata takes one node at a time"),
        ("runs.folder=s3://bucket/runs", "expected a local or mounted folder, got s3://bucket/runs"),
        ("serving.folder=gs://bucket/served", "expected a local or mounted folder, got gs://bucket/served"),
        ("orchestration.schedule=daily", "expected five fields of cron"),
    ],
)
def test_what_does_not_go_together_is_refused(settings, expectation):
    with pytest.raises(ConfigError, match=expectation):
        load_config(CONFIG, [settings])
