"""A sampled share of requests and answers as PredictionLog records in TFRecord files, never in a request's way.

A model's `logging_config` turns it on: `sampling_config.sampling_rate` is the share, and
`log_collector_config.filename_prefix` where files go, `<prefix>-<UTC time>-<process>-<number>.tfrecord`. A file is
written as `.tfrecord.partial` and renamed when it is full, old enough, or the server stops. Where the disk cannot
follow, records are dropped and counted (`request_log_count`), and requests go on.

A disk that fails ends the file with the records that are known to be on it, and nothing is tried under that prefix for
a while: a second at first, up to a minute.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import pathlib
import queue
import random
import threading
import time
from dataclasses import dataclass
from typing import Any

from serving.server.metrics import ServerMetrics

log = logging.getLogger(__name__)

QUEUE_RECORDS = 4096
FILE_BYTES = 64 << 20
FILE_SECONDS = 300.0
FLUSH_BYTES = 1 << 20
PAUSE_SECONDS = (1.0, 60.0)  # after a first failure, and at most
CLOSE_SECONDS = 10.0


@dataclass(frozen=True)
class Sampling:
    """Where a model's sampled records go, and how large the sample is."""

    rate: float
    prefix: str


class RequestLogger:
    """Takes records from the event loop and writes them on a thread of its own."""

    def __init__(
        self,
        metrics: ServerMetrics,
        file_bytes: int = FILE_BYTES,
        file_seconds: float = FILE_SECONDS,
        pause_seconds: tuple[float, float] = PAUSE_SECONDS,
    ):
        """`pause_seconds`: how long nothing is tried after a first failure, and at most."""
        self.sampled: dict[str, Sampling] = {}
        self._metrics = metrics
        self._file_bytes = file_bytes
        self._file_seconds = file_seconds
        self._pause_seconds = pause_seconds
        self._records: queue.Queue[tuple[Any, ...] | None] = queue.Queue(QUEUE_RECORDS)
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self._random = random.Random()

    def configure(self, config: Any) -> None:
        """Take each model's `logging_config` from a ModelServerConfig."""
        sampled = {}
        for each in config.model_config_list.config:
            rate = each.logging_config.sampling_config.sampling_rate
            prefix = each.logging_config.log_collector_config.filename_prefix
            if rate > 0 and prefix:
                sampled[each.name] = Sampling(min(rate, 1.0), prefix)
        self.sampled = sampled
        if sampled and self._thread is None:
            self._closing.clear()
            self._thread = threading.Thread(target=self._write, name="request-logger", daemon=True)
            self._thread.start()

    def offer(self, model: str, version: int, signature: str, kind: str, request: bytes, response: bytes) -> None:
        """Log this exchange if the dice say so; drops it where too many wait to be written."""
        sampling = self.sampled.get(model)
        if sampling is None or self._random.random() >= sampling.rate:
            return
        try:
            self._records.put_nowait((model, version, signature, kind, request, response, sampling))
        except queue.Full:
            self._metrics.request_log_count.add(model, "RESOURCE_EXHAUSTED")

    def close(self) -> None:
        """Write what waits and finish the files; gives up after ten seconds, however the disk behaves."""
        if self._thread is None:
            return
        self._closing.set()
        with contextlib.suppress(queue.Full):  # a full queue wakes the thread as well
            self._records.put_nowait(None)
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            log.warning("request log: about %d records were not written in time", self._records.qsize())
        self._thread = None

    def _write(self) -> None:
        sinks: dict[str, _Sink] = {}
        numbers = itertools.count()
        while True:
            try:
                record = self._records.get(timeout=1.0)
            except queue.Empty:
                record = None
            if record is not None:
                sampling = record[-1]
                sink = sinks.get(sampling.prefix)
                if sink is None:
                    sink = sinks[sampling.prefix] = _Sink(sampling.prefix, numbers, *self._pause_seconds)
                self._metrics.request_log_count.add(record[0], sink.add(record, self._file_bytes))
            for sink in sinks.values():
                sink.look_after(self._file_seconds, idle=record is None)
            if self._closing.is_set() and self._records.empty():
                break
        for sink in sinks.values():
            sink.finish()


