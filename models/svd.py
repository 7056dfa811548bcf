"""Matrix factorization with biases (Koren 2008, section 2.2) for a binary label."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
import tf_keras as keras

from configs.model import SVD as SVDConfig
from models.layers import FieldEmbedding, FirstOrder, HideIds
from transforms.transformed import TransformedFeature, id_of


class SVD(keras.Model):
    """Transformed features -> logits [batch]: mean + user's bias + item's bias + user's factors . item's factors.

    Koren fits ratings by squared error; here the sum is a logit and the loss is that of training.
    """

    def __init__(self, config: SVDConfig, features: Sequence[TransformedFeature]):
        super().__init__()
        ids = [id_of("user", features), id_of("item", features)]
        self._hide = HideIds(ids, config.id_dropout)
        self._biases = FirstOrder(ids, config.l2)
        self._factors = FieldEmbedding(ids, config.embedding_dim, config.l2)

    def call(self, inputs, training=None) -> tf.Tensor:
        """Return the logits."""
        inputs = self._hide(inputs, training=training)
        user, item = tf.unstack(self._factors(inputs), axis=1)
        return self._biases(inputs) + tf.reduce_sum(user * item, axis=1)
