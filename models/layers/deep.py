"""The deep part that many models share, and what it is made of."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
import tf_keras as keras


class Dropout(keras.layers.Layer):
    """Drops a share of the units in training and scales up the others, as Keras' own does.

    One random number serves four units, each a byte of it: drawing them is what dropout costs. The share is so rounded
    to 1/256.
    """

    def __init__(self, share: float, **kwargs):
        super().__init__(**kwargs)
        self._dropped = min(round(share * 256), 255)

    def call(self, inputs: tf.Tensor, training=None) -> tf.Tensor:
        """Return the inputs, some of them 0."""
        if not training or not self._dropped:
            return inputs
        size = tf.size(inputs)
        drawn = tf.random.uniform([(size + 3) // 4], tf.int32.min, tf.int32.max, tf.int32)
        bytes_ = tf.reshape(tf.bitcast(drawn, tf.uint8), [-1])[:size]
        kept = tf.reshape(bytes_ >= tf.constant(self._dropped, tf.uint8), tf.shape(inputs))
        return inputs * (tf.cast(kept, inputs.dtype) * (256.0 / (256 - self._dropped)))


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


def deep_network(
    hidden: Sequence[int], dropout: float, activation: str = "relu", bias: bool = False, zero: bool = False
) -> keras.Sequential:
    """Return the deep part that many models share: [batch, ...] -> [batch, 1].

    `zero`: its output starts at zero, so that what it is added to is learnt first.
    """
    activations = {
        "relu": lambda: keras.layers.Activation("relu"),
        "prelu": keras.layers.PReLU,
        "dice": Dice,
    }
    return keras.Sequential(
        [
            keras.layers.Flatten(),
            Dropout(dropout),
            *(
                layer
                for width in hidden
                for layer in (keras.layers.Dense(width), activations[activation](), Dropout(dropout))
            ),
            keras.layers.Dense(1, use_bias=bias, kernel_initializer="zeros" if zero else "glorot_uniform"),
        ]
    )
