"""The user's recent events as list columns: only earlier ones, the newest of them, the same in every run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from components.ingest.splitting import row_hash, stable_hash, with_column
from configs.data import Data
from configs.features import LABEL, History

AFTER = "__after_"  # prefixes the columns that hold a user's history after the last event, on that event's rows
_ROWS = 16_384


def add_histories(batch: pa.RecordBatch, data: Data, histories: Sequence[History]) -> Iterator[pa.RecordBatch]:
    """Yield the rows of `batch`, which must hold all rows of its users, with two list columns for each history.

    The first holds the values of the user's newest events that are at least `delay` seconds, and at least one, older
    than the row, oldest first. The second, whose name begins with AFTER, holds the newest of all the user's events, on
    the rows of the user's last second; it is what the user's next request will be made with.
    """
    users, times = stable_hash(batch.column(data.user)), batch.column(data.time).to_numpy()
    order = np.lexsort((row_hash(batch), times, users))
    batch, users, times = batch.take(pa.array(order)), users[order], times[order]
    rows = batch.num_rows
    start = np.flatnonzero(np.append(True, users[1:] != users[:-1])[:rows])
    sizes = np.diff(np.append(start, rows))
    first, last = np.repeat(start, sizes), np.repeat(start + sizes, sizes)
    newest = times == times[last - 1]
    bounds = []
    for history in histories:
        values = batch.column(history.column)
        counts = values.is_valid().to_numpy(zero_copy_only=False)
        if history.events != "all":
            positive = batch.column(LABEL).to_numpy() > 0
            counts = counts & (positive if history.events == "positive" else ~positive)
        before = np.append(0, np.cumsum(counts))  # how many events that count lie before each row
        seen = _earlier(first, times, max(history.delay, 1))
        high, all_of_user = before[seen], before[last]
        low = np.maximum(before[first], high - history.length)
        after = np.maximum(before[first], all_of_user - history.length)
        events = values.filter(pa.array(counts))
        bounds.append((history.name, events, low, high))
        bounds.append((AFTER + history.name, events, np.where(newest, after, all_of_user), all_of_user))
    for at in range(0, rows, _ROWS):
        part = batch.slice(at, _ROWS)
        for name, events, low, high in bounds:
            part = with_column(part, name, _ranges(events, low[at : at + _ROWS], high[at : at + _ROWS]))
        yield part


def _earlier(first: np.ndarray, times: np.ndarray, by: int) -> np.ndarray:
    """Return for each row the end of its user's rows that are at least `by` seconds older.

    Rows are sorted by user and time; `first` is the place of the user's first row.
    """
    if not len(times):
        return first
    since = times - times.min() + 1
    span = int(since.max()) + 1  # users' times on one line, one behind the other
    user = np.cumsum(np.append(False, first[1:] != first[:-1]))
    return np.searchsorted(user * span + since, user * span + np.maximum(since - by, 0), side="right")


def _ranges(values: pa.Array, low: np.ndarray, high: np.ndarray) -> pa.ListArray:
    """Return values[low[i]:high[i]] for each i."""
    offsets = np.append(0, np.cumsum(high - low))
    places = np.arange(offsets[-1]) + np.repeat(low - offsets[:-1], high - low)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values.take(pa.array(places, pa.int64())))
