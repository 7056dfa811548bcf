"""Raw columns as tensors, from every side they can come in: parsed Examples, or named columns of a request.

Both end as the same sparse tensors that TFT analyzed, in which a missing value simply is not there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import tensorflow as tf

from configs.features import MISSING_TIME, RawColumn

MISSING_VALUES = {tf.string: "", tf.float32: float("nan"), tf.int64: MISSING_TIME}
_DTYPES = {"string": tf.string, "float": tf.float32, "int64": tf.int64}


def raw_feature_spec(columns: Iterable[RawColumn]) -> dict[str, tf.io.VarLenFeature]:
    """Return the parsing spec of raw Examples: each column holds any number of values, none when missing."""
    return {c.name: tf.io.VarLenFeature(_DTYPES[c.type]) for c in columns}


def named_input_specs(columns: Iterable[RawColumn]) -> dict[str, tf.TensorSpec]:
    """Return the inputs of a request of named columns: each of shape [batch], or [1] to stand for all rows.

    Lists are of shape [batch, values] or [1, values], filled up with "".
    """
    return {
        c.name: tf.TensorSpec([None] if c.length is None else [None, None], _DTYPES[c.type], c.name) for c in columns
    }


def default_values(columns: Iterable[RawColumn]) -> dict[str, tf.Tensor]:
    """Return what stands for each column that a request leaves out, of shape [1], for a list [1, 1]."""
    return {c.name: tf.constant([c.default] if c.length is None else [[c.default]], _DTYPES[c.type]) for c in columns}


def sparse_from_named(
    inputs: Mapping[str, tf.Tensor], columns: Mapping[str, RawColumn] | None = None
) -> dict[str, tf.SparseTensor]:
    """Turn named columns into sparse columns of equal batch size; columns of one row are repeated.

    Times come as the logs have them and become seconds, as `columns` say; without it all are in seconds.

    Raises InvalidArgumentError, from the graph, where columns differ in length.
    """
    batch = tf.reduce_max(tf.stack([tf.shape(x)[0] for x in inputs.values()]))
    sparse = {}
    for name, values in inputs.items():
        per_second = columns[name].per_second if columns is not None and name in columns else 1
        if per_second > 1:
            values = tf.where(is_given(values), tf.math.floordiv(values, per_second), values)
        values = tf.broadcast_to(values, tf.concat([[batch], tf.shape(values)[1:]], axis=0))
        if values.shape.rank == 2:
            sparse[name] = tf.ragged.boolean_mask(values, is_given(values)).to_sparse()
        else:
            sparse[name] = _sparse_column(values, is_given(values))
    return sparse


def is_given(values: tf.Tensor) -> tf.Tensor:
    """Tell values from the marks of missing ones: the empty string, NaN, and the smallest int64."""
    if values.dtype == tf.string:
        return tf.not_equal(values, "")
    if values.dtype == tf.int64:
        return tf.not_equal(values, tf.constant(MISSING_TIME, tf.int64))
    return tf.logical_not(tf.math.is_nan(values))


def _sparse_column(values: tf.Tensor, given: tf.Tensor) -> tf.SparseTensor:
    rows = tf.where(given)
    indices = tf.concat([rows, tf.zeros_like(rows)], axis=1)
    shape = tf.stack([tf.shape(values, tf.int64)[0], tf.constant(1, tf.int64)])
    return tf.SparseTensor(indices, tf.boolean_mask(values, given), shape)


def first_value(column: tf.SparseTensor) -> tf.Tensor:
    """Return each row's first value, of shape [batch]; the mark of a missing one where there is none."""
    missing = MISSING_VALUES[column.dtype]
    dense = tf.sparse.to_dense(column, default_value=missing)
    return tf.pad(dense, [[0, 0], [0, 1]], constant_values=missing)[:, 0]
