"""Hiding known ids in training, so that unknown ones are learnt too."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
import tf_keras as keras

from transforms.transformed import PADDING, TransformedFeature


class HideIds(keras.layers.Layer):
    """In training, replaces a share of the ids of single users and items by an unknown one, row by row.

    The embedding of unknown ids, which nothing else trains, so learns what to say of anyone. What gives a hidden id
    away is hidden with it: a cross of it falls into any bucket, as that of an unknown id does. Of a sequence of ids the
    same share of events becomes unknown.
    """

    def __init__(self, features: Sequence[TransformedFeature], share: float, **kwargs):
        super().__init__(**kwargs)
        self._ids = [f for f in features if f.hideable and f.oov]
        self._crosses = [f for f in features if f.crossed and f.ids]
        self._sequences = [f for f in features if f.sequence_of and f.ids and f.oov]
        self._share = share

    def call(self, inputs, training=None):
        """Return the inputs, some ids replaced."""
        if not training or not self._share:
            return inputs
        outputs = dict(inputs)
        hidden: dict[str, tf.Tensor] = {}
        for f in self._ids:
            ids = inputs[f.name]
            hidden[f.name] = self._drawn(tf.shape(ids)[:1])
            rows = hidden[f.name][:, tf.newaxis] if f.multivalued else hidden[f.name]
            outputs[f.name] = tf.where(rows, _unknown(f, ids), ids)
        for f in self._crosses:
            ids = inputs[f.name]
            masks = [hidden.setdefault(part, self._drawn(tf.shape(ids))) for part in f.ids]
            outputs[f.name] = tf.where(
                tf.reduce_any(tf.stack(masks), axis=0), tf.random.uniform(tf.shape(ids), 0, f.size, tf.int64), ids
            )
        for f in self._sequences:
            ids = inputs[f.name]
            chosen = self._drawn(tf.shape(ids)) & tf.not_equal(ids, PADDING)
            outputs[f.name] = tf.where(chosen, _unknown(f, ids), ids)
        return outputs

    def _drawn(self, shape: tf.Tensor) -> tf.Tensor:
        return tf.random.uniform(shape) < self._share


def _unknown(f: TransformedFeature, ids: tf.Tensor) -> tf.Tensor:
    low, high = f.oov  # type: ignore[misc]
    return tf.random.uniform(tf.shape(ids), low, high, tf.int64)
