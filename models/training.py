"""The training loop: transformed examples in, an exported model and its curves out."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
import tf_keras as keras

from configs.features import LABEL, RawColumn
from configs.model import Model, Training
from models.export import export
from models.registry import build_model
from transforms.preprocessing import read_features
from transforms.transformed import TransformedFeature, model_inputs, transformed_feature_spec, transformed_features

HISTORY_FILE = "training.json"


@dataclass(frozen=True)
class Task:
    """All that training one model needs to know, from the config."""

    model: Model
    training: Training
    features: str  # the feature table as JSON
    columns: dict[str, RawColumn]
    id_columns: tuple[str, str]


def train(
    task: Task,
    transform_output: tft.TFTransformOutput,
    train_files: list[str],
    eval_files: list[str],
    model_folder: str,
    log_folder: str,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Train `task.model`, keep the epoch with the best eval AUC, export it, and return the history.

    `train_files` and `eval_files` are globs of gzipped TFRecords of transformed Examples. TensorBoard logs and the
    history as JSON go to `log_folder`. `report` receives a line an epoch.
    """
    keras.utils.set_random_seed(task.training.seed)
    features = transformed_features(
        read_features(task.features), transform_output.vocabulary_size_by_name, task.id_columns
    )
    training = examples(train_files, features, task.training.batch, shuffle_seed=task.training.seed)
    evaluation = examples(eval_files, features, 8192)
    model = build_model(task.model, features)
    started = time.monotonic()
    history: dict[str, Any] = {"model": task.model.model_dump(mode="json"), "seed": task.training.seed, "epochs": []}
    if hasattr(model, "adapt"):
        model.adapt(training)
        model.compile(loss=_loss(), metrics=_metrics())
        history["epochs"].append({"epoch": 1, **_eval_only(model.evaluate(evaluation, verbose=0, return_dict=True))})
    else:
        _fit(model, training, evaluation, task.training, log_folder, history, report)
    history["seconds"] = round(time.monotonic() - started, 3)
    best = max(history["epochs"], key=lambda epoch: epoch["eval_auc"])
    history |= {"best_epoch": best["epoch"], "eval_auc": best["eval_auc"], "eval_logloss": best["eval_logloss"]}
    history["parameters"] = int(sum(w.shape.num_elements() for w in model.weights))
    if hasattr(model, "index"):
        model.index(training)
    export(model, transform_output, task.columns, features, model_folder)
    tf.io.gfile.makedirs(log_folder)
    with tf.io.gfile.GFile(os.path.join(log_folder, HISTORY_FILE), "w") as stream:
        json.dump(history, stream, indent=1)
    return history


def examples(
    files: list[str], features: list[TransformedFeature], batch: int, shuffle_seed: int | None = None
) -> tf.data.Dataset:
    """Return batches of (features, labels [batch]) of gzipped TFRecords, shuffled anew each pass if seeded."""
    spec = transformed_feature_spec(features)

    def parse(serialized):
        parsed = tf.io.parse_example(serialized, spec)
        labels = parsed.pop(LABEL)
        return model_inputs(features, parsed), labels

    paths = sorted(path for pattern in files for path in tf.io.gfile.glob(pattern))
    records = tf.data.TFRecordDataset(paths, compression_type="GZIP").cache()
    # Knowing its length lets Keras run many steps a call; the pass that counts also fills the cache.
    count = records.batch(8192).reduce(np.int64(0), lambda n, batch: n + tf.size(batch, tf.int64))
    records = records.apply(tf.data.experimental.assert_cardinality(int(count)))
    if shuffle_seed is not None:
        records = records.shuffle(200_000, seed=shuffle_seed)
    return records.batch(batch).map(parse, num_parallel_calls=2).prefetch(4)


def _loss() -> keras.losses.Loss:
    return keras.losses.BinaryCrossentropy(from_logits=True)


def _metrics() -> list[keras.metrics.Metric]:
    # The default 200 thresholds on probabilities misjudge AUC in the third digit.
    return [
        keras.metrics.AUC(num_thresholds=2000, from_logits=True, name="auc"),
        keras.metrics.BinaryCrossentropy(from_logits=True, name="logloss"),
    ]


def _fit(
    model: keras.Model,
    training: tf.data.Dataset,
    evaluation: tf.data.Dataset,
    config: Training,
    log_folder: str,
    history: dict[str, Any],
    report: Callable[[str], None],
) -> None:
    model.compile(
        optimizer=keras.optimizers.Adam(config.learning_rate), loss=_loss(), metrics=_metrics(), steps_per_execution=16
    )
    model.fit(
        training,
        validation_data=evaluation,
        epochs=config.epochs,
        verbose=0,
        callbacks=[
            keras.callbacks.EarlyStopping(
                monitor="val_auc", mode="max", patience=config.patience + 1, restore_best_weights=True
            ),
            keras.callbacks.TensorBoard(log_folder, write_graph=False),
            _Epochs(history["epochs"], report),
        ],
    )


class _Epochs(keras.callbacks.Callback):
    """Keeps each epoch's figures and reports them as they come."""

    def __init__(self, epochs: list[dict[str, Any]], report: Callable[[str], None]):
        super().__init__()
        self._epochs = epochs
        self._report = report

    def on_epoch_begin(self, epoch, logs=None):
        self._began = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        logs = logs or {}
        figures = {
            "epoch": epoch + 1,
            "seconds": round(time.monotonic() - self._began, 3),
            "train_auc": float(logs["auc"]),
            "train_logloss": float(logs["logloss"]),
            "eval_auc": float(logs["val_auc"]),
            "eval_logloss": float(logs["val_logloss"]),
        }
        self._epochs.append(figures)
        self._report(
            f"epoch {epoch + 1}: eval AUC {figures['eval_auc']:.4f}, LogLoss {figures['eval_logloss']:.4f}, "
            f"train AUC {figures['train_auc']:.4f}, {figures['seconds']:.1f} s"
        )


def _eval_only(figures: dict[str, float]) -> dict[str, float]:
    return {f"eval_{name}": float(figures[name]) for name in ("auc", "logloss")}
