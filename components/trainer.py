"""The TFX side of training: one stock Trainer node a model, candidate or baseline."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from typing import Any

import tensorflow_transform as tft
from pydantic import TypeAdapter
from tfx import types
from tfx.components import Trainer
from tfx.components.trainer.executor import GenericExecutor
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.dsl.components.base import executor_spec
from tfx.proto import trainer_pb2

from configs import Config, canonical_json
from configs.features import RawColumn
from configs.model import Model, Training
from models.training.job import Task
from models.training.train import train

_MODEL: TypeAdapter[Model] = TypeAdapter(Model)
progress = logging.getLogger("recsys.progress")


def trainer(
    config: Config, model: Model, training: Training, examples: types.BaseChannel, transform_graph: types.BaseChannel
) -> Trainer:
    """Return the node that trains `model` on the transformed examples."""
    return Trainer(
        run_fn=f"{__name__}.run_fn",
        custom_executor_spec=executor_spec.ExecutorClassSpec(GenericExecutor),
        examples=examples,
        transform_graph=transform_graph,
        train_args=trainer_pb2.TrainArgs(splits=["train"]),
        eval_args=trainer_pb2.EvalArgs(splits=["eval"]),
        custom_config={
            "model": canonical_json(model),
            "training": canonical_json(training),
            "features": feature_table(config),
            "columns": json.dumps([asdict(column) for column in config.raw_columns.values()]),
            "user": config.data.user,
            "item": config.data.item,
            **({"weight": config.data.weight} if config.data.weight else {}),
        },
    )


def feature_table(config: Config) -> str:
    """Return the feature table as JSON, in its own order."""
    return json.dumps(
        {name: feature.model_dump(mode="json", by_alias=True) for name, feature in config.features.items()}
    )


def run_fn(fn_args: FnArgs) -> None:
    """Train and export: what the Trainer calls."""
    config: dict[str, Any] = fn_args.custom_config
    task = Task(
        model=_MODEL.validate_json(config["model"]),
        training=Training.model_validate_json(config["training"]),
        features=config["features"],
        columns={c["name"]: RawColumn(**c) for c in json.loads(config["columns"])},
        id_columns=(config["user"], config["item"]),
        weight=config.get("weight", ""),
    )
    train(
        task,
        tft.TFTransformOutput(fn_args.transform_output),
        fn_args.train_files,
        fn_args.eval_files,
        fn_args.serving_model_dir,
        fn_args.model_run_dir,
        report=progress.info,
    )
