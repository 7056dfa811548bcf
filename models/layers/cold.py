"""Ids that training never met: which they are, and the vectors that `cold` of a feature gives them."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from models.layers.tables import Table
from transforms.transformed import TransformedFeature


def replaced(f: TransformedFeature) -> bool:
    """Return whether unknown ids of a feature get another vector than the row they look up."""
    return f.cold in ("zero", "content") and f.oov is not None


def is_cold(f: TransformedFeature, ids: tf.Tensor) -> tf.Tensor:
    """Return which ids are unknown, of the shape of `ids`."""
    low, high = f.oov  # type: ignore[misc]
    return tf.logical_and(ids >= low, ids < high)


def content_of(f: TransformedFeature, features: Sequence[TransformedFeature]) -> list[TransformedFeature]:
    """Return the features that a cold id's vector is made of. Raises ValueError where there are none."""
    found = [g for g in features if g.of == f.of and g.cold != "content" and not g.gives_id_away]
    if not found:
        raise ValueError(f"features.{f.name}.cold: content needs another feature of {f.of}")
    return found


def give_mean(f: TransformedFeature, table: Table) -> None:
    """Give the unknown ids of a feature the mean of the known ids' rows, where `cold: mean` asks for it."""
    if f.cold != "mean" or not f.oov:
        return
    low, high = f.oov
    rows = tf.convert_to_tensor(table.variable)[table.start : table.start + table.rows]
    known = tf.concat([rows[1:low], rows[high:]], axis=0)
    if known.shape[0]:
        mean = tf.repeat(tf.reduce_mean(known, axis=0, keepdims=True), high - low, axis=0)
        ids = tf.range(table.start + low, table.start + high)
        table.variable.scatter_update(tf.IndexedSlices(mean, ids))
