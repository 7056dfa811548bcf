"""Who waits for whom in a runs folder. Processes, since a kernel's lock is theirs."""

import subprocess
import sys
import time

import pytest

from pipeline.running.locks import BusyError, one_node, whole_folder

HOLD = """
import sys
from pipeline.running.locks import one_node
with one_node(sys.argv[1], sys.argv[2], sys.argv[3] == "alone", print):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def hold(tmp_path):
    held = []

    def hold(node: str, how: str) -> subprocess.Popen:
        command = [sys.executable, "-c", HOLD, str(tmp_path), node, how]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        held.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield hold
    for process in held:
        process.kill()
        process.communicate()


def test_a_run_keeps_out_of_a_folder_where_a_node_runs(tmp_path, hold):
    hold("Trainer", "beside others")
    with pytest.raises(BusyError, match=r"another run is under way"), whole_folder(str(tmp_path)):
        pass


def test_different_nodes_run_beside_each_other(tmp_path, hold):
    hold("Trainer", "beside others")
    waited = []
    with one_node(str(tmp_path), "Baseline.lr", False, waited.append):
        pass
    assert waited == []


@pytest.mark.parametrize(("node", "how"), [("Trainer", "beside others"), ("Other", "alone")])
def test_the_same_node_and_any_node_of_a_folder_held_alone_wait_for_the_killed_one(tmp_path, hold, node, how):
    holder = hold(node, how)
    waited = []

    def kill(line: str) -> None:
        waited.append(line)
        holder.kill()

    began = time.monotonic()
    with one_node(str(tmp_path), "Trainer", False, kill):
        pass
    assert waited == [f"waiting for process {holder.pid}, which works in {tmp_path}"]
    assert time.monotonic() - began < 10
