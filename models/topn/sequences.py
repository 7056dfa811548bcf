"""What models share that read a user's events in order and tell the next one by a softmax over items."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from configs.model.topn import NextItem
from models.topn.interactions import Interactions
from models.topn.negatives import Sampler
from models.topn.ranker import Past, TrainedRanker, VectorRanker, events_since
from transforms.transformed import PADDING, TransformedFeature


class SoftmaxRanker(TrainedRanker, VectorRanker):
    """Scores are products of a state of the user and the items' own vectors, with a bias an item.

    `vectors` holds the items' vectors and, last in each, its bias. A softmax over all items trains them, or over the
    positive and some drawn ones.
    """

    def __init__(self, config: NextItem, features: Sequence[TransformedFeature], dim: int, extra: int = 0):
        super().__init__(config, features)
        self.dim = dim
        self._negatives = config.negatives
        self._sampler: Sampler | None = None
        self.vectors = self.add_weight(
            name="vectors",
            shape=[self.items + extra, dim + 1],
            initializer=lambda shape, dtype=None, **_: tf.concat(
                [tf.random.normal([shape[0], shape[1] - 1], stddev=0.02), tf.zeros([shape[0], 1])], axis=1
            ),
        )

    def prepared(self, known: Interactions) -> None:
        """Make the sampler, where not all items are in the softmax."""
        self._sampler = Sampler(self._negatives, known) if self._negatives else None

    def losses_of(self, states: tf.Tensor, wanted: tf.Tensor, users: tf.Tensor) -> tf.Tensor:
        """Return the loss of telling the columns `wanted` [n] from states [n, dim] of users [n]: [n]."""
        queries = with_one(states)
        vectors = tf.convert_to_tensor(self.vectors)[: self.items]
        if self._sampler is None:
            logits = tf.matmul(queries, vectors, transpose_b=True)
            return tf.nn.sparse_softmax_cross_entropy_with_logits(wanted, logits)
        return self._sampler.softmax(users, wanted, queries, lambda columns: tf.gather(vectors, columns))

    @property
    def item_vectors(self) -> tf.Variable:
        """The items' vectors and biases, [items, dim + 1]."""
        return self.vectors


class NextItemRanker(SoftmaxRanker):
    """One whose state is what a network makes of the user's past, in order. Without a past the biases rank."""

    past: Past

    def __init__(self, config: NextItem, features: Sequence[TransformedFeature], dim: int, extra: int = 0):
        super().__init__(config, features, dim, extra)
        self.past = Past(features, config.past, needed=True)
        self.length = min(self.past.length, config.length)

    def embedded(self, columns: tf.Tensor) -> tf.Tensor:
        """Return the vectors of columns, [..., dim]; any where there is PADDING."""
        return tf.gather(tf.convert_to_tensor(self.vectors), tf.maximum(columns, 0))[..., : self.dim]

    def event_losses(self, states: tf.Tensor, targets: tf.Tensor, users: tf.Tensor) -> tf.Tensor:
        """Return the loss of telling `targets` from states [rows, events, dim], summed over a row's events: [rows]."""
        at = tf.where(targets >= 0)
        losses = self.losses_of(*(tf.gather_nd(x, at) for x in (states, targets, users)))
        return tf.math.unsorted_segment_sum(losses, at[:, 0], tf.shape(targets)[0])

    def newest(self, inputs) -> tf.Tensor:
        """Return the newest events of the past, the newest of all last: [batch, length], PADDING before them."""
        past = self.past(inputs)
        since = events_since(past)
        at = tf.where((past >= 0) & (since < self.length))
        to = tf.stack([at[:, 0], self.length - 1 - tf.cast(tf.gather_nd(since, at), tf.int64)], axis=1)
        empty = tf.fill([tf.shape(past, tf.int64)[0], self.length], tf.constant(PADDING, tf.int64))
        return tf.tensor_scatter_nd_update(empty, to, tf.cast(tf.gather_nd(past, at), tf.int64))

    def state_of(self, newest: tf.Tensor) -> tf.Tensor:
        """Return what the network makes of the newest events, [batch, dim]."""
        raise NotImplementedError

    def user_vectors(self, inputs) -> tf.Tensor:
        """Return the users' vectors, [batch, dim + 1]."""
        newest = self.newest(inputs)
        empty = tf.reduce_all(newest < 0, axis=1)[:, tf.newaxis]
        return with_one(tf.where(empty, 0.0, self.state_of(newest)))


def with_one(states: tf.Tensor) -> tf.Tensor:
    """Return states with a 1 as their last element, for the items' biases."""
    return tf.concat([states, tf.ones_like(states[..., :1])], axis=-1)
