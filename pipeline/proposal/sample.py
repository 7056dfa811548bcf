"""The first rows of a file of logs, column by column."""

from __future__ import annotations

import csv
import re
import unicodedata
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import pyarrow as pa

from components.ingest import cells, reading
from components.ingest.files import LogFile
from configs import ConfigError
from configs.data import Data, Decimal, Thousands

SAMPLE_ROWS = 200_000
# How numbers are written, the most usual first.
_STYLES: tuple[tuple[Decimal, Thousands | None], ...] = (
    (".", None), (".", ","), (",", None), (",", "."), (",", " "), (".", " "), (".", "'"),
)  # fmt: skip
_MOSTLY = 0.98


class Column:
    """A column as text: `name` in the logs, `plain` in the config, `codes` each row's place in `levels` or -1."""

    def __init__(self, name: str, plain: str, values: pd.Series):
        self.name = name
        self.plain = plain
        codes, levels = pd.factorize(values)
        self.codes: np.ndarray = codes
        self.levels = pd.Series(levels, dtype=object)
        self.style: tuple[Decimal, Thousands | None] = _STYLES[0]

    def set_style(self, style: tuple[Decimal, Thousands | None]) -> None:
        """Have numbers read as written in another style."""
        self.style = style
        for made in ("level_numbers", "numbers", "is_number", "is_whole"):
            self.__dict__.pop(made, None)

    @property
    def rows(self) -> int:
        """Rows of the sample, with a value or without."""
        return len(self.codes)

    @cached_property
    def present(self) -> float:
        """Share of rows with a value."""
        return float((self.codes >= 0).mean())

    @property
    def distinct(self) -> int:
        """How many different values there are."""
        return len(self.levels)

    @cached_property
    def counts(self) -> np.ndarray:
        """How often each level is there."""
        return np.bincount(self.codes[self.codes >= 0], minlength=self.distinct)

    @cached_property
    def level_numbers(self) -> np.ndarray:
        """Each level as a number, NaN where it is none."""
        return self.numbers_in(self.style)

    def numbers_in(self, style: tuple[Decimal, Thousands | None]) -> np.ndarray:
        """Return each level as a number written in that style, NaN where it is none."""
        if not self.distinct:
            return np.zeros(0)
        text = cells.without_missing(pa.array(self.levels, pa.string()))
        return cells.numbers(text, *style).to_numpy(zero_copy_only=False).astype(np.float64)

    @cached_property
    def numbers(self) -> np.ndarray:
        """Each row as a number, NaN where it is none."""
        return np.append(self.level_numbers, np.nan)[self.codes]

    @cached_property
    def is_missing_word(self) -> np.ndarray:
        """Which levels are words for a missing value."""
        return self.levels.str.strip().isin(cells.MISSING).to_numpy(bool)

    def share_of_numbers(self, style: tuple[Decimal, Thousands | None] | None = None) -> float:
        """Return the share of the values present, but for words for missing ones, that are numbers."""
        numbers = self.level_numbers if style is None else self.numbers_in(style)
        counted = self.counts * ~self.is_missing_word
        return float((counted * np.isfinite(numbers)).sum() / max(counted.sum(), 1))

    @cached_property
    def is_number(self) -> bool:
        """Whether nearly all values are numbers."""
        return self.distinct > 0 and self.share_of_numbers() >= _MOSTLY

    @cached_property
    def is_whole(self) -> bool:
        """Whether nearly all values are whole numbers."""
        numbers = self.level_numbers[np.isfinite(self.level_numbers)]
        return self.is_number and bool((numbers == np.floor(numbers)).mean() >= _MOSTLY)

    def same_within(self, owner: Column, fewest: int = 10) -> float | None:
        """Return for which share of an owner's ids, of those with several rows, this column never changes.

        None where too few ids have several rows to tell.
        """
        both = (self.codes >= 0) & (owner.codes >= 0)
        ids, values = owner.codes[both], self.codes[both]
        rows = np.bincount(ids, minlength=owner.distinct)
        pairs = np.unique(ids.astype(np.int64) * (self.distinct + 1) + values) // (self.distinct + 1)
        different = np.bincount(pairs, minlength=owner.distinct)
        several = rows > 1
        return float((different[several] == 1).mean()) if several.sum() >= fewest else None


@dataclass(frozen=True)
class Sample:
    """The first rows of the first file: its columns, and its blocks as ingest reads them."""

    file: LogFile
    delimiter: str | None
    columns: list[Column]
    blocks: list[reading.Block]
    rows: int
    whole: bool
    decimal: Decimal
    thousands: Thousands | None

    def find(self, name: str) -> Column | None:
        """Return the column of that name, as the logs or as the config call it."""
        return next((c for c in self.columns if name in (c.name, c.plain)), None)


