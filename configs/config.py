"""The config of one recommender: read, checked as a whole, and digested."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from pydantic import Field, PrivateAttr, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from configs.base import ColumnName, ConfigError, Section, resolve
from configs.data import Data
from configs.features import DERIVED_COLUMNS, Bucketized, Crossed, Feature, Hashed, RawColumn, Time, Vocabulary
from configs.features import raw_columns as _raw_columns
from configs.gates import BLESSED, Evaluation, Validation
from configs.model import FM, LR, DeepFM, ItemMean, Model, Training

BASELINES: Mapping[str, Model] = {
    "item_mean": ItemMean(type="item_mean"),
    "lr": LR(type="lr", l2=1e-5),
    "fm": FM(type="fm", l2=1e-5),
}


class Serving(Section):
    """Where pushed versions go."""

    model: str | None = Field(
        default=None, pattern=r"^[A-Za-z0-9_.-]+$", description="Model name; default: the config's."
    )
    folder: str = Field(default="../served", description="Folder of models; a version is FOLDER/MODEL/VERSION.")
    warmup_requests: int = Field(default=8, ge=0, le=1000, description="Recorded requests replayed at load.")


class Beam(Section):
    """How Beam pipelines run; the same pipeline on one machine and on a cluster."""

    runner: str = Field(
        default="FnApiRunner",
        description="Beam runner: the in-memory one by default, or `FlinkRunner`, `SparkRunner`, `DataflowRunner`.",
    )
    args: list[str] = Field(default=[], description="Further Beam pipeline options, as flags.")


class Runs(Section):
    """Where artifacts, metadata and logs of runs go."""

    folder: str | None = Field(default=None, description="Default: ../runs/NAME.")


class Config(Section):
    """One recommender: its data, features, model, gates and serving folder. One YAML file holds it."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]*$", max_length=60, description="Name of the recommender.")
    data: Data
    features: dict[ColumnName, Feature] = Field(min_length=1, description="The feature table: name to declaration.")
    model: Model = Field(default=DeepFM(type="deepfm"), description="The model to train, judge and push.")
    baselines: dict[str, Model] = Field(
        default=dict(BASELINES), description="Models trained beside it to compare with; `{}` for none."
    )
    training: Training = Training()
    validation: Validation = Validation()
    evaluation: Evaluation = Evaluation()
    serving: Serving = Serving()
    beam: Beam = Beam()
    runs: Runs = Runs()

    _path: Path = PrivateAttr(default=Path("config.yaml"))

    @model_validator(mode="after")
    def _parts_agree(self) -> Config:
        columns = _raw_columns(self.features, self.data.time)
        for name, feature in self.features.items():
            if isinstance(feature, Crossed):
                for part in feature.cross:
                    _check_crossable(name, part, self.features)
        for reserved in DERIVED_COLUMNS:
            if reserved in columns:
                raise ValueError(f"features: column {reserved!r} is one that ingest adds itself; rename yours")
        if self.data.label.column in columns:
            raise ValueError(
                f"features: the label column {self.data.label.column!r} cannot be a feature: it is the answer"
            )
        for index, slice_ in enumerate(self.evaluation.slices):
            for column in slice_:
                if column not in self.slice_columns:
                    choices = ", ".join(self.slice_columns)
                    raise ValueError(f"evaluation.slices.{index}: {column!r} is no slice; choose from {choices}")
        for index, gate in enumerate(self.evaluation.gates):
            if gate.against is not None and gate.against not in (*self.baselines, BLESSED):
                choices = ", ".join([*self.baselines, BLESSED])
                raise ValueError(f"evaluation.gates.{index}: no baseline {gate.against!r}; choose from {choices}")
            if gate.each is not None and gate.each not in self.evaluation.slices:
                raise ValueError(f"evaluation.gates.{index}: each {gate.each} is not one of evaluation.slices")
        for name in self.baselines:
            if name in (BLESSED, "candidate"):
                raise ValueError(f"baselines: the name {name!r} is taken")
        return self

    @property
    def path(self) -> Path:
        """The file this config was read from."""
        return self._path

    @property
    def raw_columns(self) -> dict[str, RawColumn]:
        """The columns that the features read, by name: the inputs of the served model."""
        return _raw_columns(self.features, self.data.time)

    @property
    def slice_columns(self) -> list[str]:
        """Columns that slices may name: text columns of the features and what ingest derives."""
        return [c.name for c in self.raw_columns.values() if c.type == "string"] + list(DERIVED_COLUMNS)

    @property
    def source(self) -> str:
        """`data.source`, absolute."""
        return self._absolute(self.data.source)

    @property
    def schema_path(self) -> str:
        """The curated schema's file."""
        return self._absolute(self.validation.schema_file or f"{self._path.stem}.schema.pbtxt")

    @property
    def runs_folder(self) -> str:
        """The folder of artifacts, metadata and logs."""
        return self._absolute(self.runs.folder or f"../runs/{self.name}")

    @property
    def model_name(self) -> str:
        """The name clients ask for."""
        return self.serving.model or self.name

    @property
    def model_folder(self) -> str:
        """The folder that holds the served model's versions."""
        return f"{self._absolute(self.serving.folder)}/{self.model_name}"

    def _absolute(self, path: str) -> str:
        return resolve(self._path.absolute().parent, path)


