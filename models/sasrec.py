"""SASRec (Kang and McAuley 2018): self-attentive sequential recommendation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from configs.model.topn import SASRec as SASRecConfig
from models.topn.attention import Encoder
from models.topn.interactions import Interactions
from models.topn.rows import next_events
from models.topn.sequences import NextItemRanker
from transforms.transformed import TransformedFeature


class SASRec(NextItemRanker):
    """Each event of the past looks at itself and those before it; its state tells the one that came next.

    Trained by a softmax over items, all or sampled, in place of the paper's one random item a positive: that makes
    scores of unseen items too sure (Petrov and Macdonald 2023). Several users' events lie side by side in one row.
    """

    def __init__(self, config: SASRecConfig, features: Sequence[TransformedFeature]):
        super().__init__(config, features, config.dim)
        self._encoder = Encoder(self.length, config.dim, config.blocks, config.heads, config.dropout)

    def training_rows(self, known: Interactions) -> dict[str, np.ndarray]:
        """Return rows of events side by side."""
        return next_events(known, self.length)

    def example_losses(self, inputs, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Return the loss of each row's events, [batch]."""
        segments = inputs["segment"]
        open_ = tf.equal(segments[:, :, tf.newaxis], segments[:, tf.newaxis]) & _earlier(self.length)
        states = self._encoder([self.embedded(inputs["inputs"]), inputs["place"], open_], training=True)
        return self.event_losses(states, inputs["targets"], inputs["user"])

    def state_of(self, newest: tf.Tensor) -> tf.Tensor:
        """Return the state of the newest event, [batch, dim]."""
        places = tf.zeros_like(newest) + tf.range(self.length, dtype=newest.dtype)
        open_ = (newest >= 0)[:, tf.newaxis] & _earlier(self.length)
        return self._encoder([self.embedded(newest), places, open_])[:, -1]


def _earlier(length: int) -> tf.Tensor:
    return tf.linalg.band_part(tf.ones([1, length, length], tf.bool), -1, 0)
