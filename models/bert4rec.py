"""BERT4Rec (Sun et al. 2019): events that are hidden, told from those on both their sides."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from configs.model.topn import BERT4Rec as BERT4RecConfig
from models.topn.attention import Encoder
from models.topn.interactions import Interactions
from models.topn.rows import whole_events
from models.topn.sequences import NextItemRanker
from transforms.transformed import PADDING, TransformedFeature

_LAST_ALONE = 0.1  # share of rows that hide the last event of each sequence only, as requests do


class BERT4Rec(NextItemRanker):
    """A vector of its own stands for a hidden event; a request has one after its newest event, to be told."""

    def __init__(self, config: BERT4RecConfig, features: Sequence[TransformedFeature]):
        super().__init__(config, features, config.dim, extra=1)
        self._masked = config.masked
        self._encoder = Encoder(self.length, config.dim, config.blocks, config.heads, config.dropout, "gelu")

    def build(self, input_shape) -> None:
        """Make the variable of items' vectors without the hidden one's."""
        self._index = self.add_weight(
            name="index", shape=[self.items, self.dim + 1], initializer="zeros", trainable=False
        )
        self.built = True

    def training_rows(self, known: Interactions) -> dict[str, np.ndarray]:
        """Return rows of events side by side."""
        return whole_events(known, self.length)

    def example_losses(self, inputs, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Return the loss of each row's hidden events, [batch]."""
        segments, events = inputs["segment"], inputs["inputs"]
        last = tf.not_equal(segments, tf.pad(segments[:, 1:], [[0, 0], [0, 1]]))
        shape = tf.shape(events)
        hidden = tf.random.uniform(shape) < self._masked
        alone = tf.random.uniform([shape[0], 1]) < _LAST_ALONE
        hidden = tf.where(alone, last, hidden) & (events >= 0)
        seen = tf.where(hidden, tf.constant(self.items, events.dtype), events)
        open_ = tf.equal(segments[:, :, tf.newaxis], segments[:, tf.newaxis])
        states = self._encoder([self.embedded(seen), inputs["place"], open_], training=True)
        return self.event_losses(states, tf.where(hidden, events, PADDING), inputs["user"])

    def state_of(self, newest: tf.Tensor) -> tf.Tensor:
        """Return the state of a hidden event after the newest, [batch, dim]."""
        newest = tf.concat([newest[:, 1:], tf.fill(tf.shape(newest[:, :1]), tf.constant(self.items, tf.int64))], axis=1)
        places = tf.zeros_like(newest) + tf.range(self.length, dtype=newest.dtype)
        open_ = tf.tile((newest >= 0)[:, tf.newaxis], [1, self.length, 1])
        return self._encoder([self.embedded(newest), places, open_])[:, -1]

    def refresh(self) -> None:
        """Take the items' vectors, without the hidden one's."""
        self._index.assign(tf.convert_to_tensor(self.vectors)[: self.items])

    @property
    def item_vectors(self) -> tf.Variable:
        """The items' vectors and biases, [items, dim + 1]."""
        return self._index
