"""Matrix factorization with biases (Koren 2008, section 2.2) for a binary label."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from configs.model import SVD as SVDConfig
from models.base import Recommender
from models.layers.embedding import FieldEmbedding, FirstOrder
from models.layers.hide_ids import HideIds
from transforms.transformed import TransformedFeature, id_of


class SVD(Recommender):
    """Transformed features -> logits [batch]: mean + user's bias + item's bias + user's factors . item's factors.

    Koren fits ratings by squared error; here the sum is a logit and the loss is that of training.
    """

    def __init__(self, config: SVDConfig, features: Sequence[TransformedFeature]):
        super().__init__(config, features)
        ids = [id_of("user", features), id_of("item", features)]
        self._hide = HideIds(ids, config.id_dropout)
        self._biases = FirstOrder(ids, config.l2)
        self._factors = FieldEmbedding(ids, config.embedding_dim, config.l2)

    def call(self, inputs, training=None) -> tf.Tensor:
        """Return the logits."""
        inputs = self._hide(inputs, training=training)
        user, item = tf.unstack(self._factors(inputs), axis=1)
        return self._biases(inputs) + tf.reduce_sum(user * item, axis=1)

    @property
    def output_biases(self) -> list[tf.Variable]:
        """The first order's bias."""
        return [self._biases.bias]
