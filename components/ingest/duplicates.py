"""Rows that are in train and, cell for cell, in a split that models are judged by: what is remembered looks learnt."""

from __future__ import annotations

from collections.abc import Iterable

import apache_beam as beam
import numpy as np
import pyarrow as pa

from components.ingest import splitting
from components.ingest.splitting import SPLIT_COLUMN, SPLITS
from configs.data import Data

_Part = tuple[np.ndarray, np.ndarray]  # rows' hashes and splits


def straddling(rows, data: Data, made: set[str], shards: int):
    """Return counts, `eval.in_train` and `test.in_train`, of rows whose every cell is that of a row of train.

    `made` names the columns that are not of the logs. Only splits within users and by span can part equal rows: by time
    they have the same second, by hash the same hash.
    """
    label = "Straddling"
    if data.split.within_users:
        return rows | label >> beam.Map(_of_users, made)
    if data.split.by != "span":
        return rows.pipeline | label >> beam.Create([])
    return (
        rows
        | label >> beam.FlatMap(_by_hash, made, shards)
        | "EqualRows" >> beam.GroupByKey()
        | "CountStraddling" >> beam.MapTuple(_of_bucket)
    )


def _hashes(batch: pa.RecordBatch, made: set[str]) -> _Part:
    logged = batch.select([c for c in batch.schema.names if c not in made and c != SPLIT_COLUMN])
    return splitting.row_hash(logged), batch.column(SPLIT_COLUMN).to_numpy()


def _of_users(batch: pa.RecordBatch, made: set[str]) -> dict[str, int]:
    return _counts(*_hashes(batch, made))


def _by_hash(
    batch: pa.RecordBatch, made: set[str], buckets: int
) -> Iterable[tuple[int, tuple[np.ndarray, np.ndarray]]]:
    hashes, splits = _hashes(batch, made)
    keys = hashes % np.uint64(buckets)
    for key in np.unique(keys):
        yield int(key), (hashes[keys == key], splits[keys == key])


def _of_bucket(_: int, parts: Iterable[_Part]) -> dict[str, int]:
    hashes, splits = zip(*parts, strict=True)
    return _counts(np.concatenate(hashes), np.concatenate(splits))


def _counts(hashes: np.ndarray, splits: np.ndarray) -> dict[str, int]:
    train = hashes[splits == 0]
    return {
        f"{name}.in_train": int(np.isin(hashes[splits == index], train).sum())
        for index, name in enumerate(SPLITS)
        if index
    }
