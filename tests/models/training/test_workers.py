"""Worker processes: they agree with one process, survive kill -9, and give up with their last words."""

import json
import os
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from configs.model import DIN, FM
from models.training.train import run_job
from models.training.workers import Role, WorkersFailedError, roles, run_workers
from tests.conftest import serialized
from tests.models.training.jobs import Killer, kill_at_random, make_job, run, worker_processes, write_examples

pytestmark = pytest.mark.slow


def scores(sample, job) -> np.ndarray:
    served = tf.saved_model.load(job.model_folder).signatures["serve_examples"]
    return served(inputs=tf.constant(serialized(sample, sample.rows[:100])))["outputs"].numpy()


@pytest.fixture(scope="module")
def uneven(sample, tmp_path_factory):
    """400 examples in files that two workers cannot share evenly."""
    folder = tmp_path_factory.mktemp("uneven")
    write_examples(sample, folder, [150, 20, 130, 100])
    return folder


@pytest.fixture(scope="module")
def alone(sample, uneven, tmp_path_factory):
    """The same training, as one process that sees all examples in one step."""
    folder = tmp_path_factory.mktemp("alone")
    job = make_job(sample, folder, uneven, batch=600, epochs=4, strategy="multi_worker_mirrored")
    return run(job)[0], job


def test_two_workers_one_of_them_killed_agree_with_one(sample, uneven, alone, tmp_path):
    """All examples in one step an epoch: what they look up and add up is the same, and so is what they learn.

    Tolerances: 1e-5 in loss, 1e-4 in the exported scores. Both workers are killed, one after the other.
    """
    job = make_job(sample, tmp_path, uneven, batch=600, epochs=4, workers=2, checkpoint_steps=1, threads=1)
    killer = Killer([(1, lambda line: line.startswith("epoch 1:")), (0, lambda line: line.startswith("epoch 3:"))], job)
    history, lines = run(job, killer.heard)
    assert not killer.turns
    said = "\n".join(lines)
    assert "worker 1 was killed (SIGKILL)" in said
    assert "worker 0 was killed (SIGKILL)" in said
    assert said.count("going on from step") == 2
    assert [epoch["epoch"] for epoch in history["epochs"]] == [1, 2, 3, 4]
    for one, two in zip(alone[0]["epochs"], history["epochs"], strict=True):
        for figure in ("train_logloss", "eval_logloss"):
            assert two[figure] == pytest.approx(one[figure], abs=1e-5)
    np.testing.assert_allclose(scores(sample, job), scores(sample, alone[1]), atol=1e-4)
    assert [worker["index"] for worker in history["workers"]] == [0, 1]
    assert os.listdir(job.log_folder).count("state") == 0
    assert set(os.listdir(tmp_path)) == {"model", "logs"}
    assert not worker_processes(job)


def test_steps_of_every_size_in_one_go(sample, tmp_path):
    """Both run out of examples at once, so that a smaller step of equal size for both follows a full one."""
    write_examples(sample, tmp_path / "examples", [150, 150])
    job = make_job(sample, tmp_path, tmp_path / "examples", batch=200, epochs=2, workers=2, threads=1, restarts=0,
                   learning_rate=0.01)  # fmt: skip
    history, _ = run(job)
    assert history["epochs"][0]["train_logloss"] > history["epochs"][1]["train_logloss"]
    assert scores(sample, job).shape == (100,)


def test_layers_with_statistics_of_the_batch_learn_from_all_workers(sample, tmp_path):
    """Each worker's part of a batch moves its own means; what is exported are theirs all together."""
    write_examples(sample, tmp_path / "examples", [200, 200])
    din = DIN(type="din", embedding_dim=4, hidden=[8], attention=[4], activation="dice", dropout=0.0)
    job = make_job(sample, tmp_path, tmp_path / "examples", din, batch=100, epochs=3, workers=2, threads=1, restarts=0,
                   learning_rate=0.01)  # fmt: skip
    history, _ = run(job)
    losses = [epoch["train_logloss"] for epoch in history["epochs"]]
    assert losses[-1] < losses[0]
    loaded = tf.saved_model.load(job.model_folder)  # by name: a signature alone does not keep the variables
    served = loaded.signatures["serve_examples"]
    means = [v.numpy() for v in served.variables if "moving_mean" in v.name]
    assert means
    assert all(np.abs(mean).max() > 0 for mean in means)
    answers = served(inputs=tf.constant(serialized(sample, sample.rows)))["outputs"].numpy().ravel()
    auc = keras.metrics.AUC(num_thresholds=5000)([row["label"][0] for row in sample.rows], answers)
    assert float(auc) == pytest.approx(history["eval_auc"], abs=2e-3)


