"""Columns that give the label away: known only after the event, or made of the label itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.evaluator.gauc import grouped_auc
from configs.features import LABEL

SUSPICIOUS_AUC = 0.95
MOST_ROWS = 100_000
FEWEST = 20  # positives, and negatives, below which chance alone separates them


@dataclass(frozen=True)
class Leak:
    """How well a column alone tells positives from negatives, over all rows and among the rows of one user."""

    alone: float
    within_user: float

    @property
    def worst(self) -> float:
        """The larger of the two."""
        return max(self.alone, self.within_user)

    @property
    def suspicious(self) -> bool:
        """Whether the column all but decides the label."""
        return self.worst >= SUSPICIOUS_AUC

    def __str__(self) -> str:
        return f"AUC {self.alone:.3f} by itself, {self.within_user:.3f} within a user"


def measure(values: np.ndarray, labels: np.ndarray, users: np.ndarray) -> Leak | None:
    """Return how well a column separates the labels; None where too few rows of a kind could tell.

    `values` holds numbers (NaN where missing) or whole numbers that stand for texts (negative where missing), `labels`
    0 and 1, `users` whole numbers; arrays of shape [rows]. Numbers count in their order, up or down; texts by the share
    of positives among other rows with the same text, so that a text that is there once tells nothing.
    """
    positive = labels > 0.5
    if min(positive.sum(), (~positive).sum()) < FEWEST:
        return None
    if values.dtype.kind == "f":
        found = [_order(values, positive, users)]
        few = np.unique(values[~np.isnan(values)])
        if len(few) <= 1000:
            codes = np.where(np.isnan(values), len(few), np.searchsorted(few, values))
            found.append(_separation(_share_of_others(codes.astype(np.int64), positive), positive, users))
        return max(found, key=lambda leak: leak.worst)
    return _separation(_share_of_others(values.astype(np.int64) + 1, positive), positive, users)


def of_columns(batches: Iterable[pa.RecordBatch], user: str, columns: Sequence[str]) -> dict[str, Leak]:
    """Return how well each column tells the labels of the first MOST_ROWS examples, where enough rows could tell.

    `batches` are of lists, as Examples are; of several values the first counts.
    """
    taken: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        taken.append(batch)
        rows += batch.num_rows
        if rows >= MOST_ROWS:
            break
    if not taken:
        return {}

    def first(name: str) -> pa.Array:
        parts = [_first(batch.column(name)) for batch in taken if name in batch.schema.names]
        kinds = {part.type for part in parts if not pa.types.is_null(part.type)}
        if len(parts) < len(taken) or len(kinds) != 1:
            return pa.nulls(rows)
        (kind,) = kinds
        return pa.concat_arrays([part.cast(kind) for part in parts])

    labels = first(LABEL).to_numpy(zero_copy_only=False).astype(np.float64)
    users = _codes(first(user))
    found = {}
    for name in columns:
        values = first(name)
        if pa.types.is_null(values.type):
            continue
        floating = pa.types.is_floating(values.type)
        leak = measure(
            values.to_numpy(zero_copy_only=False).astype(np.float64) if floating else _codes(values), labels, users
        )
        if leak is not None:
            found[name] = leak
    return found


def _first(column: pa.Array) -> pa.Array:
    if pa.types.is_null(column.type):
        return column
    values = column.flatten()
    offsets = pc.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
    starts = np.cumsum(offsets) - offsets
    return values.take(pa.array(np.where(offsets > 0, starts, 0), mask=offsets == 0))


def _codes(column: pa.Array) -> np.ndarray:
    encoded = column.dictionary_encode().indices
    return encoded.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)


def _order(values: np.ndarray, positive: np.ndarray, users: np.ndarray) -> Leak:
    """By the values' own order; a missing value is on the side that its rows' labels are on."""
    missing = np.isnan(values)
    if not missing.any():
        return _separation(values, positive, users)
    low, high = (np.where(missing, side, values) for side in (-np.inf, np.inf))
    return max((_separation(v, positive, users) for v in (low, high)), key=lambda leak: leak.worst)


def _separation(scores: np.ndarray, positive: np.ndarray, users: np.ndarray) -> Leak:
    alone = grouped_auc(np.zeros(len(scores), np.int64), positive, scores)
    within = grouped_auc(users, positive, scores)
    mixed = _rows_that_compare(users, positive)
    if not np.isfinite(within) or mixed < 2 * FEWEST:
        within = 0.5
    return Leak(max(alone, 1 - alone), max(within, 1 - within))


def _rows_that_compare(users: np.ndarray, positive: np.ndarray) -> int:
    """Return how many rows are of users with both labels."""
    _, user = np.unique(users, return_inverse=True)
    rows, positives = np.bincount(user), np.bincount(user, positive)
    return int(rows[(positives > 0) & (positives < rows)].sum())


def _share_of_others(codes: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Return each row's share of positives among rows of its value in the other half, shrunk to the mean.

    Halves by turn, within each value, so that both know it.
    """
    order = np.lexsort((np.arange(len(codes)) * 2654435761 % 4294967296, codes))
    starts = np.append(True, codes[order][1:] != codes[order][:-1])
    first = np.maximum.accumulate(np.where(starts, np.arange(len(codes)), 0))
    half = np.empty(len(codes), np.int64)
    half[order] = (np.arange(len(codes)) - first) % 2
    mean, size = positive.mean(), int(codes.max()) + 1
    shares = np.empty(len(codes))
    for own in (0, 1):
        other = half != own
        rows = np.bincount(codes[other], minlength=size)
        positives = np.bincount(codes[other], positive[other], minlength=size)
        shares[half == own] = ((positives + mean) / (rows + 1))[codes[half == own]]
    return shares
