"""Neural matrix factorization (He et al. 2017): products of vectors and a network over others, fused."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
import tf_keras as keras

from configs.model.topn import NeuMF as NeuMFConfig
from models.bpr import mean_of
from models.layers.deep import Dropout
from models.layers.embedding import FieldEmbedding
from models.topn.ranker import PairRanker
from transforms.transformed import TransformedFeature


class NeuMF(PairRanker):
    """h . [p_u * q_i, MLP(p'_u, q'_i)] (equation 12), trained by the log loss of a pair and some drawn items.

    Both parts start at random and are trained together; the paper also trains them apart first.
    """

    def __init__(self, config: NeuMFConfig, features: Sequence[TransformedFeature]):
        super().__init__(config, features)
        self._vectors = FieldEmbedding([self.user, self.item], 2 * config.dim)  # half for the product, half the network
        self._first_of_user = keras.layers.Dense(config.hidden[0])
        self._first_of_item = keras.layers.Dense(config.hidden[0], use_bias=False)
        self._network = [
            layer
            for width in config.hidden[1:]
            for layer in (Dropout(config.dropout), keras.layers.Dense(width, activation="relu"))
        ]
        self._fused = keras.layers.Dense(1)
        self._index = self.add_weight(
            name="index", shape=[self.items, 2 * config.dim], initializer="zeros", trainable=False
        )

    def build(self, input_shape) -> None:
        """Make the weights."""
        self._vectors.build(input_shape)
        self._logits(tf.zeros([1, 1, 2 * self.config.dim]), tf.zeros([1, 1, 2 * self.config.dim]))
        self.built = True

    def example_losses(self, inputs, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Return the log loss of a pair and of the drawn items, added up, and half the penalty: [batch]."""
        users = self._vectors.look_up(self.user.name, inputs["user"][:, tf.newaxis])
        columns, usable = self.sampler.draw(
            inputs["user"], lambda c: self._logits(users, self._vectors.look_up(self.item.name, c + 1))
        )
        columns = tf.concat([inputs["item"][:, tf.newaxis], columns], axis=1)
        items = self._vectors.look_up(self.item.name, columns + 1)
        used = tf.concat([tf.ones_like(columns[:, :1], tf.float32), tf.cast(usable, tf.float32)], axis=1)
        truth = tf.concat([tf.ones_like(used[:, :1]), tf.zeros_like(used[:, 1:])], axis=1)
        found = self._logits(users, items, training=True)
        losses = tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(truth, found) * used, axis=1)
        squares = tf.reduce_sum(tf.square(users), axis=2)[:, 0] + mean_of(tf.reduce_sum(tf.square(items), axis=2), used)
        return losses + 0.5 * self.config.l2 * squares

    def _logits(self, users: tf.Tensor, items: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Return the logits of [rows, 1, 2 dim] and [rows or 1, items, 2 dim], [rows, items]."""
        of_user, for_network = tf.split(users, 2, axis=2)
        of_item, also = tf.split(items, 2, axis=2)
        # The network's first layer over both vectors side by side, each of them multiplied once.
        deep = tf.nn.relu(self._first_of_user(for_network) + self._first_of_item(also))
        for layer in self._network:
            deep = layer(deep, training=training) if isinstance(layer, Dropout) else layer(deep)
        return tf.squeeze(self._fused(tf.concat([of_user * of_item, deep], axis=2)), axis=2)

    def call(self, inputs, training=None) -> tf.Tensor:
        """Return the logits of the rows' own pairs; in training zeros."""
        if training:
            return super().call(inputs, training=True)
        column = inputs[self.item.name] - 1
        known = (column >= 0) & (column < self.items)
        items = tf.gather(tf.convert_to_tensor(self._index), tf.where(known, column, 0))[:, tf.newaxis]
        users = self._vectors.look_up(self.user.name, inputs[self.user.name][:, tf.newaxis])
        return self._logits(users, items)[:, 0] * tf.cast(known, tf.float32)

    def refresh(self) -> None:
        """Take the items' vectors out of their table."""
        everything = tf.range(1, self.items + 1, dtype=tf.int64)[tf.newaxis]
        self._index.assign(self._vectors.look_up(self.item.name, everything)[0])

    def catalogue_scores(self, inputs) -> tf.Tensor:
        """Return the logits of all items, [batch, items], one user at a time: the network sees each pair."""
        users = self._vectors.look_up(self.user.name, inputs[self.user.name][:, tf.newaxis])
        items = tf.convert_to_tensor(self._index)[tf.newaxis]
        return tf.map_fn(lambda user: self._logits(user[tf.newaxis], items)[0], users)