_EXCHANGE = """
import tensorflow as tf, numpy as np
strategy = tf.distribute.MultiWorkerMirroredStrategy()
from models.training.collectives import summed
me = json.loads(os.environ['TF_CONFIG'])['task']['index']

def made(worker, step):  # of three tables, two of which are looked up with the same ids, and two dense weights
    random = np.random.default_rng([worker, step])
    sizes = [(40, 9), (5, 9), (5, 0), (0, 0), (0, 1)], [(40, 7), (40, 7), (3, 9000), (0, 0), (12, 5)]
    n, m = sizes[worker][step]
    ids, others = random.integers(0, 20, n), random.integers(0, 2**31 - 1, m)
    values = [random.normal(size=shape).astype(np.float32) for shape in ((n, 1), (n, 4), (m, 3), (5, 2), ())]
    return ids, others, values

def as_dense(ids, values):
    rows = {}
    for i, row in zip(ids, values): rows[int(i)] = rows.get(int(i), 0) + row
    return rows

@tf.function(reduce_retracing=True)
def step(ids, others, values):
    slices = [tf.IndexedSlices(v, i) for v, i in zip(values, (ids, ids, others))]
    return strategy.run(lambda: summed([slices[0], values[3], *slices[1:], values[4]], 2))

for at in range(5):
    ids, others, values = made(me, at)
    spec = [tf.ensure_shape(tf.constant(v), v.shape) for v in values]
    a, dense, b, c, scalar = step(tf.constant(ids), tf.constant(others), spec)
    both = [made(worker, at) for worker in range(2)]
    for got, table, which in ((a, 0, 0), (b, 1, 0), (c, 2, 1)):
        wanted = as_dense(np.concatenate([w[which] for w in both]), np.concatenate([w[2][table] for w in both]))
        found = dict(zip(got.indices.numpy().tolist(), got.values.numpy()))
        assert len(found) == got.indices.shape[0], 'rows come once'
        assert found.keys() == wanted.keys()
        for row in wanted: np.testing.assert_allclose(found[row], wanted[row], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(dense, both[0][2][3] + both[1][2][3], rtol=1e-6)
    np.testing.assert_allclose(scalar, both[0][2][4] + both[1][2][4], rtol=1e-6)
send_progress('agreed', 5)
sys.stdout.flush()
time.sleep(1)
os._exit(0)
"""


def test_gradients_are_added_up_over_workers_whatever_rows_each_has(tmp_path):
    said: list[str] = []
    printed: list[str] = []
    run_workers(
        in_python(_EXCHANGE), roles("multi_worker_mirrored", 2, 1), str(tmp_path), 0, said.append,
        lambda worker, line: printed.append(line),
    )  # fmt: skip
    assert said == ["agreed"], "\n".join(printed[-20:])


def test_tables_are_cut_over_parameter_servers(sample, tmp_path):
    write_examples(sample, tmp_path / "examples", [200, 200])
    job = make_job(
        sample, tmp_path, tmp_path / "examples", FM(type="fm", embedding_dim=64), strategy="parameter_server",
        workers=2, parameter_servers=2, epochs=3, restarts=0, batch=64,
    )  # fmt: skip
    history, lines = run(job)
    assert history["eval_auc"] > 0.6
    assert any("x 64: cut over 2 of 2 servers" in line for line in lines)
    assert scores(sample, job).shape == (100,)
    assert not worker_processes(job)


def test_mirrored_takes_all_devices_of_a_machine(sample, uneven, alone, tmp_path, monkeypatch):
    """Two devices that are one processor: each takes its part of a step, and the sums are those of one."""
    monkeypatch.setenv("RECSYS_VIRTUAL_DEVICES", "2")
    job = make_job(sample, tmp_path, uneven, batch=600, epochs=2, strategy="mirrored")
    history, _ = run(job)
    for one, two in zip(alone[0]["epochs"], history["epochs"], strict=False):
        assert two["train_logloss"] == pytest.approx(one["train_logloss"], abs=1e-5)
        assert two["eval_logloss"] == pytest.approx(one["eval_logloss"], abs=1e-5)


def test_machines_of_a_cluster_each_run_the_worker_that_tf_config_says(sample, uneven, alone, tmp_path):
    """Two machines are two threads here; they share the folder, as pods share a volume. The chief alone exports."""
    sockets = [socket.socket() for _ in range(2)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    cluster = {"worker": [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]}
    for s in sockets:
        s.close()
    job = make_job(sample, tmp_path, uneven, batch=600, epochs=2, threads=1)
    tasks = [json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}}) for index in range(2)]
    pods = [threading.Thread(target=run_job, args=(job, print, print, task)) for task in tasks]
    for pod in pods:
        pod.start()
    for pod in pods:
        pod.join()
    history = json.loads((tmp_path / "logs" / "training.json").read_text())
    assert [worker["index"] for worker in history["workers"]] == [0, 1]
    for one, two in zip(alone[0]["epochs"], history["epochs"], strict=False):
        assert two["eval_logloss"] == pytest.approx(one["eval_logloss"], abs=1e-5)


