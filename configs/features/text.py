"""What the kinds of text have in common: values, the table they are looked up in, and cold ids."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from configs.base import ColumnName
from configs.data import Data
from configs.features.base import ColumnKind, Owner, RawColumn, Table

Cold = Literal["learnt", "zero", "mean", "content"]


class Text(ColumnKind):
    """Text, looked up as ids of an embedding table."""

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
    def _composable(self) -> Text:
        if self.quotient_remainder is not None and self.cold == "mean":
            raise ValueError("cold: mean needs rows of single ids; quotient_remainder has none")
        if self.separator is not None and (self.cold != "learnt" or self.quotient_remainder is not None):
            raise ValueError("cold and quotient_remainder are for single values, not with separator")
        return self

    def columns(self, name: str, time: str | None) -> list[RawColumn]:
        """Return its column."""
        return [RawColumn(self.column or name, "string", self.of, self.separator, "")]

    def identifies(self, owner: Owner) -> bool:
        """Whether it is single-valued and of that owner."""
        return self.separator is None and self.of == owner

    @property
    def crossable(self) -> bool:
        """Whether it is single-valued."""
        return self.separator is None

    @property
    def content(self) -> bool:
        """Not where it is an id that others stand in for."""
        return self.cold != "content"

    @property
    def rows_a_value(self) -> int:
        """How many rows of its table a value looks up."""
        return 1

    def table_of(self, table: Table) -> Text:
        """Return the declaration whose table it looks up: another's or its own."""
        if self.share is None:
            return self
        other = table[self.share]
        assert isinstance(other, Text)
        return other

    def check(self, name: str, table: Table, data: Data) -> None:
        """Refuse what cannot be shared, and cold ids that nothing stands in for."""
        super().check(name, table, data)
        if self.share is not None:
            self._check_shared(name, self.share, table)
        if self.cold == "content" and not any(
            other is not self and other.owner == self.of and other.content for other in table.values()
        ):
            raise ValueError(f"features.{name}.cold: content needs another feature of {self.of}")

    def _check_shared(self, name: str, share: str, table: Table) -> None:
        other = table.get(share)
        if not isinstance(other, Text) or other.kind != self.kind or share == name:
            raise ValueError(f"features.{name}.share: {share!r} is no other {self.kind} feature")
        if other.share is not None:
            raise ValueError(f"features.{name}.share: {share!r} shares a table itself; name {other.share!r}")
        decided = ("dim", "quotient_remainder", "top", "min_count", "oov", "hashes")
        given = [key for key in decided if key in self.model_fields_set]
        if given:
            raise ValueError(f"features.{name}.{given[0]}: {share!r}, whose table it shares, decides that")
        if other.rows_a_value > 1 and self.separator is not None:
            raise ValueError(f"features.{name}.separator: not with {share!r}, which has hashes: 2")
        if other.quotient_remainder is not None and self.separator is not None:
            raise ValueError(f"features.{name}.separator: not with {share!r}, which has quotient_remainder")
        if self.cold == "mean":
            raise ValueError(f"features.{name}.cold: mean belongs to {share!r}, whose table it is")
