"""One worker process: `python -m models.training.worker JOB.json STATE THREADS`.

TF_CONFIG has its place among the others.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from models.training.workers import end_with_starter, send_progress


def _virtual_devices() -> list[str] | None:
    """Cut the processor in as many devices as RECSYS_VIRTUAL_DEVICES says: to try what is for several GPUs without."""
    import tensorflow as tf

    if (count := int(os.environ.get("RECSYS_VIRTUAL_DEVICES", "0"))) == 0:
        return None
    processor = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * count)
    return [f"CPU:{index}" for index in range(count)]


def main() -> None:
    """Do this process's part of the job, then exit."""
    end_with_starter()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    import tensorflow as tf

    from models.training.context import WorkerContext
    from models.training.job import Job
    from models.training.work import work

    job = Job.from_json(Path(sys.argv[1]).read_text())
    state = sys.argv[2]
    config = job.task.training
    if threads := int(sys.argv[3]):
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    own: dict[str, Any] = json.loads(os.environ.get("TF_CONFIG") or "{}")
    cluster, task = own.get("cluster", {}), own.get("task", {})
    if config.chosen_strategy == "parameter_server":
        from models.training.parameter_server import work_with_servers

        work_with_servers(job, state, cluster, task)
    elif config.chosen_strategy == "mirrored":
        work(job, WorkerContext(strategy=tf.distribute.MirroredStrategy(_virtual_devices())), send_progress, state)
    else:
        # First of all that TensorFlow does in this process: later it is too late for collectives.
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        count = len(cluster.get("worker", [])) + len(cluster.get("chief", [])) or 1
        index = task.get("index", 0) + (len(cluster.get("chief", [])) if task.get("type") == "worker" else 0)
        work(job, WorkerContext(index, count, strategy), send_progress, state)
    sys.stdout.flush()
    # Not the interpreter's own end: threads of collectives wait for peers that have ended already.
    os._exit(0)


if __name__ == "__main__":
    try:
        main()
    except BaseException:
        traceback.print_exc()
        sys.stdout.flush()
        os._exit(1)  # as at the end of main
