"""Models trained on the same split and measured alike, outside of a run."""

from __future__ import annotations

import math
import statistics
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf
import tensorflow_transform as tft
from pydantic import TypeAdapter, ValidationError

from components.evaluator.component import PREDICTION
from components.evaluator.metrics import binary_metrics
from components.evaluator.ranking.by import RankedBy
from components.trainer import feature_table
from configs import Config, ConfigError
from configs.features import LABEL
from configs.model import MODELS, Model, Training
from configs.retrieval import Retrieval
from models.base import ClosedForm, MissingFeatureError
from models.registry import implementation
from models.training.job import Task
from models.training.train import train

COLD = {"cold users": "cold_user", "cold items": "cold_item"}
_MODEL: TypeAdapter[Model] = TypeAdapter(Model)


@dataclass(frozen=True)
class Data:
    """The folders of a run up to Transform: raw examples, transformed ones, the transform graph, the catalogue."""

    examples: str
    transformed: str
    graph: str
    catalogue: str = ""  # only lists of the best items need it


@dataclass(frozen=True)
class Entry:
    """A model in the contest."""

    name: str
    model: Model
    training: Training


@dataclass(frozen=True)
class Figures:
    """One training: metrics by split, the model's size, and training examples a second in the median epoch."""

    seed: int
    metrics: Mapping[str, Mapping[str, float]]
    parameters: int
    examples_per_second: float
    seconds: float
    best_epoch: int


def entries(config: Config, names: Iterable[str] = ()) -> list[Entry]:
    """Return the models that are called so; without names the config's own, its baselines and its `models`.

    A name is that of the config's model (its type), of one of `models` or `baselines`, or else of a type of model,
    which then has its defaults. Raises ConfigError.
    """
    own: dict[str, Entry] = {config.model.type: Entry(config.model.type, config.model, config.training)}
    listed = {n: Entry(n, m, config.training) for n, m in config.baselines.items()}
    further = {n: Entry(n, c.model, config.training_of(c)) for n, c in config.models.items()}
    known = {**listed, **own, **further}
    found: list[Entry] = []
    for name in list(names) or list(known):
        if name in known:
            found.append(known[name])
            continue
        try:
            found.append(Entry(name, _MODEL.validate_python({"type": name}), config.training))
        except ValidationError:
            choices = ", ".join(dict.fromkeys([*known, *sorted(MODELS)]))
            raise ConfigError(f"--models {name}: no model of that name; choose from {choices}") from None
    if twice := sorted({e.name for e in found if sum(e.name == other.name for other in found) > 1}):
        raise ConfigError(f"--models: {twice[0]} is named twice")
    return found


def training_task(config: Config, model: Model, training: Training, seed: int) -> Task:
    """Return the task of training `model` on the config's features."""
    return Task(
        model=model,
        training=training.model_copy(update={"seed": seed}),
        features=feature_table(config),
        columns=config.raw_columns,
        id_columns=(config.data.user, config.data.item),
        weight=config.data.weight or "",
    )


def fit(task: Task, data: Data, folder: str, report: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Train and export into `folder`/model, and return the history. Raises ConfigError where a feature is wanting."""
    try:
        return train(
            task,
            tft.TFTransformOutput(data.graph),
            [f"{data.transformed}/Split-train/*.gz"],
            [f"{data.transformed}/Split-eval/*.gz"],
            f"{folder}/model",
            f"{folder}/logs",
            report=report,
        )
    except MissingFeatureError as error:
        raise ConfigError(str(error)) from None


def measure(
    config: Config, entry: Entry, seed: int, data: Data, report: Callable[[str], None] = lambda line: None
) -> Figures:
    """Train a model once and score the eval and test examples, raw, with what it exports.

    `metrics` has `eval`, `test`, and the parts of test in COLD that have rows. Where the config judges lists of the
    best items, eval and test have their metrics too; the model recommends alone, without `retrieval`.
    """
    with tempfile.TemporaryDirectory() as folder:
        history = fit(training_task(config, entry.model, entry.training, seed), data, folder, report)
        report("scoring eval and test")
        serve = tf.saved_model.load(f"{folder}/model").signatures["serve_examples"]
        metrics: dict[str, Mapping[str, float]] = {}
        for split in ("eval", "test"):
            rows = _scored(serve, f"{data.examples}/Split-{split}", config.data.user)
            metrics[split] = _metrics(rows) | _of_lists(config, f"{folder}/model", data, split)
        for name, column in COLD.items():
            cold = rows[rows[column] == b"yes"]
            if len(cold):
                metrics[name] = _metrics(cold)
    speeds = [e["examples"] / max(e["seconds"], 1e-3) for e in history["epochs"] if "examples" in e]
    if not speeds:
        speeds = [_count(f"{data.transformed}/Split-train") / max(history["seconds"], 1e-3)]
    return Figures(
        seed,
        metrics,
        history["parameters"],
        statistics.median(speeds),
        history["seconds"],
        history["best_epoch"],
    )


def _of_lists(config: Config, model: str, data: Data, split: str) -> dict[str, float]:
    by = RankedBy.of(config)
    if by is None:
        return {}
    alone = by.model_copy(update={"retrieval": Retrieval()})
    ranked = alone.lists(
        {"": model}, lambda s: sorted(tf.io.gfile.glob(f"{data.examples}/Split-{s}/*.gz")), split, data.catalogue
    )
    return {name: value for name, value in ranked.metrics("").items() if not math.isnan(value)}


def counted(entry: Entry) -> bool:
    """Return whether all seeds give the same model."""
    if not entry.model.implementation:  # of a family, whatever it chooses
        return False
    made = implementation(type(entry.model))
    return issubclass(made, ClosedForm) and not made.seeded


def _scored(serve, folder: str, user: str) -> pd.DataFrame:
    text = tf.io.FixedLenFeature([], tf.string, "")
    spec = {user: text, LABEL: tf.io.FixedLenFeature([], tf.float32), **dict.fromkeys(COLD.values(), text)}
    parts = []
    for batch in tf.data.TFRecordDataset(sorted(tf.io.gfile.glob(f"{folder}/*.gz")), "GZIP").batch(8192):
        columns = {name: value.numpy() for name, value in tf.io.parse_example(batch, spec).items()}
        parts.append(pd.DataFrame({**columns, PREDICTION: serve(inputs=batch)[PREDICTION].numpy()}))
    return pd.concat(parts, ignore_index=True).rename(columns={user: "user"})


def _metrics(rows: pd.DataFrame) -> dict[str, float]:
    users = pd.util.hash_array(rows["user"].to_numpy(object), categorize=False)
    return binary_metrics(users, rows[LABEL].to_numpy(np.float32), rows[PREDICTION].to_numpy(np.float32))


def _count(folder: str) -> int:
    records = tf.data.TFRecordDataset(sorted(tf.io.gfile.glob(f"{folder}/*.gz")), "GZIP").batch(8192)
    return int(records.reduce(np.int64(0), lambda n, batch: n + tf.size(batch, tf.int64)))