def load_config(path: str | Path, overrides: Iterable[str] = ()) -> Config:
    """Read and check the config in `path`, with `a.b=value` overrides applied (values are YAML).

    Raises ConfigError naming file, key path and what was expected.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file. `recsys init --data FILE` makes one.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    tree = _parse_yaml(text, str(path))
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected keys and values, found {type(tree).__name__ if tree else 'nothing'}")
    for override in overrides:
        _apply_override(tree, override)
    return config_from_tree(tree, path)


def config_from_tree(tree: Mapping[str, Any], path: str | Path) -> Config:
    """Check plain values as the config that lies, or will lie, in `path`. Raises ConfigError."""
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(detail, str(path)) for detail in error.errors())) from None
    config._path = Path(path)
    return config


def digest(*parts: Any) -> str:
    """Return a short digest of config sections or JSON values: equal when everything in them is equal."""
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()[:16]


def canonical_json(value: Any) -> str:
    """Return the one JSON text of config sections, containers of them, and JSON values."""
    return json.dumps(value, sort_keys=True, default=lambda section: section.model_dump(mode="json", by_alias=True))


def _parse_yaml(text: str, where: str) -> Any:
    try:
        return YAML(typ="safe", pure=True).load(StringIO(text))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{where}:{mark.line + 1}" if mark else where
        raise ConfigError(f"{place}: not valid YAML: {str(error.problem or error).splitlines()[0]}") from None


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    keys = key.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"--set {override}: expected KEY.PATH=VALUE, as in training.epochs=3")
    node: Any = tree
    for depth, part in enumerate(keys[:-1]):
        node = node[_index(node, part, override)] if isinstance(node, list) else node.setdefault(part, {})
        if not isinstance(node, dict | list):
            raise ConfigError(f"--set {override}: {'.'.join(keys[: depth + 1])} is a single value, it has no keys")
    value = _parse_yaml(text, f"--set {override}")
    if isinstance(node, list):
        node[_index(node, keys[-1], override)] = value
    else:
        node[keys[-1]] = value


def _index(node: list[Any], part: str, override: str) -> int:
    if not part.isdigit() or int(part) >= len(node):
        raise ConfigError(f"--set {override}: {part!r} is not an index of a list of {len(node)}")
    return int(part)


def _explain(detail: Any, path: str) -> str:
    # pydantic puts the chosen union member ("vocabulary") into the location: it is not a key of the file.
    kinds = {"vocabulary", "hashed", "numeric", "bucketized", "time", "crossed", "deepfm", "fm", "lr", "item_mean"}
    location: list[str] = []
    previous = None
    for part in detail["loc"]:
        if not (part in kinds and previous not in ("features", "baselines", "data") and location):
            location.append(str(part))
        previous = part
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        message = f"unknown key {location[-1]!r}"
    elif detail["type"] == "missing":
        message = f"required key {location[-1]!r} is missing"
    elif detail["type"] not in ("value_error", "union_tag_not_found") and not isinstance(detail["input"], dict):
        message += f", got {detail['input']!r}"
    return f"{path}: {'.'.join(location) + ': ' if location else ''}{message}"


def _check_crossable(name: str, part: str, features: Mapping[str, Feature]) -> None:
    other = features.get(part)
    if other is None:
        raise ValueError(f"features.{name}.cross: no feature {part!r}")
    single = not isinstance(other, Vocabulary | Hashed) or other.separator is None
    if not isinstance(other, Vocabulary | Hashed | Bucketized | Time) or not single:
        raise ValueError(f"features.{name}.cross: {part!r} must be single-valued and neither crossed nor numeric")
