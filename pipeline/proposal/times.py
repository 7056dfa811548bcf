"""How a column of times is written."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from components.ingest import cells
from configs.data import TimeUnit
from pipeline.proposal.sample import Column

_LEVELS = 5000
_MOSTLY = 0.95
_SCALES: dict[TimeUnit, float] = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
_FROM, _UNTIL = 6.3e8, 4.1e9  # seconds since 1970: 1990 to 2099
_CLOCKS = ("", " %H:%M:%S", " %H:%M", " %H:%M:%S.%f", " %I:%M:%S %p", " %I:%M %p", ", %H:%M", ", %H:%M:%S", "T%H:%M:%S")
_DAYS = (
    "%Y/%m/%d", "%Y.%m.%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%d.%m.%y", "%d/%m/%y",
    "%m/%d/%y", "%d %b %Y", "%d %B %Y", "%b %d %Y", "%b %d, %Y", "%B %d, %Y", "%d-%b-%Y", "%Y年%m月%d日",
)  # fmt: skip
_OTHERS = (
    "%Y%m%d %H:%M:%S", "%a %b %d %H:%M:%S %z %Y", "%a, %d %b %Y %H:%M:%S %z", "%d/%b/%Y:%H:%M:%S %z",
    "%a %b %d %H:%M:%S %Y",
)  # fmt: skip
_COMPACT = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}


@dataclass(frozen=True)
class Written:
    """How times are written: a unit since 1970, `iso8601`, or a form of `strptime`. `seconds` holds each row's time.

    `other` is a form that reads them as well, with day and month changed about.
    """

    unit: TimeUnit
    form: str | None
    seconds: np.ndarray
    other: str | None = None

    @property
    def moves(self) -> bool:
        """Whether not all times are equal."""
        known = self.seconds[np.isfinite(self.seconds)]
        return bool(len(known)) and bool(known.min() < known.max())

    @property
    def has_hours(self) -> bool:
        """Whether times are finer than days."""
        known = self.seconds[np.isfinite(self.seconds)]
        return bool((known % 86400 != known[:1] % 86400).mean() > 0.01) if len(known) else False


def written(column: Column, form: str | None = None, unit: TimeUnit | None = None) -> Written | None:
    """Return how a column's times are written, in the form or unit given if any; None where they are no times."""
    if not column.distinct:
        return None
    if form is not None:
        return _as_form(column, [form])
    if unit is not None and unit != "iso8601":
        return Written(unit, None, column.numbers / _SCALES[unit]) if column.is_number else None
    if unit is None and column.is_number:
        return _as_number(column)
    iso = _seconds(column, None)
    if _fits(column, iso):
        return Written("iso8601", None, _of_rows(column, None))
    return _as_form(column, _forms(column)) if unit is None else None


def _as_number(column: Column) -> Written | None:
    numbers = column.level_numbers[np.isfinite(column.level_numbers)]
    median = float(np.median(numbers))
    digits = {len(level.strip()) for level in column.levels.head(_LEVELS)}
    if column.is_whole and len(digits) == 1 and (form := _COMPACT.get(next(iter(digits)))) is not None:
        found = _as_form(column, [form])
        if found is not None:
            return found
    for unit, scale in _SCALES.items():
        if _FROM <= median / scale <= _UNTIL:
            inside = ((numbers / scale >= _FROM) & (numbers / scale <= _UNTIL)).mean()
            return Written(unit, None, column.numbers / scale) if inside >= _MOSTLY else None
    return None


def _as_form(column: Column, forms: list[str]) -> Written | None:
    """Return the first form that reads nearly all values; and one more that does, if any."""
    fitting = []
    for form in forms:
        try:
            if _fits(column, _seconds(column, form)):
                fitting.append(form)
        except ValueError:  # no form at all
            continue
    if not fitting:
        return None
    form, *others = fitting
    return Written("s", form, _of_rows(column, form), others[0] if others else None)


def _forms(column: Column) -> list[str]:
    """Return the forms that could fit, by what the first value looks like; day first before month first."""
    first = column.levels.iloc[0].strip()
    if not re.search(r"\d", first) or len(first) > 40:
        return []
    return [*(day + clock for day in _DAYS for clock in _CLOCKS), *_OTHERS]


def _seconds(column: Column, form: str | None) -> np.ndarray:
    text = pa.array(column.levels.head(_LEVELS).str.strip(), pa.string())
    if form is not None and len(text) > 20 and not _any(text.slice(0, 20), form):
        return np.full(len(text), np.nan)
    return cells.times(text, form).to_pandas().to_numpy(np.float64)


def _any(text: pa.Array, form: str) -> bool:
    return cells.times(text, form).null_count < len(text)


def _fits(column: Column, seconds: np.ndarray) -> bool:
    known = ~column.is_missing_word[: len(seconds)]
    good = np.isfinite(seconds) & (seconds >= _FROM) & (seconds <= _UNTIL)
    return bool(known.any()) and float(good[known].mean()) >= _MOSTLY


def _of_rows(column: Column, form: str | None) -> np.ndarray:
    text = pa.array(column.levels.str.strip(), pa.string())
    seconds = cells.times(text, form).to_pandas().to_numpy(np.float64)
    return np.append(seconds, np.nan)[column.codes]