def test_a_changed_job_of_a_cluster_meets_no_checkpoint_of_the_one_before(sample, uneven, tmp_path):
    """The same folder, where a training of other weights was broken off, and TF_CONFIG set."""
    task = json.dumps({"cluster": {"worker": [f"127.0.0.1:{free_port()}"]}, "task": {"type": "worker", "index": 0}})
    broken = make_job(sample, tmp_path, uneven, FM(type="fm", embedding_dim=8), batch=600, epochs=40, threads=1,
                      checkpoint_steps=1, restarts=0)  # fmt: skip
    killer = Killer([(0, lambda line: line.startswith("epoch 2:"))], broken)
    with pytest.raises(WorkersFailedError):
        run_job(broken, killer.heard, print, task)
    lines: list[str] = []
    changed = make_job(sample, tmp_path, uneven, FM(type="fm", embedding_dim=4), batch=600, epochs=1, threads=1)
    run_job(changed, lines.append, print, task)
    assert not [line for line in lines if line.startswith("going on from")]
    assert json.loads((tmp_path / "logs" / "training.json").read_text())["model"]["embedding_dim"] == 4
    assert not (tmp_path / "logs" / "state").exists()


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def in_python(code: str) -> list[str]:
    return [
        sys.executable,
        "-c",
        f"import sys, os, json, time\nfrom models.training.workers import send_progress\n{code}",
    ]


def test_a_worker_that_always_dies_ends_it_with_its_last_lines(tmp_path):
    said: list[str] = []
    code = (
        "me = json.loads(os.environ['TF_CONFIG'])['task']['index']\n"
        "print('hello from', me, flush=True)\n"
        "if me == 1: print('the disk is full', flush=True); sys.exit(7)\n"
        "time.sleep(60)"
    )
    began = time.monotonic()
    with pytest.raises(WorkersFailedError, match=r"(?s)worker 1 ended with exit code 7, 3 times.*the disk is full"):
        run_workers(in_python(code), roles("multi_worker_mirrored", 2, 1), str(tmp_path), 2, said.append)
    assert time.monotonic() - began < 40
    assert len(said) == 2
    assert "the disk is full" in (tmp_path / "worker-1.log").read_text()


def test_getting_further_starts_the_count_of_restarts_anew(tmp_path):
    """Five deaths, no more than one of them without a newer checkpoint before it, with one restart allowed."""
    marks = tmp_path / "marks"
    marks.mkdir()
    code = (
        f"n = len(os.listdir({str(marks)!r})); open({str(marks)!r} + f'/{{n}}', 'w').close()\n"
        "send_progress('going on', n * 10, n * 10); send_progress('step', n * 10 + 14)\n"
        "sys.exit(0 if n == 5 else 1)"
    )
    said: list[str] = []
    run_workers(in_python(code), [Role("worker", 0)], str(tmp_path / "logs"), 1, said.append)
    assert "going on from step 50: 4 steps lost" in said
    assert len(os.listdir(marks)) == 6


def test_workers_end_with_the_process_that_started_them(tmp_path):
    code = (
        "from models.training.workers import *\n"
        "child = [sys.executable, '-c', 'from models.training.workers import *; end_with_starter(); "
        "print(os.getpid(), flush=True); time.sleep(60)']\n"
        f"run_workers(child, [Role('worker', 0)], {str(tmp_path)!r}, 0, print, lambda w, l: print(l, flush=True))"
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", "import sys, time, os\n" + code], stdout=subprocess.PIPE, text=True
    )
    assert starter.stdout is not None
    child = int(starter.stdout.readline())
    starter.kill()
    starter.wait()
    ends = time.monotonic() + 10
    while os.path.exists(f"/proc/{child}") and time.monotonic() < ends:
        time.sleep(0.05)
    assert not os.path.exists(f"/proc/{child}")


@pytest.mark.skipif("SOAK" not in os.environ, reason="`make soak-training` runs it")
def test_ten_kills_at_random_moments(sample, uneven, alone, tmp_path):
    """Whenever it hits, every run ends with a model, and with the one an undisturbed run makes."""
    random = np.random.default_rng(int(os.environ.get("SEED", "1")))
    kills: list[int] = []
    runs = 0
    while len(kills) < 10:
        job = make_job(
            sample, tmp_path / str(runs), uneven, batch=600, epochs=400, workers=2, checkpoint_steps=1, threads=1,
            restarts=20, learning_rate=0.001,
        )  # fmt: skip
        stop = threading.Event()
        killing = threading.Thread(target=kill_at_random, args=(job, stop, random, kills))
        killing.start()
        try:
            history, _ = run(job)
        finally:
            stop.set()
            killing.join()
        undisturbed = make_job(
            sample, tmp_path / f"{runs}-undisturbed", uneven, batch=600, epochs=400, strategy="multi_worker_mirrored",
            learning_rate=0.001,
        )  # fmt: skip
        expected, _ = run(undisturbed)
        print(f"run {runs}: {len(kills)} kills so far, eval AUC {history['eval_auc']:.4f}, {expected['eval_auc']:.4f}")
        assert history["eval_logloss"] == pytest.approx(expected["eval_logloss"], abs=1e-3)
        np.testing.assert_allclose(scores(sample, job), scores(sample, undisturbed), atol=5e-3)
        runs += 1
