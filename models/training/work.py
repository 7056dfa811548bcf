"""One process's part of a training, and what the chief does at its end."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from models.base import ClosedForm, OwnBatches, OwnLoss, OwnValidation, Recommender, Retriever, TrainingSource
from models.export.projection import write_projection
from models.export.saved_model import export
from models.training.calibration import calibrating_shift, logloss
from models.training.checkpoints import CheckpointWriter
from models.training.context import WorkerContext
from models.training.examples import EVAL_BATCH, Batch, Examples, Share, dealt_by_file, examples, files_of
from models.training.history import history_of, table_costs, write_history
from models.training.job import Job
from models.training.loop import Report, fit, worker_figures
from models.training.negatives import WithNegatives
from models.training.priors import start_from_counts
from models.training.steps import Steps
from models.training.streaming_auc import StreamingAUC, figures
from transforms.transformed import TransformedFeature


def work(job: Job, context: WorkerContext, report: Report, state: str | None = None) -> None:
    """Do one process's part of a job; the chief exports. `state` is the folder of checkpoints to go on from."""
    config, features = job.task.training, job.features
    # Every process has dropout of its own; weights start as the chief's.
    keras.utils.set_random_seed(config.seed + context.index)
    share = Share(context.index, context.count)
    if context.chief and not dealt_by_file(files_of(job.train_files), share):
        report(f"fewer files than the {context.count} workers: records are dealt out one by one", 0)
    rows = Examples(job.train_files, features, share, config.cache_mib)
    evaluation = Examples(job.eval_files, features, share, config.cache_mib)
    sample = next(iter(examples(job.eval_files, features, 2)))
    started = time.monotonic()
    steps = Steps(job.fresh_model, config, sample, context)
    training: TrainingSource = rows
    drawn = None
    if isinstance(steps.model, OwnBatches):
        training = steps.model.training_source(rows)
    elif config.negatives and not isinstance(steps.model, OwnLoss):
        training = drawn = WithNegatives(
            rows, examples(job.train_files, features, EVAL_BATCH), features, config.negatives
        )
    if not isinstance(steps.model, OwnLoss) and drawn is None:
        start_from_counts(steps.model, rows, context)
    writer = CheckpointWriter(job, steps, context, report, state)
    judged = evaluation.batches(EVAL_BATCH, evaluation.steps(EVAL_BATCH))

    def evaluate() -> dict[str, float]:
        ranked = drawn.ranking(steps.model, examples(job.eval_files, features, EVAL_BATCH)) if drawn else {}
        return steps.evaluate(judged) | own_validation(job, steps.model) | ranked

    fit(steps, training, evaluate, config, context, writer.callbacks, writer.record)
    if context.chief:
        finish(job, steps, writer, sample, time.monotonic() - started)
    context.total(np.zeros(1))  # none leaves before the chief is done


def own_validation(job: Job, model: Recommender) -> dict[str, float]:
    """Return the metrics of the eval examples that a model has of its own."""
    if not isinstance(model, OwnValidation):
        return {}
    return model.validate(examples(job.eval_files, job.features, EVAL_BATCH))


def finish(job: Job, steps: Steps, writer: CheckpointWriter, sample: Batch, seconds: float) -> None:
    """Export the model of the best evaluation and write the history."""
    features, record = job.features, writer.record
    history = history_of(job, record.epochs, record.best, seconds) | {
        "parameters": int(sum(w.shape.num_elements() for w in steps.model.weights)),
        "tables": table_costs(steps, features, job),
        "workers": worker_figures(record.workers),
    }
    # A fresh model, free of the strategy: what is exported knows nothing of how it was trained.
    model = job.fresh_model()
    model(sample[0], training=False)
    tf.train.Checkpoint(model=model).read(writer.best(record)).expect_partial()
    history |= _settle_and_export(job, model, features)
    write_history(job, history)
    writer.remove_best()


def fit_closed_form(job: Job) -> dict[str, Any]:
    """Fit a model that takes no gradient steps, export it, and return the history."""
    features, config = job.features, job.task.training
    started = time.monotonic()
    model = job.fresh_model()
    assert isinstance(model, ClosedForm)
    model.adapt(examples(job.train_files, features, config.batch, config.seed, weighted=job.task.weighted))
    labels, logits = scored(model, job.eval_files, features)
    judged = StreamingAUC()
    judged.add(tf.constant(labels), tf.constant(logits))
    found = figures(judged.take()) | own_validation(job, model)
    epoch = {"evaluation": 1, "epoch": 1} | {f"eval_{name}": value for name, value in found.items()}
    history = history_of(job, [epoch], 0, time.monotonic() - started)
    history["parameters"] = int(sum(w.shape.num_elements() for w in model.weights))
    history["fitted_on"] = model.fitted_on()
    history |= _settle_and_export(job, model, features)
    write_history(job, history)
    return history


def _settle_and_export(job: Job, model: Recommender, features: list[TransformedFeature]) -> dict[str, Any]:
    """Make the best weights the served model, and return what the history has to say of it."""
    model.settle()
    found: dict[str, Any] = {}
    calibrated = bool(model.output_biases) and not isinstance(model, OwnLoss) and not job.task.training.negatives
    if calibrated or job.keep_scores:
        labels, logits = scored(model, job.eval_files, features)
        if calibrated:
            shift = calibrating_shift(labels, logits)
            model.shift(shift)
            logits += np.float32(shift)
            found = {"eval_logloss": logloss(labels, logits), "calibrating_shift": round(shift, 6)}
        if job.keep_scores:
            np.savez(job.keep_scores, labels=labels, logits=logits)
    write_projection(model, job.transform_output, features, f"{job.log_folder}/projection")
    if isinstance(model, Retriever):
        model.index(examples(job.train_files, features, EVAL_BATCH))
    # Beside its place, then renamed: whoever looks meets a whole model or none.
    target = Path(job.model_folder)
    beside = target.with_name(f".{target.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    export(model, job.transform_output, job.task.columns, features, str(beside))
    shutil.rmtree(target, ignore_errors=True)
    os.rename(beside, target)
    return found


def scored(model: Recommender, files: list[str], features: list[TransformedFeature]) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and logits of examples, in the order of their files."""
    call = tf.function(model, reduce_retracing=True)
    found = [(y.numpy(), call(x, training=False).numpy()) for x, y in examples(files, features, EVAL_BATCH)]
    labels, logits = zip(*found, strict=True)
    return np.concatenate(labels), np.concatenate(logits)
