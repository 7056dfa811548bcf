"""A number as one of a few ids."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from configs.features.base import ColumnKind, RawColumn


class Bucketized(ColumnKind):
    """A number put into quantile buckets of the training split."""

    EXAMPLE = "age: {kind: bucketized, of: user, buckets: 8}"

    kind: Literal["bucketized"]
    buckets: int = Field(ge=2, le=10_000, description="Number of quantile buckets.")
    default: float | None = Field(default=None, description="Value where missing; default: a bucket of its own.")

    @property
    def crossable(self) -> bool:
        """By its bucket."""
        return True

    def columns(self, name: str, time: str | None) -> list[RawColumn]:
        """Return its column."""
        return [RawColumn(self.column or name, "float", self.of, None, float("nan"))]
