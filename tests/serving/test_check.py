from __future__ import annotations

import os
import pathlib
import socket
import subprocess
import sys

import pytest

from serving.check import Budget, serving_check
from tests.serving import saved_models
from tests.serving.test_model_server import poll

ROWS = [{"age": 50, "item": "zzz"}, {"age": 10, "item": "a"}]


@pytest.mark.slow
def test_a_candidate_is_compared_with_its_offline_scores(tmp_path):
    path = saved_models.ranking(tmp_path)
    result = serving_check(path, "m", ROWS, [3.5, 99.0], budget=Budget(resident_mib=1, latency_requests=5))
    found = "\n".join(result.problems)
    assert not result.ok
    assert found.count("row 1 scores") == 2  # on gRPC and on REST
    assert "row 0" not in found
    assert "101.0" in found
    assert "1 MiB are allowed" in found
    assert result.requests == 7
    assert 0 < result.p50_ms < 60_000


@pytest.mark.slow
def test_a_broken_candidate_says_why(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"\xff")
    result = serving_check(tmp_path, "m", ROWS, [0, 0])
    assert not result.ok
    assert "before it served the candidate" in result.problems[0]
    assert "1 model(s) did not become available" in result.problems[0]


@pytest.mark.slow
def test_the_server_of_a_run_that_is_killed_ends_too(tmp_path):
    """And nobody but this machine reaches it while it runs."""
    path = saved_models.ranking(tmp_path)
    code = (
        "from serving.check import Budget, serving_check\n"
        f"serving_check({str(path)!r}, 'm', [{{'age': 1, 'item': 'a'}}], [0.0], budget=Budget(latency_requests=10**9))"
    )
    run = subprocess.Popen([sys.executable, "-c", code], cwd=pathlib.Path(__file__).parents[2])
    children = pathlib.Path(f"/proc/{run.pid}/task/{run.pid}/children")
    try:
        assert poll(lambda: children.read_text().split(), 60)
        (server,) = map(int, children.read_text().split())
        assert poll(lambda: listening(server), 60)
        assert {address.removeprefix("::ffff:") for address, _ in listening(server)} == {"127.0.0.1"}
    finally:
        run.kill()
        run.wait()
    assert poll(lambda: not pathlib.Path(f"/proc/{server}/cmdline").exists(), 20)


def listening(pid: int) -> set[tuple[str, int]]:
    """The addresses and ports a process listens on."""
    try:
        links = [os.readlink(each) for each in pathlib.Path(f"/proc/{pid}/fd").iterdir()]
        inodes = {link[8:-1] for link in links if link.startswith("socket:[")}
        found = set()
        for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
            for line in pathlib.Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and fields[9] in inodes:
                    address, port = fields[1].split(":")
                    raw = b"".join(bytes.fromhex(address[at : at + 8])[::-1] for at in range(0, len(address), 8))
                    found.add((socket.inet_ntop(family, raw), int(port, 16)))
        return found
    except OSError:
        return set()
