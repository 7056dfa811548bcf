"""The user's earlier events, as a feature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from configs.data import Data
from configs.features.base import FeatureKind, Owner, RawColumn, Table
from configs.features.text import Text


@dataclass(frozen=True)
class History:
    """What ingest puts into a list column: the `length` newest values of `column` in the user's earlier events."""

    name: str
    column: str
    length: int
    events: Literal["all", "positive", "negative"]
    delay: int


class Sequence(FeatureKind):
    """The user's recent events, by a text feature of their items, oldest first: made by ingest, given by a request.

    It holds only events strictly earlier than the example's own; those of the same second are left out. The ids are
    those of the feature it names.
    """

    EXAMPLE = "recent: {kind: sequence, feature: product, length: 50, events: positive}"

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

    @property
    def owner(self) -> Owner:
        """The user, whose events they are."""
        return "user"

    def columns(self, name: str, time: str | None) -> list[RawColumn]:
        """Return the list column that ingest makes."""
        if time is None:
            raise ValueError(
                f"feature {name!r} is a sequence and needs data.time, which these logs have not: nothing "
                "says which event came first"
            )
        return [RawColumn(name, "string", "user", None, "", self.length)]

    def history(self, name: str, table: Table) -> History:
        """Return what ingest has to make for it."""
        of = table[self.feature]
        assert isinstance(of, Text)
        return History(name, of.column or self.feature, self.length, self.events, self.delay)

    def check(self, name: str, table: Table, data: Data) -> None:
        """Refuse a feature whose values it cannot hold, and a name that the logs have."""
        other = table.get(self.feature)
        if other is None:
            raise ValueError(f"features.{name}.feature: no feature {self.feature!r}")
        if not isinstance(other, Text) or other.separator is not None or other.of == "user":
            raise ValueError(
                f"features.{name}.feature: {self.feature!r} must be a vocabulary or hashed feature of the item or the "
                "context, with no separator: a sequence holds its values in the user's earlier events"
            )
        shared = table.get(other.share or self.feature)
        if isinstance(shared, Text) and shared.rows_a_value > 1:
            raise ValueError(
                f"features.{name}.feature: {self.feature!r} has hashes: 2, a sequence takes one id an event"
            )
        if self.events == "negative" and data.positives_only:
            raise ValueError(f"features.{name}.events: negative, but these logs hold positives alone")
        if name in (*data.roles.values(), data.display):
            raise ValueError(
                f"features.{name}: a sequence is a new column, and the logs have a column {name!r}; rename it"
            )
