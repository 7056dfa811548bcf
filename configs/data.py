"""Where the interaction logs are, what their columns mean, and how they are split."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import Literal

from pydantic import Field, field_validator, model_validator

from configs.base import ColumnName, Section, Share

FileFormat = Literal["csv", "tsv", "jsonl", "parquet", "tfrecord"]
TimeUnit = Literal["s", "ms", "us", "ns", "iso8601"]

_POSITIVE = re.compile(r"^\s*(>=|<=|==|!=|>|<)\s*(.+?)\s*$")


class Label(Section):
    """The column that says whether the user liked, clicked or bought, and which of its values mean yes."""

    column: ColumnName = Field(description="Column of the label.")
    positive: str = Field(
        default="> 0",
        description="Comparison that makes a row positive: `>= 4`, `== click`. A number compares as a number, "
        "anything else as text, with `==` and `!=` only.",
    )

    @field_validator("positive")
    @classmethod
    def _comparison(cls, value: str) -> str:
        match = _POSITIVE.match(value)
        if not match:
            raise ValueError("expected a comparison such as '>= 4' or '== click'")
        operator, operand = match.groups()
        if operator in (">=", "<=", ">", "<") and not _is_number(operand):
            raise ValueError(f"{operator} compares numbers and {operand!r} is none; for text use == or !=")
        return value

    @property
    def operator(self) -> str:
        """One of `>=`, `<=`, `>`, `<`, `==`, `!=`."""
        return _POSITIVE.match(self.positive).group(1)  # type: ignore[union-attr]

    @property
    def operand(self) -> float | str:
        """What the column is compared with: a number where it reads as one, else text."""
        text = _POSITIVE.match(self.positive).group(2)  # type: ignore[union-attr]
        return float(text) if _is_number(text) else text.strip("'\"")


class Split(Section):
    """How examples are divided into train, eval and test; never by chance alone."""

    by: Literal["time", "user_time", "hash"] = Field(
        description="`time`: the newest share of all rows is test, the next newest eval. `user_time`: the same "
        "within each user's own rows. `hash`: by a stable hash of the columns in `columns`."
    )
    eval: Share = Field(default=0.1, description="Share of rows for validation.")
    test: Share = Field(default=0.1, description="Share of rows for the final judgement.")
    columns: list[ColumnName] = Field(default=[], description="Columns hashed with `by: hash`; default: the user.")

    @model_validator(mode="after")
    def _something_to_train_on(self) -> Split:
        if self.eval <= 0 or self.test <= 0 or self.eval + self.test >= 1:
            raise ValueError("eval and test must each be above 0 and leave something to train on (sum below 1)")
        if self.columns and self.by != "hash":
            raise ValueError("columns only go with by: hash")
        return self


class Data(Section):
    """The interaction logs: one row an event of one user with one item."""

    source: str = Field(
        min_length=1,
        description="A file, a folder, a glob, or a pattern with `{SPAN}` (a day `20260131` or a number), "
        "relative to this config file.",
    )
    format: FileFormat | None = Field(default=None, description="Read from the file's name when not given.")
    delimiter: str | None = Field(
        default=None, pattern=r'^[^"\r\n]$', description="CSV only: one character, no quote; default `,`."
    )
    rename: dict[str, ColumnName] = Field(
        default={},
        description="Columns of the logs that get another name from here on, such as `{User ID: user_id}`: names of "
        "columns are letters, digits, `_` and `.`.",
    )
    user: ColumnName = Field(description="Column of the user's id, always read as text.")
    item: ColumnName = Field(description="Column of the item's id, always read as text.")
    time: ColumnName = Field(description="Column of the event's time.")
    time_unit: TimeUnit = Field(default="s", description="Unit since 1970 of the time column, or `iso8601` text.")
    time_range: tuple[datetime, datetime] | None = Field(
        default=None,
        description="Events outside are malformed rows; UTC where no zone is given. Default: from 1990 to a day after "
        "the run begins.",
    )
    label: Label
    split: Split
    display: ColumnName | None = Field(default=None, description="Column that names an item to people: a title.")
    window: int = Field(default=1, ge=1, description="With `{SPAN}`: how many of the newest spans a run reads.")
    max_malformed: Share = Field(
        default=0.01, description="Share of rows that may be malformed; above it the run stops with exit code 3."
    )
    max_field_bytes: int = Field(default=65536, ge=16, description="A row with a longer field is malformed.")

    @field_validator("time_range")
    @classmethod
    def _forward(cls, value: tuple[datetime, datetime] | None) -> tuple[datetime, datetime] | None:
        if value is None:
            return None
        first, last = (t if t.tzinfo else t.replace(tzinfo=UTC) for t in value)
        if first >= last:
            raise ValueError("expected the earlier time first")
        return first, last

    @model_validator(mode="after")
    def _distinct(self) -> Data:
        if len({self.user, self.item, self.time, self.label.column}) < 4:
            raise ValueError("user, item, time and label.column must be four different columns")
        if len(set(self.rename.values())) < len(self.rename):
            raise ValueError("rename gives two columns one name")
        if self.window > 1 and "{SPAN}" not in self.source:
            raise ValueError("window needs a {SPAN} in source")
        if self.delimiter is not None and self.format not in (None, "csv"):
            raise ValueError("delimiter only goes with format: csv")
        return self


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text)) and "_" not in text  # Python's own 1_000 is no number in a log
    except ValueError:
        return False
