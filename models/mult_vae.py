"""Mult-VAE (Liang et al. 2018): a variational autoencoder of the items that a user met."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tf_keras as keras

from configs.model.topn import MultVAE as MultVAEConfig
from models.layers.deep import Dropout
from models.topn.interactions import Interactions
from models.topn.ranker import Past, TrainedRanker, VectorRanker, as_rows
from models.topn.rows import users_of
from transforms.transformed import TransformedFeature


class MultVAE(TrainedRanker, VectorRanker):
    """What a user met, in items-wide rows of length 1 -> mean and deviation of a latent -> a softmax over items.

    Equations 1 to 5; the weight of the divergence rises to `beta` (section 2.2.2). A request is answered by the mean.
    """

    past: Past

    def __init__(self, config: MultVAEConfig, features: Sequence[TransformedFeature]):
        super().__init__(config, features)
        self.past = Past(features, config.past)
        self._config = config
        self._dropout = Dropout(config.dropout)
        self._encoder = keras.layers.Dense(config.hidden, activation="tanh")
        self._moments = keras.layers.Dense(2 * config.latent)
        self._decoder = keras.layers.Dense(config.hidden, activation="tanh")
        # The last layer, its biases as a last element of each item's vector.
        self._items = self.add_weight(
            name="items", shape=[self.items, config.hidden + 1], initializer=_Unbiased(), trainable=True
        )
        self._step = self.add_weight(
            name="step",
            shape=[],
            initializer="zeros",
            trainable=False,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )

    def training_rows(self, known: Interactions) -> dict[str, np.ndarray]:
        """Return a row for each user."""
        return users_of(known)

    def example_losses(self, inputs, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Return -log likelihood of the user's items and the weighed divergence, [batch]."""
        rows = as_rows(inputs["past"], self.items)
        mean, log_variance = self._encoded(rows, training=True)
        latent = mean + tf.exp(0.5 * log_variance) * tf.random.normal(tf.shape(mean))
        found = tf.matmul(self._decoded(latent), self._items, transpose_b=True)
        unlikely = -tf.reduce_sum(tf.nn.log_softmax(found) * rows, axis=1)
        divergence = 0.5 * tf.reduce_sum(tf.exp(log_variance) + tf.square(mean) - 1 - log_variance, axis=1)
        risen = tf.minimum(self._step / max(self._config.anneal_steps, 1), 1.0)
        self._step.assign_add(1.0)
        return unlikely + self._config.beta * risen * divergence

    def _encoded(self, rows: tf.Tensor, training: bool = False) -> list[tf.Tensor]:
        rows = tf.math.l2_normalize(rows, axis=1)
        return tf.split(self._moments(self._encoder(self._dropout(rows, training=training))), 2, axis=1)

    def _decoded(self, latent: tf.Tensor) -> tf.Tensor:
        found = self._decoder(latent)
        return tf.concat([found, tf.ones_like(found[:, :1])], axis=1)

    def user_vectors(self, inputs) -> tf.Tensor:
        """Return what the decoder's last layer receives, [batch, hidden + 1]."""
        mean, _ = self._encoded(as_rows(self.past(inputs), self.items))
        return self._decoded(mean)

    @property
    def item_vectors(self) -> tf.Variable:
        """The decoder's last layer, [items, hidden + 1]."""
        return self._items


class _Unbiased(keras.initializers.Initializer):
    def __call__(self, shape, dtype=None, **kwargs):
        drawn = keras.initializers.GlorotUniform()([shape[0], shape[1] - 1], dtype)
        return tf.concat([drawn, tf.zeros([shape[0], 1])], axis=1)
