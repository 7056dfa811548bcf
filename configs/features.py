"""The feature table: each feature declared once, and what follows from that alone.

The parsing spec, the TFT graph, the embedding tables, the serving inputs and the slices are all derived from these
declarations; nothing else in the project lists features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from configs.base import ColumnName, Section

Owner = Literal["user", "item", "context"]
RawType = Literal["string", "float", "int64"]

MISSING_TIME = -(2**63)  # int64 input meaning "not given": the graph puts the time of the request in its place


class _Column(Section):
    of: Owner = Field(description="Who the feature belongs to: `user`, `item` or `context`.")
    column: ColumnName | None = Field(default=None, alias="from", description="Column of the logs; default: its name.")


class _Embedded(Section):
    dim: int | None = Field(default=None, ge=1, description="Embedding dimension; default: the model's.")


Cold = Literal["learnt", "zero", "mean", "content"]


class _Text(_Column, _Embedded):
    separator: str | None = Field(default=None, min_length=1, description="Splits a cell into several values.")
    pool: Literal["mean", "sum"] = Field(default="mean", description="How several values' embeddings become one.")
    default: str | None = Field(default=None, description="Value where missing; default: an id of its own.")
    share: ColumnName | None = Field(
        default=None,
        description="Feature whose ids and embedding table this one shares and whose keys decide on them.",
    )
    quotient_remainder: int | None = Field(
        default=None,
        ge=2,
        description="Compose an id's vector of two rows, of id // N and of id % N, multiplied (Shi et al. 2020): a "
        "table of size / N + N rows.",
    )
    cold: Cold = Field(
        default="learnt",
        description="Vector of ids without a row of their own: `learnt` (by the model's `id_dropout`), `zero`, `mean` "
        "of the rows of known ids, or `content`: made of its owner's other features, learnt by `id_dropout`.",
    )

    @model_validator(mode="after")
    def _composable(self) -> _Text:
        if self.quotient_remainder is not None and self.cold == "mean":
            raise ValueError("cold: mean needs rows of single ids; quotient_remainder has none")
        if self.separator is not None and (self.cold != "learnt" or self.quotient_remainder is not None):
            raise ValueError("cold and quotient_remainder are for single values, not with separator")
        return self


class Vocabulary(_Text):
    """Text looked up in a vocabulary made from the training split."""

    kind: Literal["vocabulary"]
    top: int | None = Field(default=None, ge=1, description="Keep only the most frequent values.")
    min_count: int = Field(default=1, ge=1, description="Keep only values seen this often in the training split.")
    oov: int = Field(default=1, ge=1, description="Hash buckets shared by values outside the vocabulary.")


class Hashed(_Text):
    """Text hashed into a fixed number of buckets: no vocabulary, any number of values."""

    kind: Literal["hashed"]
    buckets: int = Field(ge=2, description="Number of buckets.")
    hashes: Literal[1, 2] = Field(
        default=1, description="With 2, a value is two rows, pooled: what collides in one hash rarely does in both."
    )
    min_count: int = Field(
        default=1, ge=1, description="Buckets seen less often in the training split have no row, as a missing value."
    )

    @model_validator(mode="after")
    def _one_value_two_rows(self) -> Hashed:
        if self.hashes == 2:
            for key, given in (
                ("separator", self.separator is not None),
                ("quotient_remainder", self.quotient_remainder is not None),
                ("min_count", self.min_count > 1),
                ("cold", self.cold != "learnt"),
            ):
                if given:
                    raise ValueError(f"hashes: 2 does not go with {key}")
        return self


class Numeric(_Column, _Embedded):
    """A number, scaled."""

    kind: Literal["numeric"]
    scale: Literal["z_score", "log", "none"] = Field(
        default="z_score",
        description="`z_score`: mean 0, variance 1, cut at 10 deviations. `log`: sign(x) log(1 + |x|), then z_score.",
    )
    default: float | None = Field(default=None, description="Value where missing; default: the mean.")


class Bucketized(_Column, _Embedded):
    """A number put into quantile buckets of the training split."""

    kind: Literal["bucketized"]
    buckets: int = Field(ge=2, le=10_000, description="Number of quantile buckets.")
    default: float | None = Field(default=None, description="Value where missing; default: a bucket of its own.")


class Time(_Embedded):
    """A part of a time: the hour (UTC) or weekday of the event, or the age of something at the event.

    Where a request does not give the event's time, the time of the request stands in.
    """

    kind: Literal["time"]
    part: Literal["hour", "weekday", "age"] = Field(
        description="`hour` 0-23 and `weekday` 0-6 from Monday, both UTC; `age`: days from the column in `since` to "
        "the event, on a log scale in 32 buckets."
    )
    of: Owner = Field(default="context", description="Who the `since` column belongs to; the event is `context`.")
    since: ColumnName | None = Field(default=None, description="With `age`: column of the start, in `data.time_unit`.")

    @model_validator(mode="after")
    def _since(self) -> Time:
        if (self.part == "age") != (self.since is not None):
            raise ValueError("since goes with part: age, and only with it")
        return self


class Crossed(_Embedded):
    """The pair of two other features' values, hashed."""

    kind: Literal["crossed"]
    cross: tuple[str, str] = Field(description="Names of two single-valued features that are not crossed or numeric.")
    buckets: int = Field(ge=2, description="Number of hash buckets.")

    @field_validator("cross")
    @classmethod
    def _two(cls, value: tuple[str, str]) -> tuple[str, str]:
        if value[0] == value[1]:
            raise ValueError(f"expected two different features, got {value[0]!r} twice")
        return value


