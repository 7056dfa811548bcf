"""What a training has to know, as one file that worker processes read."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import tensorflow_transform as tft
from pydantic import TypeAdapter

from configs.features import RawColumn
from configs.model import Model, Training
from models.base import Prepared, Recommender
from models.registry import build_model
from models.training.examples import EVAL_BATCH, examples
from transforms.preprocessing import read_features
from transforms.transformed import TransformedFeature, transformed_features

_MODEL: TypeAdapter[Model] = TypeAdapter(Model)


@dataclass(frozen=True)
class Task:
    """All that training one model needs to know, from the config."""

    model: Model
    training: Training
    features: str  # the feature table as JSON
    columns: dict[str, RawColumn]
    id_columns: tuple[str, str]
    weight: str = ""  # the column that says how much a positive counts, where there is one

    @property
    def weighted(self) -> bool:
        """Whether the model makes use of it."""
        return bool(self.weight) and self.model.uses_weight


@dataclass(frozen=True)
class Job:
    """A task with its inputs and outputs: what a worker process reads."""

    task: Task
    transform_graph: str
    train_files: list[str]
    eval_files: list[str]
    model_folder: str
    log_folder: str
    keep_scores: str = ""  # file for labels and logits of the eval examples

    def to_json(self) -> str:
        """Return it as JSON."""
        task = asdict(self.task) | {
            "model": self.task.model.model_dump(mode="json"),
            "training": self.task.training.model_dump(mode="json", exclude_unset=True),
        }
        return json.dumps({**self.__dict__, "task": task}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Read it again."""
        fields = json.loads(text)
        task = fields.pop("task")
        return cls(
            Task(
                _MODEL.validate_python(task["model"]),
                Training.model_validate(task["training"]),
                task["features"],
                {name: RawColumn(**column) for name, column in task["columns"].items()},
                tuple(task["id_columns"]),
                task.get("weight", ""),
            ),
            **fields,
        )

    @property
    def transform_output(self) -> tft.TFTransformOutput:
        """The transform graph."""
        return tft.TFTransformOutput(self.transform_graph)

    @property
    def features(self) -> list[TransformedFeature]:
        """What the model receives."""
        sizes = self.transform_output.vocabulary_size_by_name
        return transformed_features(read_features(self.task.features), sizes, self.task.id_columns)

    def fresh_model(self) -> Recommender:
        """Return the model, untrained, with what it needs to know of the training examples."""
        model = build_model(self.task.model, self.features)
        if isinstance(model, Prepared):
            model.prepare(examples(self.train_files, self.features, EVAL_BATCH))
        return model
