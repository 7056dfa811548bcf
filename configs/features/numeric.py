"""A number as it is, scaled."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from configs.features.base import ColumnKind, RawColumn


class Numeric(ColumnKind):
    """A number, scaled."""

    EXAMPLE = "price: {kind: numeric, of: item, scale: log, default: 0}"

    kind: Literal["numeric"]
    scale: Literal["z_score", "log", "none"] = Field(
        default="z_score",
        description="`z_score`: mean 0, variance 1, cut at 10 deviations. `log`: sign(x) log(1 + |x|), then z_score.",
    )
    default: float | None = Field(default=None, description="Value where missing; default: the mean.")

    def columns(self, name: str, time: str | None) -> list[RawColumn]:
        """Return its column."""
        return [RawColumn(self.column or name, "float", self.of, None, float("nan"))]