class Sequence(_Embedded):
    """The user's recent events, by a text feature of their items, oldest first: made by ingest, given by a request.

    It holds only events strictly earlier than the example's own; those of the same second are left out. The ids are
    those of the feature it names.
    """

    kind: Literal["sequence"]
    feature: str = Field(
        description="Single-valued vocabulary or hashed feature whose values it holds: the item's id, its brand."
    )
    length: int = Field(default=50, ge=1, le=10_000, description="Most events kept, the newest ones.")
    events: Literal["all", "positive", "negative"] = Field(
        default="all", description="Which events count: all, or those whose label was positive or negative."
    )
    delay: int = Field(
        default=0,
        ge=0,
        description="Seconds by which an event must be older than the example: what logs take to arrive.",
    )
    pool: Literal["mean", "sum"] = Field(
        default="mean", description="How models without a part for sequences make one embedding of several."
    )


Feature = Annotated[Vocabulary | Hashed | Numeric | Bucketized | Time | Crossed | Sequence, Field(discriminator="kind")]


@dataclass(frozen=True)
class RawColumn:
    """A column of the logs as the pipeline and the served model take it.

    `separator` splits a cell into several values. `default` is what a request that leaves the column out stands for:
    "" and NaN mean missing. `length` is the most values of a list column, which ingest makes and no log has; in a
    request its cells are lists, filled up with "".
    """

    name: str
    type: RawType
    of: Owner
    separator: str | None
    default: str | float | int
    length: int | None = None


@dataclass(frozen=True)
class History:
    """What ingest puts into a list column: the `length` newest values of `column` in the user's earlier events."""

    name: str
    column: str
    length: int
    events: Literal["all", "positive", "negative"]
    delay: int


def histories(features: Mapping[str, Feature]) -> list[History]:
    """Return what ingest has to make for the sequences in the feature table."""
    found = []
    for name, feature in features.items():
        if isinstance(feature, Sequence):
            of = features[feature.feature]
            assert isinstance(of, Vocabulary | Hashed)
            found.append(History(name, of.column or feature.feature, feature.length, feature.events, feature.delay))
    return found


