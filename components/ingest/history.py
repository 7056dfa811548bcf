"""The user's recent events as list columns: only earlier ones, the newest of them, the same in every run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from components.ingest.splitting import SPLIT_COLUMN, SPLITS, event_order, stable_hash, with_column
from configs.data import Data
from configs.features import LABEL, History

AFTER = "__after_"  # prefixes the columns that hold a user's history after the last event, on that event's rows
_ROWS = 16_384


def add_histories(batch: pa.RecordBatch, data: Data, histories: Sequence[History]) -> Iterator[pa.RecordBatch]:
    """Yield the rows of `batch`, which must hold all rows of its users, with two list columns for each history.

    The first holds the values of the user's newest events that are at least `delay` seconds, and at least one, older
    than the row, oldest first; with `data.ties: file` also of those of the same second that came before it. Events of
    a later split are left out, where a split does not follow the time: no row of train may know a label of test.
    The second, whose name begins with AFTER, holds the newest of all the user's events, on the rows of the user's last
    second; it is what the user's next request will be made with.
    """
    assert data.time is not None  # the config takes no sequences without it
    batch = batch.take(pa.array(event_order(batch, data)))
    users, times = stable_hash(batch.column(data.user)), batch.column(data.time).to_numpy()
    splits = batch.column(SPLIT_COLUMN).to_numpy()
    rows = batch.num_rows
    start = np.flatnonzero(np.append(True, users[1:] != users[:-1])[:rows])
    sizes = np.diff(np.append(start, rows))
    first, last = np.repeat(start, sizes), np.repeat(start + sizes, sizes)
    newest = times == times[last - 1]
    bounds = []
    for history in histories:
        events = _Events(_counted(batch, history), splits, users)
        in_order = data.ties == "file" and not history.delay
        seen = np.arange(rows) if in_order else _earlier(first, times, max(history.delay, 1))
        high = events.before(seen)
        low = np.maximum(events.before(first), high - history.length)
        end = events.before_of_all(last)
        after = np.where(newest, np.maximum(events.before_of_all(first), end - history.length), end)
        values = batch.column(history.column).take(pa.array(events.places))
        bounds.append((history.name, values, low, high))
        bounds.append((AFTER + history.name, values, after, end))
    for at in range(0, rows, _ROWS):
        part = batch.slice(at, _ROWS)
        for name, values, low, high in bounds:
            part = with_column(part, name, _ranges(values, low[at : at + _ROWS], high[at : at + _ROWS]))
        yield part


class _Events:
    """The events that count, as each row may know them: one after the other, and how many lie before a row.

    Where a user's splits do not follow one another in time, there is a list of events for each split, of that split
    and those before it. `places` are the rows of the events, list after list.
    """

    def __init__(self, counts: np.ndarray, splits: np.ndarray, users: np.ndarray):
        mixed = bool(((splits[1:] < splits[:-1]) & (users[1:] == users[:-1])).any())
        known = [counts & (splits <= split) for split in range(len(SPLITS))] if mixed else [counts]
        self._list = splits if mixed else np.zeros_like(splits)
        self.places = np.concatenate([np.flatnonzero(k) for k in known])
        ends = np.cumsum([k.sum() for k in known])
        self._before = np.stack(
            [np.append(0, np.cumsum(k)) + end - k.sum() for k, end in zip(known, ends, strict=True)]
        )

    def before(self, places: np.ndarray) -> np.ndarray:
        """Return for each row where, in its split's list, the events before `places[row]` end."""
        return self._before[self._list, places]

    def before_of_all(self, places: np.ndarray) -> np.ndarray:
        """Return the same in the list of all events."""
        return self._before[-1, places]


def _counted(batch: pa.RecordBatch, history: History) -> np.ndarray:
    """Return which rows are events of the history."""
    counts = batch.column(history.column).is_valid().to_numpy(zero_copy_only=False)
    if history.events == "all":
        return counts
    positive = batch.column(LABEL).to_numpy() > 0
    return counts & (positive if history.events == "positive" else ~positive)


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
