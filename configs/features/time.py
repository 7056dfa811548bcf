"""A part of the event's time."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from configs.base import ColumnName
from configs.features.base import MISSING_TIME, FeatureKind, Owner, RawColumn


class Time(FeatureKind):
    """A part of a time: the hour (UTC) or weekday of the event, or the age of something at the event.

    Where a request does not give the event's time, the time of the request stands in.
    """

    EXAMPLE = "account_age: {kind: time, part: age, of: user, since: registered_at}"

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

    @property
    def owner(self) -> Owner:
        """The declared one."""
        return self.of

    @property
    def crossable(self) -> bool:
        """By its id."""
        return True

    def columns(self, name: str, time: str | None) -> list[RawColumn]:
        """Return the event's time, and the start of the age."""
        if time is None:
            raise ValueError(f"feature {name!r} is of kind time and needs data.time, which these logs have not")
        event = RawColumn(time, "int64", "context", None, MISSING_TIME)
        return [event, *([RawColumn(self.since, "int64", self.of, None, MISSING_TIME)] if self.since else [])]