class _Sink:
    """The file under one prefix, and when to try again after a failure. No method raises."""

    def __init__(self, prefix: str, numbers: Any, first_pause: float, longest_pause: float):
        self._prefix = prefix
        self._numbers = numbers
        self._file: _File | None = None
        self._first_pause = self._pause = first_pause
        self._longest_pause = longest_pause
        self._again = 0.0

    def add(self, record: tuple[Any, ...], file_bytes: int) -> str:
        """The status to count this record under."""
        if time.monotonic() < self._again:
            return "UNAVAILABLE"
        try:
            entry = _entry(record)
        except Exception as error:  # a message that does not parse says nothing about the disk
            log.warning("request log of model %s: %s", record[0], error)
            return "UNKNOWN"
        try:
            if self._file is None:
                self._file = _File(self._prefix, next(self._numbers))
            self._file.write(entry)
        except Exception as error:  # TensorFlow's errors are no OSError
            self._failed(error)
            return "UNKNOWN"
        if self._file.bytes >= file_bytes:
            self.finish()
        return "OK"

    def look_after(self, file_seconds: float, idle: bool) -> None:
        """Flush when nothing comes, and finish a file that is old enough."""
        if self._file is None:
            return
        if self._file.old(file_seconds):
            self.finish()
        elif idle:
            try:
                self._file.flush()
            except Exception as error:
                self._failed(error)

    def finish(self) -> None:
        """Close the file and give it its name."""
        if self._file is None:
            return
        try:
            self._file.finish()
        except Exception as error:
            self._failed(error)
        else:
            self._file, self._pause = None, self._first_pause

    def _failed(self, error: Exception) -> None:
        log.warning("request log under %s: %s; nothing is written there for %g s", self._prefix, error, self._pause)
        if self._file is not None:
            self._file.abandon()
            self._file = None
        self._again = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, self._longest_pause)


def _entry(record: tuple[Any, ...]) -> bytes:
    from tensorflow_serving.apis import prediction_log_pb2

    model, version, signature, kind, request, response, sampling = record
    entry = prediction_log_pb2.PredictionLog()
    getattr(entry, kind).request.MergeFromString(request)
    getattr(entry, kind).response.MergeFromString(response)
    spec = entry.log_metadata.model_spec
    spec.name, spec.signature_name = model, signature
    spec.version.value = version
    entry.log_metadata.sampling_config.sampling_rate = sampling.rate
    return entry.SerializeToString()


class _File:
    def __init__(self, prefix: str, number: int):
        import tensorflow as tf

        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        self._final = pathlib.Path(f"{prefix}-{stamp}-{os.getpid()}-{number:05d}.tfrecord")
        self._final.parent.mkdir(parents=True, exist_ok=True)
        self._partial = self._final.with_name(self._final.name + ".partial")
        self._writer = tf.io.TFRecordWriter(str(self._partial))
        self._opened = time.monotonic()
        self._flushed = 0  # bytes that are known to have reached the file system; ends between two records
        self.bytes = 0

    def write(self, record: bytes) -> None:
        self._writer.write(record)
        self.bytes += len(record) + 16
        if self.bytes - self._flushed >= FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        if self.bytes > self._flushed:
            self._writer.flush()
            self._flushed = self.bytes

    def old(self, seconds: float) -> bool:
        return time.monotonic() - self._opened >= seconds

    def finish(self) -> None:
        self.flush()
        self._writer.close()
        self._partial.rename(self._final)

    def abandon(self) -> None:
        """Keep the records that were flushed as a whole file; leave nothing where there are none."""
        with contextlib.suppress(Exception):  # the very disk that failed
            self._writer.close()
        with contextlib.suppress(OSError):
            if self._flushed:
                os.truncate(self._partial, self._flushed)
                self._partial.rename(self._final)
            else:
                self._partial.unlink(missing_ok=True)
