"""Cells to typed columns: what each column must be follows from the config; a row that does not fit is malformed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.ingest import cells
from components.ingest.files import LogFile
from components.ingest.reading import VALUE_SEPARATOR, Block
from components.refusal import RefusedError
from configs.data import PER_SECOND, Data, Label
from configs.features import LABEL, RawColumn

_FLOAT_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Typed:
    """Well-formed rows: `user`, `item` and text columns as strings, numbers as float, times as int64 seconds.

    `lines[i]` is the line of row i. `left_out` counts the well-formed rows that `label.keep: positives` leaves out.
    """

    batch: pa.RecordBatch
    bad: list[tuple[int, str, str]]
    lines: np.ndarray
    left_out: int = 0


class RowTyper:
    """Turns blocks of cells into typed rows. Cheap to make, safe to pickle."""

    def __init__(self, data: Data, raw_columns: Mapping[str, RawColumn], now: datetime):
        self._data = data
        self._raw = {name: c for name, c in raw_columns.items() if c.length is None}  # lists are made, not read
        self._in_logs = {ours: theirs for theirs, ours in data.rename.items()}
        earliest, latest = data.time_range or (datetime(1990, 1, 1, tzinfo=UTC), now + timedelta(days=1))
        self._time_range = tuple(int(_utc(t).timestamp()) for t in (earliest, latest))

    @property
    def columns(self) -> list[str]:
        """The columns read, as the logs call them."""
        data = self._data
        wanted = [*data.roles.values(), *self._raw]
        if data.display:
            wanted.append(data.display)
        return [self._in_logs.get(name, name) for name in dict.fromkeys(wanted)]

    def check_header(self, file: LogFile, names: list[str]) -> None:
        """Raise RefusedError where a file lacks a column."""
        missing = [c for c in self.columns if c not in names]
        if missing:
            hint = ""
            if len(names) == 1 and len(self.columns) > 1:
                hint = " Only one column was found: is data.delimiter right?"
            raise RefusedError(
                f"{file.path}: no column {', '.join(map(repr, missing))}; "
                f"the file has {', '.join(map(repr, names[:30]))}.{hint} "
                "Mend the file, or the config if the column was renamed."
            )

    def __call__(self, block: Block) -> Typed:
        """Return the rows of `block` that fit, and the others with the reason."""
        data = self._data
        names = [data.rename.get(name, name) for name in block.table.column_names]
        rows = _Rows(Block(block.table.rename_columns(names), block.lines, block.bad), data)
        rows.refuse_long_fields(data.max_field_bytes)
        arrays: dict[str, pa.Array] = {}
        for name in (data.user, data.item):
            arrays[name] = rows.text(name)
            rows.require(name, pc.is_valid(arrays[name]), "is empty")
        if data.time is not None:
            arrays[data.time] = self._event_time(rows, data.time)
        arrays[LABEL] = rows.label(data.label) if data.label else rows.ones()
        if data.weight is not None:
            arrays[data.weight] = rows.number(data.weight)
            rows.require(data.weight, pc.is_valid(arrays[data.weight]), "is empty")
            rows.require(data.weight, pc.greater(arrays[data.weight], 0.0), "is not above 0, as a weight must be")
        for column in self._raw.values():
            if column.name in arrays:
                continue
            if column.type == "string":
                arrays[column.name] = rows.text(column.name)
            elif column.type == "float":
                arrays[column.name] = rows.number(column.name)
            else:
                arrays[column.name] = rows.seconds(column.name)
        if data.display and data.display not in arrays:
            arrays[data.display] = rows.text(data.display)
        for column in self._raw.values():
            if column.separator is not None:
                arrays[column.name] = _split(arrays[column.name], column.separator)
        kept = rows.good
        if data.positives_only and data.label:
            kept = kept & (arrays[LABEL].to_numpy() > 0)
        keep = pa.array(kept)
        batch = pa.RecordBatch.from_pydict({n: a.filter(keep) for n, a in arrays.items()})
        return Typed(batch, rows.bad(), block.lines[kept], int(rows.good.sum() - kept.sum()))

    def _event_time(self, rows: _Rows, name: str) -> pa.Array:
        seconds = rows.seconds(name)
        rows.require(name, pc.is_valid(seconds), "is empty")
        low, high = self._time_range
        inside = pc.and_(pc.greater_equal(seconds, low), pc.less_equal(seconds, high))
        rows.require(
            name,
            inside,
            f"is outside {_day(low)} to {_day(high)} read as {self._data.time_format or self._data.time_unit}",
        )
        return seconds


class _Rows:
    """The cells of a block, and which of its rows are still good."""

    def __init__(self, block: Block, data: Data):
        self._block = block
        self._data = data
        self.good = np.ones(block.table.num_rows, bool)
        self._reasons: dict[int, str] = {}

    def bad(self) -> list[tuple[int, str, str]]:
        table = self._block.table
        found = []
        for row, reason in self._reasons.items():
            shown = ["" if v is None else str(v)[:80] for v in table.slice(row, 1).to_pylist()[0].values()]
            found.append((int(self._block.lines[row]), reason, " | ".join(shown)[:500]))
        return self._block.bad + found

    def require(self, name: str, condition: pa.Array, reason: str) -> None:
        fits = pc.fill_null(condition, False).to_numpy(zero_copy_only=False)
        failing = np.flatnonzero(self.good & ~fits)
        if len(failing):
            column = self._block.table.column(name)
            for row in failing:
                cell = column[int(row)].as_py()
                shown = "" if cell is None or cell == "" else f" {str(cell)[:60]!r}"
                self._reasons[int(row)] = f"column {name!r}:{shown} {reason}"
            self.good[failing] = False

    def refuse_long_fields(self, limit: int) -> None:
        for name, column in zip(self._block.table.column_names, self._block.table.columns, strict=True):
            if pa.types.is_string(column.type):
                length = pc.fill_null(pc.binary_length(column), 0).to_numpy()
                for row in np.flatnonzero(self.good & (length > limit)):
                    self._reasons[int(row)] = (
                        f"column {name!r}: {length[row]:,} bytes, over data.max_field_bytes ({limit:,})"
                    )
                    self.good[row] = False

    def text(self, name: str) -> pa.Array:
        column = self._column(name)
        if pa.types.is_floating(column.type):
            # An id that a writer turned into 12.0 because some row lacked it is still 12.
            column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
            whole = pc.and_(pc.equal(pc.floor(column), column), pc.less(pc.abs(column), 2.0**53))
            integers = pc.if_else(whole, column, pa.scalar(None, column.type)).cast(pa.int64(), safe=False)
            return pc.coalesce(integers.cast(pa.string()), column.cast(pa.string()))
        column = column.cast(pa.string())
        return pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)

    def number(self, name: str) -> pa.Array:
        column = self._column(name)
        if pa.types.is_string(column.type):
            text = cells.without_missing(column)
            values = cells.numbers(text, self._data.decimal, self._data.thousands)
            self.require(name, pc.or_(pc.is_null(text), pc.is_valid(values)), "is not a number")
        else:
            values = column.cast(pa.float64(), safe=False)
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, pa.float64()), values)
        # tf.train.Example holds 32-bit floats: what lies beyond is the largest of them.
        values = pc.max_element_wise(
            pc.min_element_wise(values, _FLOAT_MAX, skip_nulls=False), -_FLOAT_MAX, skip_nulls=False
        )
        return values.cast(pa.float32(), safe=False)

    def seconds(self, name: str) -> pa.Array:
        unit = self._data.time_unit
        column = self._column(name)
        if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
            return column.cast(pa.timestamp("s"), safe=False).cast(pa.int64())
        form = self._data.time_format
        if unit == "iso8601" or form is not None:
            text = column.cast(pa.string())
            values = cells.times(text, form)
            given = pc.greater(pc.fill_null(pc.binary_length(text), 0), 0)
            what = f"is not a time as {form}" if form else "is not an ISO 8601 time"
            self.require(name, pc.or_(pc.invert(given), pc.is_valid(values)), what)
            return values
        if pa.types.is_integer(column.type):
            values = column.cast(pa.int64(), safe=False)
        else:
            text = cells.without_missing(column)
            floats = cells.numbers(text, self._data.decimal, self._data.thousands)
            fits = pc.less(pc.abs(floats), 9.2e18)
            self.require(name, pc.or_(pc.is_null(text), pc.fill_null(fits, False)), f"is not a time in {unit}")
            values = pc.if_else(fits, floats, pa.scalar(None, pa.float64())).cast(pa.int64(), safe=False)
        return pc.divide(values, PER_SECOND[unit]) if unit != "s" else values

    def ones(self) -> pa.Array:
        return pa.array(np.ones(self._block.table.num_rows, np.float32))

    def label(self, label: Label) -> pa.Array:
        operand = label.operand
        if isinstance(operand, float):
            values: pa.Array = self._truth(label.column)
            values = values if values is not None else self.number(label.column)
            scalar = pa.scalar(operand, pa.float32())
        else:
            values = self.text(label.column)
            scalar = pa.scalar(operand, pa.string())
        self.require(label.column, pc.is_valid(values), "is empty")
        compare = {
            ">=": pc.greater_equal,
            "<=": pc.less_equal,
            ">": pc.greater,
            "<": pc.less,
            "==": pc.equal,
            "!=": pc.not_equal,
        }[label.operator]
        return pc.fill_null(compare(values, scalar), False).cast(pa.float32())

    def _truth(self, name: str) -> pa.Array | None:
        """Read true/false as 1/0."""
        column = self._column(name)
        if pa.types.is_boolean(column.type):
            return column.cast(pa.float32())
        if pa.types.is_string(column.type):
            lower = pc.fill_null(pc.utf8_lower(column), "")
            if pc.all(pc.is_in(lower, pa.array(["true", "false", ""]))).as_py():
                truth = pc.if_else(pc.equal(lower, ""), pa.scalar(None, pa.bool_()), pc.equal(lower, "true"))
                return truth.cast(pa.float32())
        return None

    def _column(self, name: str) -> pa.Array:
        table = self._block.table
        column = table.column(name).combine_chunks()
        return column.cast(pa.string()) if pa.types.is_null(column.type) else column


def _split(column: pa.Array, separator: str) -> pa.Array:
    """Split cells into lists of their non-empty values; a cell without any is missing."""
    lists = pc.split_pattern(pc.replace_substring(column, VALUE_SEPARATOR, separator), separator)
    values = lists.flatten()
    if pc.any(pc.equal(values, "")).as_py():
        parents = pc.list_parent_indices(lists)
        kept = pc.not_equal(values, "")
        counts = np.bincount(parents.filter(kept).to_numpy(), minlength=len(lists))
        offsets = pa.array(np.append(0, np.cumsum(counts)), pa.int32())
        return pa.ListArray.from_arrays(offsets, values.filter(kept), mask=pa.array(counts == 0))
    return lists


def _utc(time: datetime) -> datetime:
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
