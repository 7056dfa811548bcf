"""What data and models must be like to go on: limits on statistics, slices and gates on metrics."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field, field_validator, model_validator

from configs.base import ColumnName, Section, Share
from configs.metrics import METRICS

BINARY_METRICS = ("auc", "gauc", "logloss", "calibration", "prauc", "example_count", *METRICS)
LIST_METRICS = ("coverage", "novelty", "popular_share")
STAGE_METRICS = ("overlap", "ndcg_loss", "index_recall")
RANKING_METRICS = ("recall", "ndcg", "hit_rate", "mrr", *LIST_METRICS, *STAGE_METRICS)
_LOWER_IS_BETTER = {"logloss", "ndcg_loss"} | {name for name, m in METRICS.items() if m.better == "lower"}
_UNDIRECTED = {"calibration", "example_count", "novelty", "popular_share"} | {
    name for name, m in METRICS.items() if m.better is None
}
_AT_K = re.compile(r"([a-z_]+)@([1-9][0-9]{0,3})")


def at_k(metric: str) -> tuple[str, int] | None:
    """Return the name and the k of a ranking metric such as `ndcg@10`; None for other metrics."""
    found = _AT_K.fullmatch(metric)
    return (found[1], int(found[2])) if found and found[1] in RANKING_METRICS else None


def lower_is_better(metric: str) -> bool:
    """Say whether less of a metric is better."""
    return metric.partition("@")[0] in _LOWER_IS_BETTER


def undirected(metric: str) -> bool:
    """Say whether more of a metric is neither better nor worse."""
    return metric.partition("@")[0] in _UNDIRECTED


def _known_metric(metric: str) -> str:
    if metric not in BINARY_METRICS and at_k(metric) is None:
        binary, of_lists = (", ".join(map(repr, names)) for names in (BINARY_METRICS, RANKING_METRICS))
        raise ValueError(f"expected {binary}, or with a k as in 'ndcg@10' one of {of_lists}, got {metric!r}")
    return metric


MetricName = Annotated[str, AfterValidator(_known_metric)]
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
        description="`auc`; `gauc`: AUC within each user, weighted; "
        "`logloss`; `calibration`: predicted over actual positives, 1 is right; `prauc`: area under precision and "
        "recall; `example_count`; "
        + "; ".join(f"`{n}`: {m.description}" for n, m in METRICS.items())
        + ". Of each user's list of the best k of all items: `recall@10`, `ndcg@10`, "
        "`hit_rate@10`, `mrr@10`, `coverage@10`, `novelty@10`, `popular_share@10`. Of retrieval and ranker together: "
        "`ndcg_loss@10` and `overlap@10` against the ranker over all items, `index_recall@10` against exact search."
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
        if self.against is not None and undirected(self.metric):
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


class Ranking(Section):
    """How the best k of all items are judged: for each user alone, what the user has met before left out."""

    k: list[Annotated[int, Field(ge=1, le=1000)]] = Field(
        default=[10, 100],
        min_length=1,
        description="Lengths of the lists. Coverage, novelty, the share of popular items and what compares two stages "
        "are given for the shortest.",
    )
    users: int = Field(
        default=100_000, ge=1, description="Most users judged, a random sample, the same for every model and run."
    )
    whole_users: int = Field(
        default=1_000,
        ge=1,
        description="With two stages or an inverted index: users for whom every item is scored too, to see what is "
        "lost.",
    )
    mask_known: bool = Field(
        default=True,
        description="Leave out of a user's list what the user has met in earlier splits. False where repeats are "
        "what is to be recommended: a held-out item that was met before is a miss if it is left out.",
    )

    @field_validator("k")
    @classmethod
    def _each_once(cls, value: list[int]) -> list[int]:
        if len(set(value)) < len(value):
            raise ValueError(f"names a length twice: {value}")
        return sorted(value)


# What a config without gates is judged by.
DEFAULT_GATES = (
    Gate(metric="auc", not_below=EACH_BASELINE, by=0.002, significant=True),
    Gate(metric="logloss", not_below=EACH_BASELINE, by=0.002, significant=True),
    Gate(metric="calibration", at_least=0.9, significant=True),
    Gate(metric="calibration", at_most=1.1, significant=True),
    Gate(metric="auc", not_below=BLESSED, by=0.005, significant=True),
    Gate(metric="logloss", not_below=BLESSED, by=0.005, significant=True),
)


def default_ranking_gates(k: int) -> list[Gate]:
    """Return what a config without gates is judged by where its logs hold positives alone."""
    return [
        Gate(metric=f"ndcg@{k}", not_below=EACH_BASELINE, by=0.002, significant=True),
        Gate(metric=f"ndcg@{k}", not_below=BLESSED, by=0.002, significant=True),
    ]


class Evaluation(Section):
    """What the model is judged on, always on the test split."""

    slices: list[Annotated[list[ColumnName], Field(min_length=1)]] = Field(
        default=[], description="Columns, alone or crossed, whose every value gets its own metrics."
    )
    gates: list[Gate] = Field(
        default=list(DEFAULT_GATES),
        description="All must hold for the model to be blessed and pushed; `[]` blesses every model. The default "
        "where the logs hold positives alone: NDCG@k not below that of the baselines and of `blessed`.",
    )
    ranking: Ranking | None = Field(
        default=None,
        description="Judge the best k of all items too. Default: where the logs hold positives alone, where there is "
        "`retrieval`, and where a gate asks for it.",
    )

    @field_validator("slices")
    @classmethod
    def _each_once(cls, value: list[list[str]]) -> list[list[str]]:
        for index, slice_ in enumerate(value):
            if len(set(slice_)) < len(slice_) or any(set(slice_) == set(other) for other in value[:index]):
                raise ValueError(f"{slice_} names a column twice, or is there twice")
        return value
