"""Embedding tables: where a feature's rows lie, which of them a value looks up, and the vector they make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from transforms.transformed import PADDING, TransformedFeature

EMPTY_ROW = 0  # row of no feature: what fills the rows of several-valued features looks it up


@dataclass(frozen=True)
class Table:
    """The rows of one feature in the variable that holds all tables of its dimension."""

    variable: tf.Variable
    start: int
    rows: int

    def numpy(self) -> np.ndarray:
        """Return the rows, [rows, dim]."""
        return tf.convert_to_tensor(self.variable)[self.start : self.start + self.rows].numpy()


@tf.function(autograph=False)
def _drawn(seed: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    return tf.random.stateless_normal(shape, seed, stddev=0.01)


def small_normal(shape, dtype=None, partition_shape=None, **kwargs) -> tf.Tensor:
    """Draw small normal values, in a graph: outside one the largest tables would be held three times meanwhile."""
    seed = tf.random.uniform([2], 0, 2**31 - 1, tf.int32)
    return _drawn(seed, tf.constant(partition_shape or shape, tf.int64))


def laid_out(features: Sequence[TransformedFeature], known: set[str]) -> tuple[dict[str, tuple[int, int]], int]:
    """Lay out the tables of features of one dimension, one after the other: first row and rows by feature, and the end.

    A feature that shares a table gets the place of the one it shares, where that one is among the `known`.
    """
    starts: dict[str, tuple[int, int]] = {}
    end = EMPTY_ROW + 1
    for f in features:
        table = f.table if f.table in known else f.name
        if table not in starts:
            starts[table] = end, f.rows
            end += f.rows
    return {f.name: starts[f.table if f.table in known else f.name] for f in features}, end


def row_ids(f: TransformedFeature, value: tf.Tensor, start: int) -> tf.Tensor:
    """Return the rows that a feature's values look up in a table from row `start` on, [batch, lookups]."""
    if not f.size:
        return tf.fill([tf.shape(value)[0], 1], tf.constant(start, tf.int64))
    if f.multivalued:
        return tf.where(value == PADDING, tf.constant(EMPTY_ROW, tf.int64), value + start)
    if f.quotient_remainder:
        n = f.quotient_remainder
        quotients = f.rows - n
        return tf.stack([start + value // n, start + quotients + value % n], axis=1)
    return value[:, tf.newaxis] + start


def composed(f: TransformedFeature, value: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Make one vector of the rows that a feature's values looked up, [batch, lookups, dim] -> [batch, 1, dim]."""
    if not f.size:
        return rows * value[:, tf.newaxis, tf.newaxis]
    if f.multivalued:
        return _pooled(rows, value, f.pool)
    if f.quotient_remainder:
        # Around one, so that a fresh quotient row alone decides the size of the product.
        return rows[:, :1] * (1.0 + rows[:, 1:])
    return rows


def _pooled(rows: tf.Tensor, ids: tf.Tensor, pool: str) -> tf.Tensor:
    present = tf.cast(tf.not_equal(ids, PADDING), rows.dtype)
    summed = tf.matmul(present[:, tf.newaxis, :], rows)
    if pool == "sum":
        return summed
    return summed / tf.maximum(tf.reduce_sum(present, axis=1), 1.0)[:, tf.newaxis, tf.newaxis]
