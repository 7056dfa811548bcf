"""Arrow batches on their way through Beam: cut by keys, put together again, written under a name that is whole."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.io.filesystems import FileSystems

from components.ingest import splitting


class TogetherByUser(beam.PTransform):
    """Batches that each hold all rows of their users."""

    def __init__(self, user: str, buckets: int):
        super().__init__()
        self._user = user
        self._buckets = buckets

    def expand(self, rows):
        """Return the batches, one for each bucket of users."""
        return (
            rows
            | beam.FlatMap(by_bucket, self._user, self._buckets)
            | beam.GroupByKey()
            | "Join" >> beam.MapTuple(lambda _, batches: concat(batches))
        )


def by_bucket(batch: pa.RecordBatch, column: str, buckets: int) -> Iterable[tuple[int, pa.RecordBatch]]:
    """Cut a batch so that equal values of a column land in the same bucket."""
    yield from cut(batch, (splitting.stable_hash(batch.column(column)) % np.uint64(buckets)).astype(np.int64))


def cut(batch: pa.RecordBatch, keys: np.ndarray) -> Iterable[tuple[int, pa.RecordBatch]]:
    """Cut a batch by its rows' keys, each key once."""
    order = np.argsort(keys, kind="stable")
    found, starts = np.unique(keys[order], return_index=True)
    ends = np.append(starts[1:], len(keys))
    for key, start, end in zip(found, starts, ends, strict=True):
        yield int(key), batch.take(pa.array(order[start:end]))


def concat(batches: Iterable[pa.RecordBatch]) -> pa.RecordBatch:
    """Join batches of the same columns."""
    # One batch or an error: Arrow starts another where one would hold over 2 GB of text.
    (batch,) = pa.Table.from_batches(list(batches)).combine_chunks().to_batches()
    return batch


class committed:  # noqa: N801
    """A name to write under; the file takes its real name only when it is whole."""

    def __init__(self, path: str):
        self._path = path
        self._temporary = f"{os.path.dirname(path)}/.{uuid.uuid4().hex}.{os.path.basename(path)}"

    def __enter__(self) -> str:
        folder = os.path.dirname(self._path)
        try:
            if not FileSystems.exists(folder):
                FileSystems.mkdirs(folder)
        except OSError:
            if not FileSystems.exists(folder):  # else another worker was quicker
                raise
        return self._temporary

    def __exit__(self, kind, error, trace) -> None:
        if kind is None:
            FileSystems.rename([self._temporary], [self._path])


def as_lists(column: pa.Array) -> pa.Array:
    """Return a column of lists as tf.train.Example has them: a missing cell is an empty list."""
    if pa.types.is_string(column.type):
        column = column.cast(pa.binary())
    if pa.types.is_list(column.type):
        return column.cast(pa.list_(pa.binary()))
    offsets = np.append(0, np.cumsum(column.is_valid().to_numpy(zero_copy_only=False)))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), column.drop_null())
