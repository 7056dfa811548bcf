"""Training with parameter servers: tables cut over servers, workers at their own pace.

The coordinator hands out files, or parts of them, and each is trained on by whichever worker is free: every example
once an epoch, or again where a worker died on it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import tf_keras as keras

from models.base import OwnBatches
from models.layers.embedding import table_layers
from models.layers.rows import shards_of
from models.training.checkpoints import CheckpointWriter
from models.training.context import WorkerContext
from models.training.examples import EVAL_BATCH, Examples, examples, files_of
from models.training.job import Job
from models.training.loop import end_evaluation
from models.training.steps import Steps
from models.training.work import finish, own_validation
from models.training.workers import send_progress

_SMALLEST_SHARD = 16 << 10  # bytes; what is smaller is not cut
_PARTS_A_WORKER = 2


def work_with_servers(job: Job, state: str, cluster: Mapping[str, Any], task: Mapping[str, Any]) -> None:
    """Do one process's part: serve for ever as a worker or parameter server, or coordinate and export."""
    workers = len(cluster["worker"])
    if task["type"] == "chief":
        _coordinate(job, state, workers, len(cluster["ps"]))
        return
    # With fewer threads than this, closures that wait for one another hang without a word.
    threads = max(workers + 1, os.cpu_count() or 1)
    config = tf.compat.v1.ConfigProto(inter_op_parallelism_threads=threads)
    spec = tf.train.ClusterSpec(dict(cluster))
    tf.distribute.Server(spec, job_name=task["type"], task_index=task["index"], config=config, protocol="grpc").join()


def _coordinate(job: Job, state: str, workers: int, servers: int) -> None:
    config, features = job.task.training, job.features
    strategy = tf.distribute.ParameterServerStrategy(
        tf.distribute.cluster_resolver.TFConfigClusterResolver(),
        variable_partitioner=tf.distribute.experimental.partitioners.MinSizePartitioner(_SMALLEST_SHARD, servers),
    )
    coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
    keras.utils.set_random_seed(config.seed)
    context = WorkerContext(strategy=strategy)
    source = Examples(job.train_files, features, cache_mib=0)
    evaluation = Examples(job.eval_files, features, cache_mib=config.cache_mib)
    judged = evaluation.batches(EVAL_BATCH, evaluation.steps(EVAL_BATCH))
    sample = next(iter(examples(job.eval_files, features, 2)))
    started = time.monotonic()
    steps = Steps(job.fresh_model, config, sample, context)
    if isinstance(steps.model, OwnBatches):
        raise ValueError(
            f"model {job.task.model.type}: makes batches of its own, which parameter servers cannot hand out; "
            "choose another training.strategy"
        )
    for layer in table_layers(steps.model):
        for table in {id(t.variable): t.variable for t in layer.tables.values()}.values():
            shards = len(shards_of(table))
            print(f"tables {' x '.join(map(str, table.shape))}: cut over {shards} of {servers} servers", flush=True)
    batch = max(config.batch // workers, 1)

    @tf.function
    def train_on(path, part, parts, epoch):
        """Train on one part of a file, and return its labels, logits, steps, and the seconds spent waiting for it."""
        labels = tf.TensorArray(tf.float32, 0, dynamic_size=True, infer_shape=False, element_shape=[None])
        logits = tf.TensorArray(tf.float32, 0, dynamic_size=True, infer_shape=False, element_shape=[None])
        at = 0
        waited, asked = tf.constant(0.0, tf.float64), tf.timestamp()
        for inputs, given in source.part_of_file(path, part, parts, epoch, batch, config.seed):
            with tf.control_dependencies([given]):
                waited += tf.timestamp() - asked
            taken, scores = steps.local(strategy.run(steps.step, args=(inputs, given)))
            labels, logits, at = labels.write(at, taken), logits.write(at, scores), at + 1
            with tf.control_dependencies([scores]):
                asked = tf.timestamp()
        return labels.concat(), logits.concat(), at, waited

    writer = CheckpointWriter(job, steps, context, send_progress, state)
    record = writer.record
    files = files_of(job.train_files)
    parts = max(1, -(-_PARTS_A_WORKER * workers // len(files)))
    while not record.finished:
        began = time.monotonic()
        epoch = len(record.epochs)
        units = [(path, part) for path in files for part in range(parts)]
        with strategy.scope():
            results = [
                coordinator.schedule(train_on, args=(path, tf.constant(part, tf.int64), tf.constant(parts, tf.int64),
                                                     tf.constant(epoch, tf.int64)))
                for path, part in units
            ]  # fmt: skip
        trained, waited = 0, 0.0
        for done, result in enumerate(results):
            labels, logits, taken, idle = result.fetch()
            waited += float(idle)
            steps.seen.add(tf.constant(labels), tf.constant(logits))
            steps.position.assign_add(int(taken))
            trained += len(labels)
            at = int(steps.position.numpy())
            send_progress(f"epoch {epoch + 1}, part {done + 1:,} of {len(units):,}", at, passing=True)
        seconds = time.monotonic() - began
        # One line for all of them: which worker took a part is not known here.
        measured = [{"seconds": seconds, "examples": float(trained), "waited": waited / workers}]
        reached = int(steps.position.numpy())
        found = steps.evaluate(judged) | own_validation(job, steps.model)
        # How many steps an epoch has depends on who took what: here each evaluation is at the end of one.
        end_evaluation(
            record, measured, steps, found, began, config, context, writer.callbacks, len(record.epochs) + 1, 1
        )
        writer.callbacks.report(f"{reached:,} steps", reached, passing=True)
    finish(job, steps, writer, sample, time.monotonic() - started)
