"""MovieLens-100K as the training benchmark's workers take it: our speed an epoch, and the arrays for a PyTorch peer."""

import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import tensorflow as tf

from benchmarks.movielens import CONFIGS
from components.trainer import feature_table
from configs import Config, load_config
from configs.features import LABEL
from models.registry import build_model
from models.training.context import WorkerContext
from models.training.examples import Examples, examples
from models.training.job import Job, Task
from models.training.steps import Steps


def settings() -> Config:
    """Return `configs/movielens.yaml`, its runs where `benchmarks.movielens` has them."""
    return load_config(CONFIGS / "movielens.yaml", ["runs.folder=../runs/bench-movielens/user_time"])


def prepared() -> Path:
    """Where `prepare` notes the folders of the examples."""
    return Path(settings().runs_folder) / "prepared.json"


def job() -> Job:
    """Return the training of `configs/movielens.yaml` on the prepared examples."""
    config, folders = settings(), json.loads(prepared().read_text())
    task = Task(
        config.model,
        config.training,
        feature_table(config),
        config.raw_columns,
        (config.data.user, config.data.item),
    )
    files = {split: [f"{folders['transformed']}/Split-{split}/*.gz"] for split in ("train", "eval")}
    return Job(task, folders["graph"], files["train"], files["eval"], "", "")


def write_arrays(path: str, epochs: int) -> None:
    """Write the parsed examples and the sizes of the model for a peer that knows nothing of TFRecords."""
    told, columns = job(), {}
    inputs, labels = next(iter(examples(told.train_files, told.features, 10**7)))
    columns = {name: value.numpy() for name, value in inputs.items()} | {LABEL: labels.numpy()}
    model, training = told.task.model, told.task.training
    sizes = {
        "sizes": {f.name: f.size for f in told.features},
        "dim": model.embedding_dim,
        "hidden": model.hidden,
        "dropout": model.dropout,
        "l2": model.l2 or 0.0,
        "batch": training.batch,
        "learning_rate": training.step_sizes[1],
        "epochs": epochs,
    }
    np.savez(path, told=json.dumps(sizes), **columns)


def main() -> None:
    """`prepare` the examples, write their `arrays` to a file, or train for some epochs and print each one's examples/s.

    That is reading, shuffling and all steps, without evaluation.
    """
    if sys.argv[1] == "prepare":
        from pipeline.prepare import prepare

        prepared().write_text(json.dumps(asdict(prepare(settings()))))
        sys.stdout.flush()
        os._exit(0)  # protobuf's messages that outlive their module crash the interpreter at its own end
    if sys.argv[1] == "arrays":
        write_arrays(sys.argv[2], int(sys.argv[3]))
        return
    told, epochs = job(), int(sys.argv[1])
    threads = int(os.environ["THREADS"])
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    config = told.task.training
    began = time.perf_counter()
    source = Examples(told.train_files, told.features)
    reading = time.perf_counter() - began
    per_epoch = source.steps(config.batch)
    sample = next(iter(examples(told.eval_files, told.features, 2)))
    steps = Steps(lambda: build_model(told.task.model, told.features), config, sample, WorkerContext())
    batches = iter(source.batches(config.batch, per_epoch, epochs + 1, config.seed))
    steps.run(batches, tf.constant(per_epoch))  # compiles
    for _ in range(epochs):
        began = time.perf_counter()
        steps.run(batches, tf.constant(per_epoch))
        seconds = time.perf_counter() - began
        # Parsing is paid once for a whole training; here each epoch bears its part of the config's.
        speed = source.count / (seconds + reading / config.epochs)
        print(json.dumps({"examples_per_second": speed}), flush=True)


if __name__ == "__main__":
    main()
