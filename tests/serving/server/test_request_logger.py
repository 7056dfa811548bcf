"""The request log where the disk does not follow: a limit on the size of files stands for a full one."""

from __future__ import annotations

import contextlib
import resource
import threading
import time

import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2
from tensorflow_serving.config import model_server_config_pb2

from serving.server.metrics import ServerMetrics
from serving.server.request_logger import QUEUE_RECORDS, RequestLogger


@contextlib.contextmanager
def full_disk(bytes_a_file: int):
    """No file of this process may grow beyond this size."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_a_file, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def logging(tmp_path):
    metrics = ServerMetrics()
    logger = RequestLogger(metrics, pause_seconds=(0.2, 0.4))
    config = model_server_config_pb2.ModelServerConfig()
    entry = config.model_config_list.config.add(name="m")
    entry.logging_config.sampling_config.sampling_rate = 1.0
    entry.logging_config.log_collector_config.filename_prefix = str(tmp_path / "log" / "m")
    logger.configure(config)
    yield logger, metrics, tmp_path / "log"
    logger.close()


def offer(logger, number, padding=0):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = f"{number}{' ' * padding}"
    response = predict_pb2.PredictResponse()
    logger.offer("m", 1, "s", "predict_log", request.SerializeToString(), response.SerializeToString())


def read(folder):
    """The number in each record of the whole files."""
    numbers = []
    for file in sorted(folder.glob("*.tfrecord")):
        for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
            name = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request.model_spec.name
            numbers.append(int(name))
    return numbers


def wait_until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_disk_that_was_full_for_a_while_costs_what_it_could_not_take(logging):
    logger, metrics, folder = logging
    count = metrics.request_log_count.value
    with full_disk(2 << 20):
        for number in range(300):
            offer(logger, number, padding=20_000)
        wait_until(lambda: count("m", "UNKNOWN") >= 1)
        for number in range(300, 350):
            offer(logger, number, padding=20_000)
            time.sleep(0.02)
        wait_until(lambda: sum(count("m", status) for status in ("OK", "UNKNOWN", "UNAVAILABLE")) == 350)
    assert count("m", "UNAVAILABLE") > 0  # during the pause nothing is tried
    time.sleep(0.5)
    offer(logger, 1000)
    logger.close()
    kept = read(folder)
    assert kept[0] == 0
    assert kept[-1] == 1000
    assert len(kept) >= 50  # what was on the disk before it was full
    assert list(folder.glob("*.partial")) == []


def test_a_disk_that_stays_full_gets_no_swarm_of_files_and_no_end_is_held_up(logging):
    logger, metrics, folder = logging
    with full_disk(0):
        for number in range(2 * QUEUE_RECORDS):
            offer(logger, number)
        deadline = time.monotonic() + 1.5
        while time.monotonic() < deadline:
            offer(logger, 0)
            assert len(list(folder.glob("*"))) <= 1
            time.sleep(0.01)
        start = time.monotonic()
        logger.close()
        assert time.monotonic() - start < 5
    assert list(folder.glob("*")) == []
    assert metrics.request_log_count.value("m", "OK") + metrics.request_log_count.value("m", "UNAVAILABLE") > 0


def test_a_writer_that_hangs_does_not_hold_up_the_end(logging, monkeypatch):
    logger, _, _ = logging
    monkeypatch.setattr("serving.server.request_logger.CLOSE_SECONDS", 0.3)
    released, held = threading.Event(), threading.Event()

    class Hanging:
        def __init__(self, path):
            held.set()
            released.wait(20)
            raise tf.errors.ResourceExhaustedError(None, None, "no space left")

    monkeypatch.setattr(tf.io, "TFRecordWriter", Hanging)
    offer(logger, 0)
    assert held.wait(20)
    for number in range(2 * QUEUE_RECORDS):
        offer(logger, number)
    start = time.monotonic()
    logger.close()
    assert time.monotonic() - start < 5
    released.set()
