"""A sampled share of requests and answers as PredictionLog records in TFRecord files, never in a request's way.

A model's `logging_config` turns it on: `sampling_config.sampling_rate` is the share, and
`log_collector_config.filename_prefix` where files go, `<prefix>-<UTC time>-<process>-<number>.tfrecord`. A file is
written as `.tfrecord.partial` and renamed when it is full, old enough, or the server stops. Where the disk cannot
follow, records are dropped and counted (`request_log_count`), and requests go on.
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


@dataclass(frozen=True)
class Sampling:
    """Where a model's sampled records go, and how large the sample is."""

    rate: float
    prefix: str


class RequestLogger:
    """Takes records from the event loop and writes them on a thread of its own."""

    def __init__(self, metrics: ServerMetrics, file_bytes: int = FILE_BYTES, file_seconds: float = FILE_SECONDS):
        self.sampled: dict[str, Sampling] = {}
        self._metrics = metrics
        self._file_bytes = file_bytes
        self._file_seconds = file_seconds
        self._records: queue.Queue[tuple[Any, ...] | None] = queue.Queue(QUEUE_RECORDS)
        self._thread: threading.Thread | None = None
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
        """Write what waits and finish the files."""
        if self._thread is not None:
            self._records.put(None)
            self._thread.join(10)
            self._thread = None

    def _write(self) -> None:
        from tensorflow_serving.apis import prediction_log_pb2

        files: dict[str, _File] = {}
        numbers = itertools.count()
        while True:
            try:
                record = self._records.get(timeout=1.0)
            except queue.Empty:
                record = ()
            for prefix in [prefix for prefix, file in files.items() if record is None or file.old(self._file_seconds)]:
                files.pop(prefix).finish()
            if record is None:
                return
            if not record:
                continue
            model, version, signature, kind, request, response, sampling = record
            try:
                entry = prediction_log_pb2.PredictionLog()
                getattr(entry, kind).request.MergeFromString(request)
                getattr(entry, kind).response.MergeFromString(response)
                spec = entry.log_metadata.model_spec
                spec.name, spec.signature_name = model, signature
                spec.version.value = version
                entry.log_metadata.sampling_config.sampling_rate = sampling.rate
                file = files.get(sampling.prefix)
                if file is None:
                    file = files[sampling.prefix] = _File(sampling.prefix, next(numbers))
                file.write(entry.SerializeToString())
                if file.bytes >= self._file_bytes:
                    files.pop(sampling.prefix).finish()
                self._metrics.request_log_count.add(model, "OK")
            except Exception as error:
                self._metrics.request_log_count.add(model, "UNKNOWN")
                log.warning("request log of model %s under %s: %s", model, sampling.prefix, error)
                files.pop(sampling.prefix, None)
                time.sleep(0.1)  # a full disk stays full for a while


class _File:
    def __init__(self, prefix: str, number: int):
        import tensorflow as tf

        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        self._final = pathlib.Path(f"{prefix}-{stamp}-{os.getpid()}-{number:05d}.tfrecord")
        self._final.parent.mkdir(parents=True, exist_ok=True)
        self._partial = self._final.with_name(self._final.name + ".partial")
        self._writer = tf.io.TFRecordWriter(str(self._partial))
        self._opened = time.monotonic()
        self.bytes = 0

    def write(self, record: bytes) -> None:
        self._writer.write(record)
        self.bytes += len(record) + 16

    def old(self, seconds: float) -> bool:
        return time.monotonic() - self._opened >= seconds

    def finish(self) -> None:
        with contextlib.suppress(OSError):
            self._writer.close()
            self._partial.rename(self._final)
