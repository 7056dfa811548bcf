"""The config of one recommender: read, checked as a whole, and digested."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, PrivateAttr, ValidationError, field_validator, model_validator

from configs.base import ColumnName, Section, check_mounted, digest, resolve
from configs.data import Data
from configs.features import DERIVED_COLUMNS, LABEL, WEIGHT, Feature, RawColumn, check_features
from configs.features import raw_columns as _raw_columns
from configs.gates import BLESSED, EACH_BASELINE, MOST_BASELINES, Evaluation, Ranking, Validation, default_ranking_gates
from configs.lists import check_candidates, check_gate, ranking_of
from configs.model import FM, LR, Contender, DeepFM, ItemMean, Model, Training
from configs.orchestration import Metadata, Orchestration
from configs.retrieval import Retrieval
from configs.serving import RELEASE_FOLDER, Serving
from configs.tuning import Tuning

BASELINES: Mapping[str, Model] = {
    "item_mean": ItemMean(type="item_mean"),
    "lr": LR(type="lr"),
    "fm": FM(type="fm"),
}


class Beam(Section):
    """How Beam pipelines run; the same pipeline on one machine and on a cluster."""

    runner: str = Field(
        default="FnApiRunner",
        description="Beam runner: the in-memory one by default, or `FlinkRunner`, `SparkRunner`, `DataflowRunner`.",
    )
    args: list[str] = Field(default=[], description="Further Beam pipeline options, as flags.")


class Runs(Section):
    """Where artifacts, metadata and logs of runs go."""

    folder: str | None = Field(
        default=None, description="Default: ../runs/NAME. A local or mounted folder, shared by all that run nodes."
    )

    @field_validator("folder")
    @classmethod
    def _mounted(cls, value: str | None) -> str | None:
        return None if value is None else check_mounted(value)


class Config(Section):
    """One recommender: its data, features, model, gates and serving folder. One YAML file holds it."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]*$", max_length=60, description="Name of the recommender.")
    data: Data
    features: dict[ColumnName, Feature] = Field(min_length=1, description="The feature table: name to declaration.")
    model: Model = Field(default=DeepFM(type="deepfm"), description="The model to train, judge and push.")
    baselines: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], Model] = Field(
        default=dict(BASELINES),
        max_length=MOST_BASELINES,
        description="Models trained beside it to compare with; `{}` for none.",
    )
    models: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], Contender] = Field(
        default={}, description="Further models for `recsys compare` to train; a run does not."
    )
    training: Training = Training()
    retrieval: Retrieval = Retrieval()
    tuning: Tuning = Tuning()
    validation: Validation = Validation()
    evaluation: Evaluation = Evaluation()
    serving: Serving = Serving()
    beam: Beam = Beam()
    runs: Runs = Runs()
    metadata: Metadata = Metadata()
    orchestration: Orchestration = Orchestration()

    _path: Path = PrivateAttr(default=Path("config.yaml"))

    @model_validator(mode="after")
    def _parts_agree(self) -> Config:
        data = self.data
        check_features(self.features, data)
        self._check_columns()
        for place, model in (("model", self.model), *((f"baselines.{n}", m) for n, m in self.baselines.items())):
            self._check_model(place, model)
        of_their_own: dict[str, Contender | Retrieval] = {f"models.{name}": c for name, c in self.models.items()}
        for place, own in (of_their_own | {"retrieval": self.retrieval}).items():
            if own.model is not None:
                self._check_model(f"{place}.model", own.model)
            try:
                self.training_of(own)
            except ValidationError as error:
                (first, *_) = error.errors()
                at = ".".join(map(str, first["loc"]))
                raise ValueError(f"{place}.training.{at}: {first['msg']}") from None
        for column in self.validation.limits:
            if column not in self.compared_columns:
                choices = ", ".join(self.compared_columns)
                raise ValueError(f"validation.limits: {column!r} is not compared; choose from {choices}")
        for index, slice_ in enumerate(self.evaluation.slices):
            for column in slice_:
                if column not in self.slice_columns:
                    choices = ", ".join(self.slice_columns)
                    raise ValueError(f"evaluation.slices.{index}: {column!r} is no slice; choose from {choices}")
        check_candidates(self.ranking, self.retrieval)
        self._check_gates()
        if self.metadata.type == "sqlite":
            for key in ("runs_at_once", "nodes_at_once"):
                if getattr(self.orchestration, key) > 1:
                    raise ValueError(
                        f"orchestration.{key}: SQLite metadata takes one node at a time; for more, set metadata.type"
                    )
        if self.model_name == RELEASE_FOLDER:
            raise ValueError(f"serving.model: {RELEASE_FOLDER!r} is the folder of the release state; choose another")
        for name in self.baselines:
            if name in (BLESSED, EACH_BASELINE, "blessed_best", "candidate"):
                raise ValueError(f"baselines: the name {name!r} is taken")
        return self

    def _check_columns(self) -> None:
        """Raise ValueError where a column that means something else is a feature, or one that ingest adds."""
        data = self.data
        try:
            columns = _raw_columns(self.features, data.time, data.per_second)
        except ValueError as error:
            raise ValueError(f"features: {error}") from None
        label = data.label.column if data.label else None
        for name, column in (*data.roles.items(), ("display", data.display)):
            if column in DERIVED_COLUMNS or (column == LABEL and column != label):
                raise ValueError(f"data.{name}: {column!r} is a column that ingest adds itself; rename yours")
        for reserved in (*DERIVED_COLUMNS, LABEL, WEIGHT):
            if reserved != label and (reserved in columns or reserved in self.features):
                raise ValueError(f"features: column {reserved!r} is one that ingest adds itself; rename yours")
        if label in columns:
            raise ValueError(f"features: the label column {label!r} cannot be a feature: it is the answer")
        if data.weight in columns:
            raise ValueError(
                f"features: {data.weight!r} is data.weight, which says how much a row counts and is known only after "
                "it: it cannot be a feature"
            )

    def _check_gates(self) -> None:
        """Raise ValueError where a gate names what is not there."""
        for index, gate in enumerate(self.evaluation.gates):
            if gate.against is not None and gate.against not in (*self.baselines, BLESSED, EACH_BASELINE):
                choices = ", ".join([*self.baselines, EACH_BASELINE, BLESSED])
                raise ValueError(f"evaluation.gates.{index}: no baseline {gate.against!r}; choose from {choices}")
            if gate.each is not None and set(gate.each) not in map(set, self.evaluation.slices):
                raise ValueError(f"evaluation.gates.{index}: each {gate.each} is not one of evaluation.slices")
            check_gate(f"evaluation.gates.{index}: {gate.metric}", gate.metric, self.ranking, self.retrieval)

    def _check_model(self, place: str, model: Model) -> None:
        unknown = [name for name in model.without if name not in self.features]
        if unknown:
            raise ValueError(f"{place}.without: no feature {unknown[0]!r}; choose from {', '.join(self.features)}")

    def training_of(self, contender: Contender | Retrieval) -> Training:
        """Return the training of one of `models`, or of `retrieval`: the config's, but for what is its own."""
        return Training.model_validate(
            {**self.training.model_dump(by_alias=True, exclude_unset=True), **contender.training}
        )

    @property
    def ranking(self) -> Ranking | None:
        """How lists of the best items are judged, if they are."""
        return ranking_of(self.evaluation, self.retrieval, self.data.positives_only)

    @property
    def path(self) -> Path:
        """The file this config was read from."""
        return self._path

    @property
    def raw_columns(self) -> dict[str, RawColumn]:
        """The columns that the features read, by name: the inputs of the served model."""
        return _raw_columns(self.features, self.data.time, self.data.per_second)

    @property
    def slice_columns(self) -> list[str]:
        """Columns that slices may name: text columns of the features and what ingest derives."""
        text = [c.name for c in self.raw_columns.values() if c.type == "string" and c.length is None]
        return text + list(DERIVED_COLUMNS)

    @property
    def judged_by(self) -> Evaluation:
        """`evaluation`; where all labels are positive, the default gates are on lists: others have nothing to go by."""
        if self.data.positives_only and "gates" not in self.evaluation.model_fields_set:
            gates = default_ranking_gates(min((self.ranking or Ranking()).k))
            return self.evaluation.model_copy(update={"gates": gates})
        return self.evaluation

    @property
    def split_digest(self) -> str:
        """Equal where two configs divide the same rows alike."""
        return digest(self.data.split, self.data.user, self.data.time)

    @property
    def required_columns(self) -> list[str]:
        """Columns of the examples that no row may lack."""
        return [column for role, column in self.data.roles.items() if role != "label.column"] + [LABEL]

    @property
    def compared_columns(self) -> list[str]:
        """Columns of the examples whose distributions the data gate compares.

        Not times, which always move on, not sequences, which repeat what another column holds, and no label that is
        always 1.
        """
        compared = [c.name for c in self.raw_columns.values() if c.type != "int64" and c.length is None]
        if self.data.weight is not None:
            compared.append(self.data.weight)
        return compared if self.data.positives_only else [*compared, LABEL]

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

    @property
    def release_file(self) -> str:
        """The ModelServerConfig that servers read and releases change."""
        return f"{self._absolute(self.serving.release or f'{self.serving.folder}/{RELEASE_FOLDER}')}/models.config"

    def _absolute(self, path: str) -> str:
        return resolve(self._path.absolute().parent, path)