def blank(format_: str | None, delimiter: str | None) -> Data:
    """Return the least that reading needs to know."""
    return Data.model_validate(
        {
            "source": "-", "format": format_, "delimiter": delimiter, "user": "user", "item": "item",
            "split": {"by": "hash"}, "max_field_bytes": 1 << 30,
        }
    )  # fmt: skip


def take(file: LogFile, delimiter: str | None) -> Sample:
    """Read the first rows of a file. Raises ConfigError where it has none, or no header."""
    if file.format == "csv":
        delimiter = delimiter or _sniff_delimiter(file)
    data = blank(file.format, delimiter)
    if file.format in ("csv", "tsv"):
        names = reading.column_names(data, file)
        _refuse_headless(file, names)
    elif file.format == "parquet":
        names = reading.parquet_names(file)
    else:
        names = reading.any_names(file)
    blocks, rows, whole = [], 0, True
    pieces = reading.pieces(file)
    for block in reading.read(data, pieces[0], names):
        if rows >= SAMPLE_ROWS:
            whole = False
            break
        blocks.append(block)
        rows += block.table.num_rows
    if not rows:
        bad = next((block.bad[0] for block in blocks if block.bad), None)
        why = f": line {bad[0]}: {bad[1]}" if bad else ""
        raise ConfigError(f"{file.path}: no row can be read{why}")
    table = pa.concat_tables([b.table for b in blocks], promote_options="permissive")
    columns = [
        Column(name, plain, _text(table.column(name)))
        for name, plain in zip(table.column_names, _plain_names(table.column_names), strict=True)
    ]
    style = _number_style(columns)
    for column in columns:
        column.set_style(style)
    return Sample(file, delimiter, columns, blocks, rows, whole and len(pieces) == 1, *style)


def _text(column: pa.ChunkedArray) -> pd.Series:
    series = column.to_pandas()
    if series.dtype.kind == "f":  # whole numbers that a missing one turned into fractions
        whole = series.dropna()
        if len(whole) and (whole == np.floor(whole)).all() and (whole.abs() < 2**53).all():
            series = series.astype("Int64")
    text = series.map(lambda v: None if v is None or v is pd.NA or v != v else str(v)).astype(object)
    return text.where(text != "", None)


def _sniff_delimiter(file: LogFile) -> str:
    with reading.open_file(file) as stream:
        head = [stream.readline(1 << 16).decode(errors="replace").rstrip("\r\n") for _ in range(20)]
    lines = [line for line in head if line.strip()]

    def columns(delimiter: str) -> tuple[bool, int]:
        fields = [len(row) for row in csv.reader(lines, delimiter=delimiter)]
        return len(set(fields)) == 1, fields[0] if fields else 0

    # A delimiter parts every line alike; a comma inside a number or a title does not.
    return max((",", ";", "\t", "|"), key=lambda d: (columns(d)[1] > 1 and columns(d)[0], columns(d)[1]))


def _refuse_headless(file: LogFile, names: list[str]) -> None:
    numbers = cells.numbers(pa.array(names, pa.string())).is_valid().to_numpy(zero_copy_only=False)
    if numbers.sum() >= max(2, len(names) / 2):
        raise ConfigError(
            f"{file.path}: the first line is {', '.join(names[:6])}: that is data, not a header. Put a line with the "
            "names of the columns before it"
        )


def _number_style(columns: list[Column]) -> tuple[Decimal, Thousands | None]:
    """Return how the file writes numbers: as most of the columns do that are no numbers in the plain style."""
    odd = [c for c in columns if c.distinct and not c.is_number and c.levels.head(200).str.contains(r"\d").mean() > 0.9]
    plain = [c for c in columns if c.is_number]
    votes = []
    for style in _STYLES[1:]:
        fits = [c for c in odd if c.share_of_numbers(style) >= _MOSTLY]
        # What reads as plain numbers must go on meaning the same.
        if fits and all(np.array_equal(c.numbers_in(style), c.numbers_in(_STYLES[0]), equal_nan=True) for c in plain):
            votes.append((len(fits), style))
    return max(votes, key=lambda vote: vote[0])[1] if votes else _STYLES[0]


def _plain_names(names: list[str]) -> list[str]:
    """Return names that a config can hold, each once; a name without a Latin letter gets one from its place."""
    found: list[str] = []
    for place, name in enumerate(names, 1):
        plain = plain_name(name) if re.search(r"[A-Za-z]", _without_accents(name)) else f"column_{place}"
        if plain in found or (plain != name and plain in names):
            plain = f"{plain}_{place}"
        found.append(plain)
    return found


def plain_name(name: str) -> str:
    """Return a name of Latin letters, digits, `_` and `.`, without accents; `column` where nothing is left of it."""
    plain = re.sub(r"[^A-Za-z0-9_.]+", "_", _without_accents(name.strip())).strip("_") or "column"
    return plain if re.match(r"[A-Za-z_]", plain) else f"c_{plain}"


def _without_accents(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
