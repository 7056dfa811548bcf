"""Blocks of self-attention over users' events (Vaswani et al. 2017), as SASRec and BERT4Rec stack them."""

from __future__ import annotations

import tensorflow as tf
import tf_keras as keras

from models.layers.deep import Dropout

_NEVER = -1e9


class Encoder(keras.layers.Layer):
    """[vectors [rows, events, dim], places [rows, events], open [rows, events, events]] -> states [rows, events, dim].

    `open` says which events (last axis) each event may look at. Places have vectors of their own, learnt. Blocks
    normalize what comes in, not what goes out, which trains without a warm-up (Xiong et al. 2020).
    """

    def __init__(
        self, places: int, dim: int, blocks: int, heads: int, dropout: float, activation: str = "relu", **kwargs
    ):
        super().__init__(**kwargs)
        self._scale = dim**0.5
        self._places = keras.layers.Embedding(places, dim, embeddings_initializer=_small())
        self._dropout = Dropout(dropout)
        self._blocks = [Block(dim, heads, dropout, activation) for _ in range(blocks)]
        self._normalize = keras.layers.LayerNormalization(epsilon=1e-6)

    def call(self, inputs, training=None) -> tf.Tensor:
        """Return the states."""
        vectors, places, open_ = inputs
        states = self._dropout(vectors * self._scale + self._places(places), training=training)
        shut = tf.where(open_, 0.0, _NEVER)[:, tf.newaxis]
        for block in self._blocks:
            states = block([states, shut], training=training)
        return self._normalize(states)


class Block(keras.layers.Layer):
    """Attention with heads and a network at each event, each added to what came in."""

    def __init__(self, dim: int, heads: int, dropout: float, activation: str, **kwargs):
        super().__init__(**kwargs)
        self._heads, self._width = heads, dim // heads
        self._before = [keras.layers.LayerNormalization(epsilon=1e-6) for _ in range(2)]
        self._project = keras.layers.Dense(3 * dim)
        self._join = keras.layers.Dense(dim)
        self._network = [keras.layers.Dense(dim, activation=activation), keras.layers.Dense(dim)]
        self._dropouts = [Dropout(dropout) for _ in range(3)]

    def call(self, inputs, training=None) -> tf.Tensor:
        """Return the states."""
        states, shut = inputs
        rows, events = tf.shape(states)[0], tf.shape(states)[1]
        projected = self._project(self._before[0](states))
        apart = tf.reshape(projected, [rows, events, 3, self._heads, self._width])
        query, key, value = tf.unstack(tf.transpose(apart, [2, 0, 3, 1, 4]))
        weights = tf.matmul(query * self._width**-0.5, key, transpose_b=True) + shut
        weights = self._dropouts[0](tf.nn.softmax(weights), training=training)
        seen = tf.reshape(tf.transpose(tf.matmul(weights, value), [0, 2, 1, 3]), [rows, events, -1])
        states += self._dropouts[1](self._join(seen), training=training)
        found = self._before[1](states)
        for layer in self._network:
            found = layer(found)
        return states + self._dropouts[2](found, training=training)


def _small() -> keras.initializers.Initializer:
    return keras.initializers.RandomNormal(stddev=0.02)
