"""Text to ids: 0 is a missing value, those of a vocabulary or of hash buckets follow from 1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import tensorflow as tf

from configs.features import Text
from transforms.kind import Batch, Inputs, Kind, TransformedFeature
from transforms.raw import first_value, is_given

T = TypeVar("T", bound=Text)


class TextKind(Kind[T]):
    """What the kinds of text share. They say which values have ids, and which id a value has."""

    def analyze(self, name: str, table: T, values: tf.Tensor, batch: Batch) -> None:
        """Learn which values have been seen often enough to have rows of their own."""
        raise NotImplementedError

    def lookup(self, name: str, table: T, text: Any, batch: Batch) -> Any:
        """Return ids from 0, -1 for what has no row, of a dense or sparse tensor of text."""
        raise NotImplementedError

    def transform(self, name: str, feature: T, batch: Batch) -> tf.Tensor | tf.SparseTensor:
        """Return the ids as the table declares them, the feature's own or the one that it shares."""
        own, column = feature.share is None, batch.inputs[feature.column or name]
        table_name: str = feature.share or name
        table: Any = feature.table_of(batch.features)
        if not own:
            batch.transformed(table_name)  # its vocabulary comes first
        if feature.separator is None:
            text = first_value(column)
            if feature.default is not None:
                text = tf.where(is_given(text), text, feature.default)
            given = is_given(text)
            if own:
                # Analyzed as sparse values, so that "missing" never becomes a word of the vocabulary.
                self.analyze(name, table, tf.boolean_mask(text, given), batch)
            ids = self.lookup(table_name, table, text, batch)
            return tf.where(given if ids.shape.rank == 1 else given[:, tf.newaxis], ids + 1, tf.zeros_like(ids))
        values = split_values(column, feature.separator)
        if feature.default is not None:
            values, _ = tf.sparse.fill_empty_rows(values, feature.default)
        if own:
            self.analyze(name, table, values.values, batch)
        ids = self.lookup(table_name, table, values, batch)
        shifted = tf.SparseTensor(ids.indices, ids.values + 1, ids.dense_shape)
        filled, _ = tf.sparse.fill_empty_rows(shifted, tf.constant(0, tf.int64))
        return filled

    def token(self, name: str, feature: T, batch: Batch) -> tf.Tensor:
        """Return the text itself."""
        text = first_value(batch.inputs[feature.column or name])
        return text if feature.default is None else tf.where(is_given(text), text, feature.default)


def split_values(column: tf.SparseTensor, separator: str) -> tf.SparseTensor:
    """Split text cells into their non-empty values; values that are split already stay as they are."""
    parts = tf.strings.split(column.values, separator)
    rows = tf.gather(column.indices[:, 0], parts.value_rowids())
    given = tf.not_equal(parts.flat_values, "")
    values = tf.RaggedTensor.from_value_rowids(
        tf.boolean_mask(parts.flat_values, given), tf.boolean_mask(rows, given), column.dense_shape[0]
    )
    sparse = values.to_sparse()
    # Room for one value even where no row has any: what fills empty rows must lie inside.
    shape = tf.maximum(sparse.dense_shape, [0, 1])
    return tf.SparseTensor(sparse.indices, sparse.values, shape)


def on_values(function: Callable[[tf.Tensor], tf.Tensor], text: Any) -> Any:
    """Apply a function of values to a dense tensor, or to the values of a sparse one."""
    if isinstance(text, tf.SparseTensor):
        return tf.SparseTensor(text.indices, function(text.values), text.dense_shape)
    return function(text)


def described(
    name: str, feature: Text, table: Text, size: int, oov: tuple[int, int], inputs: Inputs
) -> TransformedFeature:
    """Return the model's input of a text feature that is looked up in `table`, a table of `size` ids."""
    identifies = (feature.column or name) in inputs.id_columns
    return TransformedFeature(
        name,
        feature.of,
        size,
        dim=table.dim,
        multivalued=feature.separator is not None or table.rows_a_value > 1,
        pool=feature.pool,
        oov=oov,
        hideable=identifies,
        table=feature.share or "",
        quotient_remainder=table.quotient_remainder,
        cold=feature.cold,
        ids=(name,) if identifies else (),
    )
