"""What every kind of feature is, and the raw columns that it reads."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import Field

from configs.base import ColumnName, Section
from configs.data import Data

Owner = Literal["user", "item", "context"]
RawType = Literal["string", "float", "int64"]
Table = Mapping[str, "FeatureKind"]

MISSING_TIME = -(2**63)  # int64 input meaning "not given": the graph puts the time of the request in its place


@dataclass(frozen=True)
class RawColumn:
    """A column of the logs as the pipeline and the served model take it.

    `separator` splits a cell into several values. `default` is what a request that leaves the column out stands for:
    "" and NaN mean missing. `length` is the most values of a list column, which ingest makes and no log has; in a
    request its cells are lists, filled up with "".

    Times are int64: seconds in examples, and in a request the unit of the logs, `per_second` of which are a second.
    """

    name: str
    type: RawType
    of: Owner
    separator: str | None
    default: str | float | int
    length: int | None = None
    per_second: int = 1

    def __str__(self) -> str:
        """Return how it is read."""
        if self.length is not None:
            return f"a sequence of up to {self.length}, made by ingest"
        several = f" split on {self.separator!r}" if self.separator is not None else ""
        return f"{self.type}{several} of {self.of}"


class FeatureKind(Section):
    """One declaration in the feature table. A kind is a subclass in a module of its own, listed in KINDS.

    Its counterpart in TensorFlow is the module of the same name in `transforms/kinds`.
    """

    EXAMPLE: ClassVar[str]  # a line of YAML for the reference

    kind: str
    dim: int | None = Field(default=None, ge=1, description="Embedding dimension; default: the model's.")

    @property
    @abstractmethod
    def owner(self) -> Owner | None:
        """Whose feature it is; None where others decide."""

    @abstractmethod
    def columns(self, name: str, time: str | None) -> list[RawColumn]:
        """Return the columns that the feature `name` reads. `time` is the event time's, None where the logs have none.

        Raises ValueError where it needs one that the logs cannot have.
        """

    def check(self, name: str, table: Table, data: Data) -> None:
        """Raise ValueError where the declaration does not go with the table or the logs; the message names the key."""

    @property
    def crossable(self) -> bool:
        """Whether a cross may have it as a part."""
        return False

    @property
    def content(self) -> bool:
        """Whether it describes its owner, so that a cold id can be known by it."""
        return True


class ColumnKind(FeatureKind):
    """A feature made of one column of the logs."""

    of: Owner = Field(description="Who the feature belongs to: `user`, `item` or `context`.")
    column: ColumnName | None = Field(default=None, alias="from", description="Column of the logs; default: its name.")

    @property
    def owner(self) -> Owner:
        """The declared one."""
        return self.of

    def identifies(self, owner: Owner) -> bool:
        """Whether it can be the id of the user or the item."""
        return False

    def check(self, name: str, table: Table, data: Data) -> None:
        """Refuse the user's, item's and event's columns as something that they are not."""
        column = self.column or name
        if column == data.time:
            raise ValueError(f"features.{name}: {column!r} is the time of the event; use kind: time")
        owners: tuple[tuple[Owner, str | None], ...] = (("user", data.user), ("item", data.item))
        for owner, id_column in owners:
            if column == id_column and not self.identifies(owner):
                raise ValueError(
                    f"features.{name}: {column!r} is the {owner}'s id: expected kind vocabulary or hashed, "
                    f"of: {owner}, no separator"
                )