def raw_columns(features: Mapping[str, Feature], time: str | None) -> dict[str, RawColumn]:
    """Return the columns that the features read, in the order they are first named.

    `time` is the event time's column. Raises ValueError where two features read one column in different ways, or one
    needs the time and the logs have none.
    """
    columns: dict[str, RawColumn] = {}

    def add(feature: str, column: RawColumn) -> None:
        known = columns.setdefault(column.name, column)
        if repr(known) != repr(column):  # not ==: the default may be NaN
            raise ValueError(
                f"feature {feature!r} reads column {column.name!r} as {_describe(column)}, another feature reads it as "
                f"{_describe(known)}; make them agree"
            )

    for name, feature in features.items():
        if isinstance(feature, Vocabulary | Hashed):
            add(name, RawColumn(feature.column or name, "string", feature.of, feature.separator, ""))
        elif isinstance(feature, Numeric | Bucketized):
            add(name, RawColumn(feature.column or name, "float", feature.of, None, float("nan")))
        elif isinstance(feature, Time):
            if time is None:
                raise ValueError(f"feature {name!r} is of kind time and needs data.time, which these logs have not")
            add(name, RawColumn(time, "int64", "context", None, MISSING_TIME))
            if feature.since:
                add(name, RawColumn(feature.since, "int64", feature.of, None, MISSING_TIME))
        elif isinstance(feature, Sequence):
            if time is None:
                raise ValueError(
                    f"feature {name!r} is a sequence and needs data.time, which these logs have not: nothing "
                    "says which event came first"
                )
            add(name, RawColumn(name, "string", "user", None, "", feature.length))
    return columns


def _describe(column: RawColumn) -> str:
    several = f" split on {column.separator!r}" if column.separator is not None else ""
    if column.length is not None:
        return f"a sequence of up to {column.length}, made by ingest"
    return f"{column.type}{several} of {column.of}"


def check_shared(features: Mapping[str, Feature]) -> None:
    """Raise ValueError where a feature shares what cannot be shared."""
    for name, feature in features.items():
        if not isinstance(feature, Vocabulary | Hashed):
            continue
        if feature.share is not None:
            other = features.get(feature.share)
            if type(other) is not type(feature) or feature.share == name:
                raise ValueError(f"{name}.share: {feature.share!r} is no other {feature.kind} feature")
            assert isinstance(other, Vocabulary | Hashed)
            if other.share is not None:
                raise ValueError(f"{name}.share: {feature.share!r} shares a table itself; name {other.share!r}")
            decided = ("dim", "quotient_remainder", "top", "min_count", "oov", "hashes")
            given = [key for key in decided if key in feature.model_fields_set]
            if given:
                raise ValueError(f"{name}.{given[0]}: {feature.share!r}, whose table it shares, decides that")
            if isinstance(feature, Hashed) and feature.buckets != other.buckets:  # type: ignore[union-attr]
                raise ValueError(f"{name}.buckets: expected {other.buckets}, as {feature.share!r} has")  # type: ignore[union-attr]
            if isinstance(other, Hashed) and other.hashes == 2 and feature.separator is not None:
                raise ValueError(f"{name}.separator: not with {feature.share!r}, which has hashes: 2")
            if other.quotient_remainder is not None and feature.separator is not None:
                raise ValueError(f"{name}.separator: not with {feature.share!r}, which has quotient_remainder")
            if feature.cold == "mean":
                raise ValueError(f"{name}.cold: mean belongs to {feature.share!r}, whose table it is")
        if feature.cold == "content" and not any(
            f is not feature and _owner(f) == feature.of and not _identifies(f) for f in features.values()
        ):
            raise ValueError(f"{name}.cold: content needs another feature of {feature.of}")


def _owner(feature: Feature) -> Owner | None:
    if isinstance(feature, Sequence):
        return "user"
    return None if isinstance(feature, Crossed) else feature.of


def _identifies(feature: Feature) -> bool:
    return isinstance(feature, Vocabulary | Hashed) and feature.cold == "content"


LABEL = "label"  # the column of an example that holds the label, whatever the logs call it
WEIGHT = "__weight"  # the column of a transformed example that holds how much it counts, where `data.weight` is given

# Columns that ingest adds to every example from the training split alone; slices may name them, models never see them.
ACTIVITY_BANDS = ("0", "1-9", "10-49", "50-199", "200+")
DERIVED_COLUMNS = {
    "cold_user": "yes if the user has no row in the training split",
    "cold_item": "yes if the item has no row in the training split",
    "user_activity": "band of the user's number of training rows: " + ", ".join(ACTIVITY_BANDS),
    "item_popularity": "band of the item's number of training rows: " + ", ".join(ACTIVITY_BANDS),
}
