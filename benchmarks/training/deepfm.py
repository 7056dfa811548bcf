"""Our DeepFM on made-up ids: 8 tables, 16 wide, layers of 400-400-400, batches of 1,024.

`python -m benchmarks.training.deepfm VOCABULARY OPTIMIZER SECONDS` prints examples/s of a few windows, and memory.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from configs.model import DeepFM, Tables, Training
from models.registry import build_model
from models.training.context import WorkerContext
from models.training.steps import Steps
from transforms.transformed import TransformedFeature

TABLES, DIM, HIDDEN, BATCH = 8, 16, [400, 400, 400], 1024
_BATCHES = 200
_WINDOWS = 5


def batches(vocabulary: int, batch: int = BATCH, seed: int = 0, exponent: float = 0.0) -> tf.data.Dataset:
    """Return endless batches; the k-th most frequent id is drawn in proportion to k^-exponent (Zipf).

    With exponent 0 every id is drawn as often as any other, the hardest case for memory. Ids in logs are near 1.
    """
    random = np.random.default_rng(seed)
    share = np.cumsum(np.arange(1, vocabulary + 1, dtype=np.float64) ** -exponent)
    # Where frequent ids lie is the same for all workers.
    place = np.random.default_rng(0).permutation(vocabulary)
    drawn = (np.searchsorted(share, random.random([_BATCHES, batch]) * share[-1]) for _ in range(TABLES))
    ids = [tf.constant(place[rank]) for rank in drawn]
    labels = tf.constant(random.integers(0, 2, [_BATCHES, batch]).astype(np.float32))

    def take(step):
        return {f"f{i}": column[step % _BATCHES] for i, column in enumerate(ids)}, labels[step % _BATCHES]

    return tf.data.Dataset.range(2**62).map(take).prefetch(4)


def steps_on(vocabulary: int, optimizer: str, place: WorkerContext, batch: int = BATCH) -> Steps:
    """Return the compiled steps of a model of that many ids a table."""
    features = [TransformedFeature(f"f{i}", "user", vocabulary) for i in range(TABLES)]
    model = DeepFM(type="deepfm", embedding_dim=DIM, hidden=HIDDEN, dropout=0.0)
    training = Training(batch=batch, tables=Tables.model_validate({"optimizer": optimizer}))
    sample = next(iter(batches(vocabulary, 2)))
    return Steps(lambda: build_model(model, features), training, sample, place)


def speeds(
    steps: Steps,
    data: tf.data.Dataset,
    seconds: float,
    batch: int = BATCH,
    agreed: Callable[[int], int] = lambda count: count,
) -> list[float]:
    """Return examples/s of a few windows that take `seconds` together, of as many steps as workers agree on."""
    iterator = iter(data)
    steps.run(iterator, tf.constant(3))
    began = time.perf_counter()
    steps.run(iterator, tf.constant(5))
    count = agreed(max(int(5 * seconds / _WINDOWS / (time.perf_counter() - began)), 1))
    found = []
    for _ in range(_WINDOWS):
        began = time.perf_counter()
        steps.run(iterator, tf.constant(count))
        found.append(count * batch / (time.perf_counter() - began))
    return found


def main() -> None:
    """Measure and print."""
    vocabulary, optimizer, seconds = int(float(sys.argv[1])), sys.argv[2], float(sys.argv[3])
    threads = int(os.environ["THREADS"])
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    steps = steps_on(vocabulary, optimizer, WorkerContext())
    found = speeds(steps, batches(vocabulary), seconds)
    slots = (*steps.table_optimizer.variables(), *steps.tables)
    held = sum(4 * v.shape.num_elements() for v in slots)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"examples_per_second": found, "tables_bytes": held, "peak_bytes": peak}))


if __name__ == "__main__":
    main()
