"""SVD++ (Koren 2008, section 4, equation 15): factors of a user and of the items the user has met."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import tensorflow as tf

from configs.model import SVDpp as SVDppConfig
from models.base import Recommender
from models.layers.embedding import FieldEmbedding, FirstOrder
from models.layers.hide_ids import HideIds
from transforms.transformed import PADDING, TransformedFeature, id_of, sequences_in


class SVDpp(Recommender):
    """Transformed features -> logits [batch]: mean + biases + q_item . (p_user + |N|^-1/2 sum of y_j for j in N).

    N is the user's implicit feedback: a sequence, so the newest events before the example's own and not, as in the
    paper, all there are. With several sequences each adds its own sum, as Koren does with several kinds of feedback.
    """

    def __init__(self, config: SVDppConfig, features: Sequence[TransformedFeature]):
        super().__init__(config, features)
        ids = [id_of("user", features), id_of("item", features)]
        self._feedback = [replace(s, pool="mean") for s in sequences_in(features)]
        self._hide = HideIds(ids, config.id_dropout)
        self._biases = FirstOrder(ids, config.l2)
        self._factors = FieldEmbedding(ids, config.embedding_dim, config.l2)
        self._implicit = FieldEmbedding(self._feedback, config.embedding_dim, config.l2)

    def call(self, inputs, training=None) -> tf.Tensor:
        """Return the logits."""
        inputs = self._hide(inputs, training=training)
        user, item = tf.unstack(self._factors(inputs), axis=1)
        means = tf.unstack(self._implicit(inputs), axis=1)
        for sequence, mean in zip(self._feedback, means, strict=True):
            count = tf.reduce_sum(tf.cast(tf.not_equal(inputs[sequence.name], PADDING), mean.dtype), axis=1)
            user += tf.sqrt(count)[:, tf.newaxis] * mean  # a sum over sqrt(n) is sqrt(n) means
        return self._biases(inputs) + tf.reduce_sum(user * item, axis=1)

    @property
    def output_biases(self) -> list[tf.Variable]:
        """The first order's bias."""
        return [self._biases.bias]
