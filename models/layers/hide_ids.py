"""Hiding known ids in training, so that unknown ones are learnt too."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
import tf_keras as keras

from transforms.transformed import TransformedFeature


class HideIds(keras.layers.Layer):
    """In training, replaces a share of the ids of single users and items by an unknown one, row by row.

    The embedding of unknown ids, which nothing else trains, so learns what to say of anyone.
    """

    def __init__(self, features: Sequence[TransformedFeature], share: float, **kwargs):
        super().__init__(**kwargs)
        self._hidden = [f for f in features if f.hideable and f.oov and not f.multivalued]
        self._hashed_twice = [f for f in features if f.hideable and f.oov == (0, 1) and f.multivalued]
        self._share = share

    def call(self, inputs, training=None):
        """Return the inputs, some ids replaced."""
        if not training or not self._share:
            return inputs
        outputs = dict(inputs)
        for f in self._hidden:
            ids = inputs[f.name]
            low, high = f.oov  # type: ignore[misc]
            unknown = tf.random.uniform(tf.shape(ids), low, high, tf.int64)
            outputs[f.name] = tf.where(tf.random.uniform(tf.shape(ids)) < self._share, unknown, ids)
        for f in self._hashed_twice:
            ids = inputs[f.name]
            hidden = tf.random.uniform(tf.shape(ids)[:1]) < self._share
            outputs[f.name] = tf.where(hidden[:, tf.newaxis], tf.zeros_like(ids), ids)
        return outputs
