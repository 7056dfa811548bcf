"""Which split each row belongs to: by time, by each user's own time, or by a stable hash."""

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

_MAX_TIMES = 1 << 20


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
    return combine_hashes([stable_hash(column) for column in batch.columns])


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
    # The salt keeps the split apart from every other use of the same hash.
    salt = np.full(batch.num_rows, 0x5EED, np.uint64)
    hashed = combine_hashes([salt, *(stable_hash(batch.column(c)) for c in columns)])
    return (hashed >> np.uint64(11)) * 2.0**-53


def assign_by_span(batch: pa.RecordBatch, newest: bool, columns: Iterable[str], split: Split) -> pa.RecordBatch:
    """Add SPLIT_COLUMN from the span that the rows came with: the newest is eval and test by hash, the rest train."""
    if not newest:
        return with_column(batch, SPLIT_COLUMN, np.zeros(batch.num_rows, np.int8))
    test = _hashed_share(batch, columns) >= split.eval / (split.eval + split.test)
    return with_column(batch, SPLIT_COLUMN, (1 + test).astype(np.int8))


def assign_by_user_time(batch: pa.RecordBatch, data: Data) -> pa.RecordBatch:
    """Add SPLIT_COLUMN from each row's rank among its user's rows; `batch` must hold all rows of its users.

    A user with n rows keeps ceil(n * train share) of them for training, so one with a single row is in train.
    """
    users = stable_hash(batch.column(data.user))
    order = np.lexsort((row_hash(batch), batch.column(data.time).to_numpy(), users))
    sorted_users = users[order]
    first = np.flatnonzero(np.append(True, sorted_users[1:] != sorted_users[:-1])[: len(users)])
    sizes = np.diff(np.append(first, len(users)))
    rank = np.arange(len(users)) - np.repeat(first, sizes)
    split = np.zeros(len(users), np.int8)
    for share in (1 - data.split.eval - data.split.test, 1 - data.split.test):
        split += rank >= np.repeat(np.ceil(sizes * share - 1e-9), sizes)
    unsorted = np.empty_like(split)
    unsorted[order] = split
    return with_column(batch, SPLIT_COLUMN, unsorted)


def with_column(batch: pa.RecordBatch, name: str, values: np.ndarray | pa.Array) -> pa.RecordBatch:
    """Return `batch` with one more column."""
    values = values if isinstance(values, pa.Array) else pa.array(values)
    return pa.RecordBatch.from_arrays([*batch.columns, values], names=[*batch.schema.names, name])
