"""One worker of the benchmark, held to one thread on one core, with TF_CONFIG.

`python -m benchmarks.training.worker EXPONENT SECONDS` prints its examples/s; ids are drawn as `batches` says.
"""

import json
import os
import sys

import tensorflow as tf

from benchmarks.training.deepfm import batches, speeds, steps_on
from models.training.context import WorkerContext
from models.training.workers import end_with_starter

VOCABULARY = 100_000
BATCH_A_WORKER = 2048


def main() -> None:
    """Measure and print this worker's examples/s."""
    end_with_starter()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    told = json.loads(os.environ.get("TF_CONFIG") or "{}")
    exponent, seconds = float(sys.argv[1]), float(sys.argv[2])
    count, index = len(told.get("cluster", {}).get("worker", [0])), told.get("task", {}).get("index", 0)
    # What it sends and receives is done by threads of its own: with a core they have no more than the one worker has.
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[index]})
    place = WorkerContext(index, count, tf.distribute.MultiWorkerMirroredStrategy()) if count > 1 else WorkerContext()
    steps = steps_on(VOCABULARY, "adam", place, BATCH_A_WORKER * count)
    # All take as many steps: the slowest says how many there is time for.
    data = batches(VOCABULARY, BATCH_A_WORKER, index, exponent)
    found = speeds(steps, data, seconds, BATCH_A_WORKER, lambda n: -place.largest(-n))
    print(json.dumps({"examples_per_second": found}), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
