"""Text without a vocabulary."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from configs.features.base import Table
from configs.features.text import Text


class Hashed(Text):
    """Text hashed into a fixed number of buckets: no vocabulary, any number of values."""

    EXAMPLE = "zip: {kind: hashed, of: user, from: zip_code, buckets: 5000, dim: 8}"

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

    @property
    def rows_a_value(self) -> int:
        """One for each hash."""
        return self.hashes

    def _check_shared(self, name: str, share: str, table: Table) -> None:
        super()._check_shared(name, share, table)
        other = table[share]
        assert isinstance(other, Hashed)
        if self.buckets != other.buckets:
            raise ValueError(f"features.{name}.buckets: expected {other.buckets}, as {share!r} has")
