"""Where the interaction logs are, what their columns mean, and how they are split."""

from __future__ import annotations

import math
import re
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from configs.base import ColumnName, Section, Share

FileFormat = Literal["csv", "tsv", "jsonl", "parquet", "tfrecord"]
TimeUnit = Literal["s", "ms", "us", "ns", "iso8601"]

Decimal = Literal[".", ","]
Thousands = Literal[",", ".", " ", "'", "_"]

SPAN = "{SPAN}"
PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}

# YAML reads 20260131 as a number and 2026-01-31 as a date.
Span = Annotated[
    str,
    BeforeValidator(lambda v: str(v) if isinstance(v, int | date) and not isinstance(v, bool) else v),
    Field(pattern=r"^(\d{1,18}|\d{4}-\d{2}-\d{2})$"),
]

_POSITIVE = re.compile(r"^\s*(>=|<=|==|!=|>|<)\s*(.+?)\s*$")


class Label(Section):
    """The column that says whether the user liked, clicked or bought, and which of its values mean yes."""

    column: ColumnName = Field(description="Column of the label.")
    positive: str = Field(
        default="> 0",
        description="Comparison that makes a row positive: `>= 4`, `== click`. A number compares as a number, "
        "anything else as text, with `==` and `!=` only.",
    )
    keep: Literal["all", "positives"] = Field(
        default="all",
        description="`positives`: rows that are not positive are left out, as if the logs had never held them.",
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
    """How examples are divided into train, eval and test; the same rows always the same way."""

    by: Literal["time", "user_time", "leave_one_out", "user_share", "hash", "span"] = Field(
        description="`time`: the newest share of all rows is test, the next newest eval. `user_time`: the same "
        "within each user's own rows. `leave_one_out`: each user's last event is test, the one before it eval. "
        "`user_share`: a random share of each user's items, for logs without a time. `hash`: by a stable hash of the "
        "columns in `columns`. `span`: the newest span of the window is eval and test, in the proportion of their "
        "shares and by that hash; all before it is train."
    )
    eval: Share = Field(default=0.1, description="Share of rows for validation; not with `leave_one_out`.")
    test: Share = Field(default=0.1, description="Share of rows for the final judgement; not with `leave_one_out`.")
    at_least: int = Field(
        default=0,
        ge=0,
        description="With `user_time` and `user_share`: each user gives this many rows or more to eval and to test, "
        "and otherwise its shares rounded down; where too few rows are left to train on, to test alone, then to none. "
        "0: users with few rows give some by chance, so that the shares hold over all users.",
    )
    columns: list[ColumnName] = Field(
        default=[], description="Columns hashed with `by: hash` and `by: span`; default: the user."
    )

    @model_validator(mode="after")
    def _something_to_train_on(self) -> Split:
        if self.eval <= 0 or self.test <= 0 or self.eval + self.test >= 1:
            raise ValueError("eval and test must each be above 0 and leave something to train on (sum below 1)")
        if self.columns and self.by not in ("hash", "span"):
            raise ValueError("columns only go with by: hash and by: span")
        if self.at_least and self.by not in ("user_time", "user_share"):
            raise ValueError("at_least only goes with by: user_time and by: user_share")
        if self.by == "leave_one_out" and (self.eval, self.test) != (0.1, 0.1):
            raise ValueError("by: leave_one_out takes one event each, no shares: leave out eval and test")
        return self

    @property
    def within_users(self) -> bool:
        """Whether each user's rows are divided by themselves, which needs all of them together."""
        return self.by in ("user_time", "leave_one_out", "user_share")

    @property
    def needs_time(self) -> bool:
        """Whether the split follows the time of events."""
        return self.by in ("time", "user_time", "leave_one_out")


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
    time: ColumnName | None = Field(
        default=None,
        description="Column of the event's time. Logs without one have no order: no splits, sequences or features by "
        "time.",
    )
    time_unit: TimeUnit = Field(
        default="s",
        description="Unit since 1970 of the time column, or `iso8601` text. Requests of the served model "
        "give times in this unit; in seconds where the logs hold text.",
    )
    ties: Literal["unknown", "file"] = Field(
        default="unknown",
        description="Which of a user's events of the same second came first: `unknown`: splits order them by a hash "
        "and sequences leave them out; `file`: the one that the logs hold first, by file name and line.",
    )
    time_format: str | None = Field(
        default=None,
        min_length=2,
        description="How text in the time column is written, as `strptime` takes it: `%d/%m/%Y %H:%M`. In place of "
        "`time_unit`.",
    )
    time_range: tuple[datetime, datetime] | None = Field(
        default=None,
        description="Events outside are malformed rows; UTC where no zone is given. Default: from 1990 to a day after "
        "the run begins.",
    )
    label: Label | None = Field(
        default=None, description="What makes a row positive. Logs without it hold positives alone: plays, purchases."
    )
    weight: ColumnName | None = Field(
        default=None,
        description="Column that says how much a positive counts, such as a number of plays: above 0. Only where all "
        "rows are positives.",
    )
    split: Split
    display: ColumnName | None = Field(default=None, description="Column that names an item to people: a title.")
    window: int = Field(
        default=1,
        ge=1,
        le=100_000,
        description="With `{SPAN}`: how many spans a run reads. Without `span` the newest there are; with it, so many "
        "days or numbers that end with it.",
    )
    span: Span | None = Field(
        default=None, description="With `{SPAN}`: the day or number that a run is for; default: the newest there is."
    )
    decimal: Decimal = Field(default=".", description="What parts the whole of a number from its fraction.")
    thousands: Thousands | None = Field(
        default=None, description="What parts groups of three digits in numbers, if anything does."
    )
    max_malformed: Share = Field(
        default=0.01, description="Share of rows that may be malformed; above it the run stops with exit code 3."
    )
    max_field_bytes: int = Field(default=65536, ge=16, description="A row with a longer field is malformed.")

    @property
    def per_second(self) -> int:
        """How many of the time column's unit are a second; 1 where it is text, which requests give in seconds."""
        return PER_SECOND.get(self.time_unit, 1) if self.time_format is None else 1

    @property
    def has_spans(self) -> bool:
        """Whether the logs come in spans."""
        return SPAN in self.source

    @property
    def positives_only(self) -> bool:
        """Whether every example is a positive: there is no label, or rows without one are left out."""
        return self.label is None or self.label.keep == "positives"

    @property
    def roles(self) -> dict[str, str]:
        """The columns that mean something of their own, by what they mean; without those that the logs lack."""
        label = self.label.column if self.label else None
        found = {"user": self.user, "item": self.item, "time": self.time, "label.column": label, "weight": self.weight}
        return {role: column for role, column in found.items() if column is not None}

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
        roles = self.roles
        if len(set(roles.values())) < len(roles):
            *most, last = roles
            raise ValueError(f"{', '.join(most)} and {last} must be different columns")
        self._check_time()
        if self.weight is not None and not self.positives_only:
            raise ValueError("weight is for logs of positives: leave out label, or give it keep: positives")
        if len(set(self.rename.values())) < len(self.rename):
            raise ValueError("rename gives two columns one name")
        if not self.has_spans and (self.window > 1 or self.span is not None or self.split.by == "span"):
            what = "window" if self.window > 1 else "span" if self.span is not None else "split.by: span"
            raise ValueError(f"{what} needs a {SPAN} in source")
        if self.split.by == "span" and self.window < 2:
            raise ValueError("split.by: span needs a window of at least 2: the newest span is for evaluation")
        if self.thousands == self.decimal:
            raise ValueError("thousands and decimal cannot be the same")
        if self.time_format is not None and self.time_unit != "s":
            raise ValueError("time_unit and time_format exclude each other")
        if self.time_format is not None and "%" not in self.time_format:
            raise ValueError("time_format: expected a format as strptime takes it, such as %d/%m/%Y %H:%M")
        if self.delimiter is not None and self.format not in (None, "csv"):
            raise ValueError("delimiter only goes with format: csv")
        return self

    def _check_time(self) -> None:
        if self.time is not None:
            return
        if self.split.needs_time:
            raise ValueError(
                f"split.by: {self.split.by} needs data.time, which these logs have not: use user_share (a random share "
                "of each user's items) or hash"
            )
        for key, given in (
            ("time_unit", self.time_unit != "s"),
            ("time_format", self.time_format is not None),
            ("time_range", self.time_range is not None),
            ("ties", self.ties != "unknown"),
        ):
            if given:
                raise ValueError(f"{key} says how to read data.time, which is not given")


def span_number(span: str) -> int:
    """Return a span as a number: 20260131 for both 20260131 and 2026-01-31."""
    return int(span.replace("-", ""))


def spans_until(span: str, window: int) -> set[int]:
    """Return the `window` spans that end with `span`, as numbers: days where it reads as one, else whole numbers."""
    day = span_day(span)
    if day is None:
        return set(range(max(span_number(span) - window + 1, 0), span_number(span) + 1))
    days = (day - timedelta(days=n) for n in range(min(window, day.toordinal())))
    return {d.year * 10000 + d.month * 100 + d.day for d in days}


def span_day(span: str) -> date | None:
    """Return the day that a span is; None where it is only a number."""
    digits = span.replace("-", "")
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:])) if len(digits) == 8 else None
    except ValueError:
        return None


def span_before(span: str) -> str:
    """Return the span before: yesterday's, or the number less one. Raises ValueError where there is none."""
    day = span_day(span)
    if day is not None:
        return (day - timedelta(days=1)).strftime("%Y-%m-%d" if "-" in span else "%Y%m%d")
    if span_number(span) == 0:
        raise ValueError("no span comes before 0")
    return str(span_number(span) - 1)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text)) and "_" not in text  # Python's own 1_000 is no number in a log
    except ValueError:
        return False
