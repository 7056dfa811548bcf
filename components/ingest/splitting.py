"""Which split each row belongs to: by time, within each user's own rows, or by a stable hash."""

from __future__ import annotations

from collections.abc import Iterable

import apache_beam as beam
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from configs.data import Data, Split

SPLITS = ("train", "eval", "test")
SPLIT_COLUMN = "__split"  # index into SPLITS
ROW_HASH_COLUMN = "__row_hash"
POSITION_COLUMN = "__position"  # the row's place in the logs; there only with `data.ties: file`

_MAX_TIMES = 1 << 20
_FEW_ROWS = 2  # a user's rows are divided by rounding where each share of them is this many, else by chance


def stable_hash(column: pa.Array) -> np.ndarray:
    """Return a 64-bit hash of each text, number or list of text, the same on every machine and in every run."""
    if pa.types.is_list(column.type):
        column = pc.binary_join(column, "\x1f")
    if column.null_count:
        column = pc.fill_null(column, "" if pa.types.is_string(column.type) else 0)
    if pa.types.is_string(column.type):
        encoded = column.dictionary_encode()
        distinct = encoded.dictionary.to_numpy(zero_copy_only=False)
        return pd.util.hash_array(distinct, categorize=False)[encoded.indices.to_numpy()]
    return pd.util.hash_array(column.to_numpy(zero_copy_only=False))


def row_hash(batch: pa.RecordBatch) -> np.ndarray:
    """Return a hash of all cells of each row: an order of rows that no reader's timing can change."""
    names = [name for name in batch.schema.names if name != POSITION_COLUMN]
    return combine_hashes([stable_hash(batch.column(name)) for name in names])


def event_order(batch: pa.RecordBatch, data: Data) -> np.ndarray:
    """Return the order of rows by hash of their user, then time; ties as `data.ties` says, the same in every run."""
    keys = [batch.column(POSITION_COLUMN).to_numpy() if data.ties == "file" else row_hash(batch)]
    if data.time is not None:
        keys.append(batch.column(data.time).to_numpy())
    return np.lexsort([*keys, stable_hash(batch.column(data.user))])


def combine_hashes(hashes: list[np.ndarray]) -> np.ndarray:
    """Return one hash of several columns' hashes, in order (boost::hash_combine's mixing in 64 bits)."""
    mixed = np.zeros_like(hashes[0])
    with np.errstate(over="ignore"):
        for h in hashes:
            mixed ^= h + np.uint64(0x9E3779B97F4A7C15) + (mixed << np.uint64(12)) + (mixed >> np.uint64(4))
    return mixed


class TimeCounts(beam.CombineFn):
    """Counts of events by time, coarsened by powers of two where there are over a million different times.

    The accumulator is (shift, times >> shift sorted, counts); the coarseness depends on the times alone and not on
    the order in which they arrive, so every run cuts at the same second.
    """

    def create_accumulator(self):
        """Return no counts."""
        return 0, np.zeros(0, np.int64), np.zeros(0, np.int64)

    def add_input(self, accumulator, times: np.ndarray):
        """Count an array of times."""
        shift, known, counts = accumulator
        new, new_counts = np.unique(times >> shift, return_counts=True)
        return _merge_counts([(shift, known, counts), (shift, new, new_counts)])

    def merge_accumulators(self, accumulators):
        """Add counts up."""
        return _merge_counts(list(accumulators))

    def extract_output(self, accumulator):
        """Return (times, counts), sorted by time."""
        shift, times, counts = accumulator
        return times << shift, counts


def _merge_counts(parts):
    shift = max((p[0] for p in parts), default=0)
    while True:
        times = np.concatenate([t >> (shift - s) for s, t, _ in parts])
        counts = np.concatenate([c for _, _, c in parts])
        unique, inverse = np.unique(times, return_inverse=True)
        if len(unique) <= _MAX_TIMES:
            return shift, unique, np.bincount(inverse, counts, len(unique)).astype(np.int64)
        shift += 1


def time_cuts(counts: tuple[np.ndarray, np.ndarray], split: Split) -> tuple[int, int]:
    """Return the times from which rows are eval and test, so that the shares are met as nearly as ties allow."""
    times, sizes = counts
    if not len(times):
        return 0, 0
    before = np.append(0, np.cumsum(sizes))[:-1] / sizes.sum()
    return tuple(  # type: ignore[return-value]
        int(times[min(int(np.searchsorted(before, share - 1e-12)), len(times) - 1)])
        for share in (1 - split.eval - split.test, 1 - split.test)
    )


def assign_by_time(batch: pa.RecordBatch, time: str, cuts: tuple[int, int]) -> pa.RecordBatch:
    """Add SPLIT_COLUMN from the event time."""
    times = batch.column(time).to_numpy()
    return with_column(batch, SPLIT_COLUMN, (times >= cuts[0]).astype(np.int8) + (times >= cuts[1]).astype(np.int8))


