"""Matrix factorization by Bayesian personalized ranking (Rendle et al. 2009)."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from configs.model.topn import BPR as BPRConfig
from models.layers.embedding import FieldEmbedding
from models.topn.ranker import PairRanker, VectorRanker
from transforms.transformed import TransformedFeature


class BPR(PairRanker, VectorRanker):
    """A user's vector . an item's; each item that a user met should score higher than one that it did not."""

    def __init__(self, config: BPRConfig, features: Sequence[TransformedFeature]):
        super().__init__(config, features)
        self._vectors = FieldEmbedding([self.user, self.item], config.dim)
        self._index = self.add_weight(
            name="index", shape=[self.items, config.dim], initializer="zeros", trainable=False
        )

    def build(self, input_shape) -> None:
        """Make the tables."""
        self._vectors.build(input_shape)
        self.built = True

    def example_losses(self, inputs, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Return -ln sigmoid(x_ui - x_uj), the mean over the drawn j, and half the penalty: [batch]."""
        users = self._vectors.look_up(self.user.name, inputs["user"][:, tf.newaxis])
        items = self._of_items(inputs["item"][:, tf.newaxis])
        columns, usable = self.sampler.draw(inputs["user"], lambda c: self._products(users, self._of_items(c)))
        others = self._of_items(columns)
        used = tf.cast(usable, tf.float32)
        gaps = self._products(users, items) - self._products(users, others)
        losses = mean_of(tf.nn.softplus(-gaps), used)
        squares = [tf.reduce_sum(tf.square(v), axis=2) for v in (users, items, others)]
        penalty = squares[0][:, 0] + squares[1][:, 0] + mean_of(squares[2], used)
        return losses + 0.5 * self.config.l2 * penalty

    def _of_items(self, columns: tf.Tensor) -> tf.Tensor:
        return self._vectors.look_up(self.item.name, columns + 1)

    @staticmethod
    def _products(users: tf.Tensor, items: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(users * items, axis=2)

    def refresh(self) -> None:
        """Take the items' vectors out of their table."""
        everything = tf.range(1, self.items + 1, dtype=tf.int64)[tf.newaxis]
        self._index.assign(self._vectors.look_up(self.item.name, everything)[0])

    def user_vectors(self, inputs) -> tf.Tensor:
        """Return the users' vectors, [batch, dim]."""
        return self._vectors.look_up(self.user.name, inputs[self.user.name][:, tf.newaxis])[:, 0]

    @property
    def item_vectors(self) -> tf.Variable:
        """The items' vectors, [items, dim]."""
        return self._index


def mean_of(values: tf.Tensor, used: tf.Tensor) -> tf.Tensor:
    """Return the mean of each row where it is used, [rows]; 0 where it is nowhere."""
    return tf.reduce_sum(values * used, axis=1) / tf.maximum(tf.reduce_sum(used, axis=1), 1.0)
