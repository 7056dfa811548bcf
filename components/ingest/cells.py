"""What the cells of text columns say: numbers and times as logs write them, for ingest and for proposals alike."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from configs.data import Decimal, Thousands

MISSING = ["", "NA", "N/A", "nan", "NaN", "NAN", "null", "NULL", "None", r"\N"]
_NUMBER = r"^[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|(?i:inf|infinity|nan))$"


def without_missing(column: pa.Array) -> pa.Array:
    """Return text trimmed, null where it is one of the words for a missing number."""
    text = pc.utf8_trim_whitespace(column.cast(pa.string()))
    return pc.if_else(pc.is_in(text, pa.array(MISSING)), pa.scalar(None, pa.string()), text)


def numbers(text: pa.Array, decimal: Decimal = ".", thousands: Thousands | None = None) -> pa.Array:
    """Parse numbers as Python's float does, into float64; null where there is none.

    `thousands` is taken out only where it parts groups of three digits; a space stands for those that do not break too.
    """
    if thousands is not None:
        text = _without_thousands(text, decimal, thousands)
    if decimal != ".":
        text = pc.replace_substring(text, decimal, ".")
    try:
        return text.cast(pa.float64())
    except pa.ArrowInvalid:
        # Not pandas' to_numeric: it dies of ids such as 787E7527758764.
        plain = pc.match_substring_regex(text, _NUMBER)
        return pc.if_else(plain, text, pa.scalar(None, pa.string())).cast(pa.float64())


def _without_thousands(text: pa.Array, decimal: str, thousands: str) -> pa.Array:
    if thousands == " ":
        text = pc.replace_substring_regex(text, "[\u00a0\u202f]", " ")
    grouped = rf"^[+-]?[1-9]\d{{0,2}}(?:{re.escape(thousands)}\d{{3}})+(?:{re.escape(decimal)}\d*)?$"
    return pc.if_else(
        pc.match_substring_regex(text, grouped), pc.replace_substring(text, pattern=thousands, replacement=""), text
    )


def times(text: pa.Array, form: str | None) -> pa.Array:
    """Return seconds since 1970 of times as text, ISO 8601 or of the form given; null where it is none.

    `form` is as `strptime` takes it. A time without a zone is UTC.
    """
    series = text.to_pandas().replace("", None)
    parsed = pd.to_datetime(series, format=form or "ISO8601", utc=True, errors="coerce")
    valid = parsed.notna().to_numpy()
    return pa.array(parsed.to_numpy("datetime64[s]").astype(np.int64), mask=~valid)