def assign_by_hash(batch: pa.RecordBatch, columns: Iterable[str], split: Split) -> pa.RecordBatch:
    """Add SPLIT_COLUMN from the hash of some columns: equal values always land in the same split."""
    share = _hashed_share(batch, columns)
    bounds = (1 - split.eval - split.test, 1 - split.test)
    return with_column(batch, SPLIT_COLUMN, (share >= bounds[0]).astype(np.int8) + (share >= bounds[1]).astype(np.int8))


def _hashed_share(batch: pa.RecordBatch, columns: Iterable[str]) -> np.ndarray:
    """Return a number in [0, 1) for each row, drawn from the values of some columns."""
    return _unit([stable_hash(batch.column(c)) for c in columns])


def _unit(hashes: list[np.ndarray]) -> np.ndarray:
    """Return numbers in [0, 1) drawn by hashes."""
    # The salt keeps the split apart from every other use of the same hash.
    salt = np.full(len(hashes[0]), 0x5EED, np.uint64)
    return (combine_hashes([salt, *hashes]) >> np.uint64(11)) * 2.0**-53


def assign_by_span(batch: pa.RecordBatch, newest: bool, columns: Iterable[str], split: Split) -> pa.RecordBatch:
    """Add SPLIT_COLUMN from the span that the rows came with: the newest is eval and test by hash, the rest train."""
    if not newest:
        return with_column(batch, SPLIT_COLUMN, np.zeros(batch.num_rows, np.int8))
    test = _hashed_share(batch, columns) >= split.eval / (split.eval + split.test)
    return with_column(batch, SPLIT_COLUMN, (1 + test).astype(np.int8))


def assign_within_users(batch: pa.RecordBatch, data: Data) -> pa.RecordBatch:
    """Add SPLIT_COLUMN from each row's rank among its user's rows; `batch` must hold all rows of its users.

    By time the rank is that of the event. By `user_share` it is that of the item, in an order drawn for each user, so
    that all rows of a user with one item are in the same split.
    """
    users = stable_hash(batch.column(data.user))
    if data.split.by == "user_share":
        pairs = _unit([users, stable_hash(batch.column(data.item))])
        order = np.lexsort((pairs, users))
        new = np.append(True, pairs[order][1:] != pairs[order][:-1])[: len(users)]
    else:
        order = event_order(batch, data)
        new = np.ones(len(users), bool)
    sorted_users = users[order]
    starts = np.append(True, sorted_users[1:] != sorted_users[:-1])[: len(users)]
    first = np.flatnonzero(starts)
    places = np.cumsum(new | starts) - 1
    rank = places - np.repeat(places[first], np.diff(np.append(first, len(users))))
    last = np.append(first[1:], len(users)) - 1
    split = np.zeros(len(users), np.int8)
    for bound in _bounds(rank[last] + 1, _unit([sorted_users[first]]), data.split):
        split += rank >= np.repeat(bound, np.diff(np.append(first, len(users))))
    unsorted = np.empty_like(split)
    unsorted[order] = split
    return with_column(batch, SPLIT_COLUMN, unsorted)


def _bounds(sizes: np.ndarray, draws: np.ndarray, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Return for users of `sizes` rows the ranks from which rows are eval, and test.

    `draws` holds a number in [0, 1) for each user. Where a share of a user's rows is less than _FEW_ROWS, rounding
    would give every such user too much or nothing; moved by the draw before it is rounded down, each bound is right on
    average over users. A user's first row is for training.
    """
    if split.by == "leave_one_out" or split.at_least:
        fewest = split.at_least or 1
        share = (0.0, 0.0) if split.by == "leave_one_out" else (split.eval, split.test)
        held = [np.maximum(np.floor(sizes * s + 1e-9), fewest).astype(np.int64) for s in share]
        test = np.where(sizes > held[1], held[1], 0)
        evaluated = np.where(sizes > held[0] + held[1], held[0], 0)
        return sizes - test - evaluated, sizes - test
    few = sizes * min(split.eval, split.test) < _FEW_ROWS - 1e-9
    if split.by == "user_share":
        few |= True  # no rule of before to keep
    cuts = [sizes * share for share in (1 - split.eval - split.test, 1 - split.test)]
    drawn = [np.maximum(np.floor(cut + draws + 1e-9), 1) for cut in cuts]
    train, until_test = (np.where(few, d, np.ceil(c - 1e-9)).astype(np.int64) for d, c in zip(drawn, cuts, strict=True))
    return train, until_test


def with_column(batch: pa.RecordBatch, name: str, values: np.ndarray | pa.Array) -> pa.RecordBatch:
    """Return `batch` with one more column."""
    values = values if isinstance(values, pa.Array) else pa.array(values)
    return pa.RecordBatch.from_arrays([*batch.columns, values], names=[*batch.schema.names, name])
