"""Training by itself: the candidate, on what the last run has transformed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow_transform as tft

from components.outcomes import NodeId
from components.trainer import feature_table
from configs import Config, ConfigError, digest
from models.training.history import HISTORY_FILE
from models.training.job import Task
from models.training.train import train
from pipeline.running.nodes import Graph


@dataclass(frozen=True)
class Trained:
    """Where a training lies, and what it came to: empty on a machine of a cluster that is not the chief's."""

    folder: str
    history: dict[str, Any]


def train_candidate(config: Config, report: Callable[[str], None], log: Callable[[str, str], None]) -> Trained:
    """Train `config.model` on the newest transformed examples. One that was broken off goes on where it was.

    Raises ConfigError where no run has transformed any, or had another feature table.
    """
    graph = Graph(config)
    found = graph.latest(NodeId.TRANSFORM)
    if found is None:
        raise ConfigError(f"{config.runs_folder}: no run has transformed examples yet; `recsys run {config.path}` does")
    made, properties = found
    told = json.loads(properties["custom_config"].string_value)
    if told["features"] != feature_table(config):
        raise ConfigError(
            f"{config.path}: features are not those of the last run, whose examples are to be trained on; "
            f"`recsys run {config.path}` transforms anew"
        )
    examples = made.uri("transformed_examples")
    task = Task(
        config.model,
        config.training,
        told["features"],
        config.raw_columns,
        (config.data.user, config.data.item),
        config.data.weight or "",
    )
    # Named by what is trained on what: calling again goes on, and pods of a cluster find the same place.
    folder = f"{config.runs_folder}/training/{config.model.type}-{digest(config.model, config.training, examples)[:8]}"
    os.makedirs(folder, exist_ok=True)
    history = train(
        task,
        tft.TFTransformOutput(made.uri("transform_graph")),
        [f"{examples}/Split-train/*.gz"],
        [f"{examples}/Split-eval/*.gz"],
        f"{folder}/model",
        f"{folder}/logs",
        report,
        log,
    )
    assert history or not os.path.exists(f"{folder}/logs/{HISTORY_FILE}")
    return Trained(folder, history)
