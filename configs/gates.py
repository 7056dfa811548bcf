"""What data and models must be like to go on: limits on statistics, slices and gates on metrics."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from configs.base import ColumnName, Section, Share

MetricName = Literal["auc", "gauc", "ndcg10", "logloss", "calibration", "prauc", "example_count"]
LOWER_IS_BETTER: frozenset[str] = frozenset({"logloss"})
UNDIRECTED: frozenset[str] = frozenset({"calibration", "example_count"})  # more is neither better nor worse
BLESSED = "blessed"
EACH_BASELINE = "baselines"  # in a gate: each of them
MOST_BASELINES = 8


class Limits(Section):
    """Largest distance allowed between two distributions of a feature, from 0 (alike) to 1 (disjoint)."""

    drift: Share | None = Field(default=None, description="Train split against the last accepted run's.")
    skew: Share | None = Field(default=None, description="Train split against the eval and test splits.")


class Validation(Section):
    """The data gate: the curated schema, and limits on drift and skew.

    Text is compared by L-infinity distance, numbers by Jensen-Shannon divergence (L-infinity is blind to them). What
    samples of few rows, or of few users or items, differ by chance is added to every limit.
    """

    schema_file: str | None = Field(
        default=None, alias="schema", description="Curated schema; default: NAME.schema.pbtxt beside this file."
    )
    drift: Share = Field(default=0.3, description="Limit for every feature not named in `limits`.")
    skew: Share = Field(default=0.3, description="Limit for every feature not named in `limits`.")
    limits: dict[ColumnName, Limits] = Field(default={}, description="Limits of single columns, `label` among them.")
    warn: list[str] = Field(
        default=["SCHEMA_NEW_COLUMN"],
        description="Kinds of anomaly (TFDV's names) that are reported without stopping the run.",
    )
    min_examples: int = Field(default=100, ge=1, description="Fewest examples each split must have.")
    min_positives: int = Field(
        default=50,
        ge=0,
        description="Where eval or test has fewer of the rarer label, the gate warns: no metric of theirs tells much.",
    )


class Gate(Section):
    """One condition on one metric. A metric that cannot be computed does not pass."""

    metric: MetricName = Field(
        description="`auc`; `gauc`: AUC within each user, weighted; `ndcg10`: NDCG of each user's ten best examples; "
        "`logloss`; `calibration`: predicted over actual positives, 1 is right; `prauc`: area under precision and "
        "recall; `example_count`."
    )
    at_least: float | None = Field(default=None, description="Smallest value allowed.")
    at_most: float | None = Field(default=None, description="Largest value allowed.")
    beats: str | None = Field(
        default=None,
        description="A baseline, `baselines` for each of them, or `blessed`: must be better than it by `by`.",
    )
    not_below: str | None = Field(
        default=None,
        description="A baseline, `baselines`, or `blessed`: must not be worse than it by over `by`. `blessed` is the "
        "model last blessed and also the best of the last five, so that small losses do not add up.",
    )
    by: float = Field(default=0.0, ge=0, description="Margin for `beats` and `not_below`, in the metric's unit.")
    each: list[ColumnName] | None = Field(
        default=None, description="Judge every value of this slice (one of `slices`) instead of all examples."
    )
    significant: bool = Field(
        default=False,
        description="Fail only where the shortfall is more than noise: where the margin's 95 % interval is below 0.",
    )
    min_examples: int = Field(default=0, ge=0, description="With `each`: slices with fewer examples are not judged.")

    @model_validator(mode="after")
    def _one_condition(self) -> Gate:
        given = [k for k in ("at_least", "at_most", "beats", "not_below") if getattr(self, k) is not None]
        if len(given) != 1:
            raise ValueError(f"expected exactly one of at_least, at_most, beats, not_below; got {given or 'none'}")
        if self.by and given[0] in ("at_least", "at_most"):
            raise ValueError(f"by goes with beats and not_below, not with {given[0]}")
        if self.against is not None and self.metric in UNDIRECTED:
            raise ValueError(
                f"more {self.metric} is neither better nor worse: use at_least and at_most, not {given[0]}"
            )
        if self.min_examples and self.each is None:
            raise ValueError("min_examples goes with each")
        return self

    @property
    def against(self) -> str | None:
        """The model compared with, if any."""
        return self.beats if self.beats is not None else self.not_below


# What a config without gates is judged by.
DEFAULT_GATES = (
    Gate(metric="auc", not_below=EACH_BASELINE, by=0.002, significant=True),
    Gate(metric="logloss", not_below=EACH_BASELINE, by=0.002, significant=True),
    Gate(metric="calibration", at_least=0.9, significant=True),
    Gate(metric="calibration", at_most=1.1, significant=True),
    Gate(metric="auc", not_below=BLESSED, by=0.005, significant=True),
    Gate(metric="logloss", not_below=BLESSED, by=0.005, significant=True),
)


class Evaluation(Section):
    """What the model is judged on, always on the test split."""

    slices: list[Annotated[list[ColumnName], Field(min_length=1)]] = Field(
        default=[], description="Columns, alone or crossed, whose every value gets its own metrics."
    )
    gates: list[Gate] = Field(
        default=list(DEFAULT_GATES),
        description="All must hold for the model to be blessed and pushed; `[]` blesses every model. The default "
        "judges nothing where the logs hold positives alone.",
    )

    @field_validator("slices")
    @classmethod
    def _each_once(cls, value: list[list[str]]) -> list[list[str]]:
        for index, slice_ in enumerate(value):
            if len(set(slice_)) < len(slice_) or any(set(slice_) == set(other) for other in value[:index]):
                raise ValueError(f"{slice_} names a column twice, or is there twice")
        return value
