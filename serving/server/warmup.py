"""Replays a version's recorded requests before it becomes available, so that no client pays for first runs."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Callable
from typing import Any

from serving.server.metrics import ServerMetrics
from serving.server.status import Code, ServingError

WARMUP_FILE = pathlib.Path("assets.extra") / "tf_serving_warmup_requests"
MAX_WARMUP_RECORDS = 1000


def run_warmup(path: pathlib.Path, replay: Callable[[Any], None], metrics: ServerMetrics | None = None) -> int:
    """Replay every PredictionLog of the version in `path` through `replay`; returns how many there were.

    A record that cannot be read or fails makes the version unfit to serve: ServingError, as in TensorFlow Serving.
    """
    file = path / WARMUP_FILE
    if not file.exists():
        return 0
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    count = 0
    for record in tf.compat.v1.io.tf_record_iterator(str(file)):
        count += 1
        if count > MAX_WARMUP_RECORDS:
            raise ServingError(
                Code.INVALID_ARGUMENT,
                f"Number of warmup records exceeds the maximum ({MAX_WARMUP_RECORDS}) at {file}",
            )
        try:
            log = prediction_log_pb2.PredictionLog.FromString(record)
        except Exception as error:
            raise ServingError(
                Code.INVALID_ARGUMENT, f"Failed to parse warmup record {count} from {file}: {error}"
            ) from error
        start = time.perf_counter()
        replay(log)
        if metrics:
            metrics.warmup_latency.add(str(path), "OK", sample=(time.perf_counter() - start) * 1e6)
    return count
