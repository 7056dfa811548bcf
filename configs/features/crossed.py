"""The pair of two features."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from configs.data import Data
from configs.features.base import FeatureKind, RawColumn, Table


class Crossed(FeatureKind):
    """The pair of two other features' values, hashed."""

    EXAMPLE = "age_and_hour: {kind: crossed, cross: [age, hour], buckets: 200}"

    kind: Literal["crossed"]
    cross: tuple[str, str] = Field(description="Names of two single-valued features that are not crossed or numeric.")
    buckets: int = Field(ge=2, description="Number of hash buckets.")

    @field_validator("cross")
    @classmethod
    def _two(cls, value: tuple[str, str]) -> tuple[str, str]:
        if value[0] == value[1]:
            raise ValueError(f"expected two different features, got {value[0]!r} twice")
        return value

    @property
    def owner(self) -> None:
        """Its parts decide."""
        return None

    def columns(self, name: str, time: str | None) -> list[RawColumn]:
        """None of its own: its parts read theirs."""
        return []

    def check(self, name: str, table: Table, data: Data) -> None:
        """Refuse parts that are not there or cannot be crossed."""
        for part in self.cross:
            other = table.get(part)
            if other is None:
                raise ValueError(f"features.{name}.cross: no feature {part!r}")
            if not other.crossable:
                raise ValueError(
                    f"features.{name}.cross: {part!r} must be single-valued and neither crossed nor numeric"
                )
