"""Layers that the models share."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
import tf_keras as keras

from transforms.transformed import PADDING, TransformedFeature


class FieldEmbedding(keras.layers.Layer):
    """One embedding a feature: inputs as TransformedFeature describes them -> [batch, fields, dim].

    Ids are looked up in a table of their own; several ids are pooled; a number scales one vector (Guo et al. 2017,
    section 2.1). A feature with a dimension of its own is projected to `dim`. `l2` is half the penalty on the squared
    norm of what a batch looked up, divided by its size.
    """

    def __init__(self, features: Sequence[TransformedFeature], dim: int, l2: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        self._features = list(features)
        self._dim = dim
        self._l2 = l2
        self._tables: dict[str, tf.Variable] = {}
        self._projections: dict[str, tf.Variable] = {}

    def build(self, input_shape) -> None:
        """Make one table a feature."""
        for f in self._features:
            own = f.dim or self._dim if self._dim > 1 else 1
            self._tables[f.name] = self.add_weight(
                name=f.name, shape=[max(f.size, 1), own], initializer=keras.initializers.RandomNormal(stddev=0.01)
            )
            if own != self._dim:
                self._projections[f.name] = self.add_weight(
                    name=f"{f.name}_projection", shape=[own, self._dim], initializer="glorot_uniform"
                )
        super().build(input_shape)

    def call(self, inputs) -> tf.Tensor:
        """Look up, pool, scale and project."""
        fields = []
        for f in self._features:
            value, table = inputs[f.name], self._tables[f.name]
            if not f.size:
                field = value[:, tf.newaxis] * table
            elif f.multivalued:
                field = _pooled(table, value, f.pool)
            else:
                field = tf.gather(table, value)
            if f.name in self._projections:
                field = tf.matmul(field, self._projections[f.name])
            fields.append(field)
        stacked = tf.stack(fields, axis=1)
        if self._l2:
            self.add_loss(0.5 * self._l2 * tf.reduce_mean(tf.reduce_sum(tf.square(stacked), axis=[1, 2])))
        return stacked

    def look_up(self, name: str, ids: tf.Tensor) -> tf.Tensor:
        """Return the embeddings of ids of the feature `name`, un-pooled: [batch, values] -> [batch, values, dim].

        PADDING has zeros. The layer must have been called before; the penalty does not count these rows.
        """
        rows = tf.gather(self._tables[name], tf.maximum(ids, 0))
        if name in self._projections:
            rows = tf.matmul(rows, self._projections[name])
        return rows * tf.cast(tf.not_equal(ids, PADDING), rows.dtype)[:, :, tf.newaxis]


def _pooled(table: tf.Variable, ids: tf.Tensor, pool: str) -> tf.Tensor:
    present = tf.cast(tf.not_equal(ids, PADDING), table.dtype)
    rows = tf.gather(table, tf.maximum(ids, 0)) * present[:, :, tf.newaxis]
    summed = tf.reduce_sum(rows, axis=1)
    return summed if pool == "sum" else summed / tf.maximum(tf.reduce_sum(present, axis=1, keepdims=True), 1.0)


class HideIds(keras.layers.Layer):
    """In training, replaces a share of the ids of single users and items by an unknown one, row by row.

    The embedding of unknown ids, which nothing else trains, so learns what to say of anyone.
    """

    def __init__(self, features: Sequence[TransformedFeature], share: float, **kwargs):
        super().__init__(**kwargs)
        self._hidden = [f for f in features if f.hideable and f.oov and not f.multivalued]
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
        return outputs


class FirstOrder(keras.layers.Layer):
    """w0 + sum of one weight a feature value: [batch]."""

    def __init__(self, features: Sequence[TransformedFeature], l2: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        self._weights = FieldEmbedding(features, 1, l2, name="weights")

    def build(self, input_shape) -> None:
        """Make the bias."""
        self._bias = self.add_weight(name="bias", shape=[], initializer="zeros")
        super().build(input_shape)

    def call(self, inputs) -> tf.Tensor:
        """Sum the weights."""
        return self._bias + tf.reduce_sum(self._weights(inputs), axis=[1, 2])


class Dice(keras.layers.Layer):
    """p x + (1 - p) alpha x, where p is the sigmoid of x normalized over the batch (Zhou et al. 2018, section 5.3)."""

    def build(self, input_shape) -> None:
        """Make alpha, one a unit."""
        self._normalized = keras.layers.BatchNormalization(center=False, scale=False, epsilon=1e-8)
        self._alpha = self.add_weight(name="alpha", shape=[input_shape[-1]], initializer="zeros")
        super().build(input_shape)

    def call(self, inputs, training=None) -> tf.Tensor:
        """Return the activations."""
        p = tf.sigmoid(self._normalized(inputs, training=training))
        return p * inputs + (1.0 - p) * self._alpha * inputs


def deep_network(hidden: Sequence[int], dropout: float, activation: str = "relu") -> keras.Sequential:
    """Return the deep part that many models share: [batch, ...] -> [batch, 1]."""
    activations = {
        "relu": lambda: keras.layers.Activation("relu"),
        "prelu": keras.layers.PReLU,
        "dice": Dice,
    }
    return keras.Sequential(
        [
            keras.layers.Flatten(),
            keras.layers.Dropout(dropout),
            *(
                layer
                for width in hidden
                for layer in (keras.layers.Dense(width), activations[activation](), keras.layers.Dropout(dropout))
            ),
            keras.layers.Dense(1, use_bias=False),
        ]
    )


def pairwise_interactions(fields: tf.Tensor) -> tf.Tensor:
    """Return the sum over all pairs of fields of their inner products: [batch, fields, dim] -> [batch].

    Rendle 2010, lemma 3.1: half of (square of the sum - sum of the squares).
    """
    return 0.5 * tf.reduce_sum(tf.square(tf.reduce_sum(fields, 1)) - tf.reduce_sum(tf.square(fields), 1), axis=1)
