"""GRU4Rec (Hidasi et al. 2016): a recurrent network over a user's events."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tf_keras as keras

from configs.model.topn import GRU4Rec as GRU4RecConfig
from models.layers.deep import Dropout
from models.topn.interactions import Interactions
from models.topn.rows import padded_events
from models.topn.sequences import NextItemRanker
from transforms.transformed import TransformedFeature


class GRU4Rec(NextItemRanker):
    """Events one by one into recurrent layers; the state after each, brought to the items' dimension, tells the next.

    Trained by a softmax over items, all or sampled, which the authors came to prefer (Hidasi and Karatzoglou 2018).
    """

    def __init__(self, config: GRU4RecConfig, features: Sequence[TransformedFeature]):
        super().__init__(config, features, config.dim)
        self._dropout = Dropout(config.dropout)
        self._layers = [keras.layers.GRU(config.hidden, return_sequences=True) for _ in range(config.layers)]
        self._to_items = keras.layers.Dense(config.dim)

    def training_rows(self, known: Interactions) -> dict[str, np.ndarray]:
        """Return a row for each window of events."""
        return padded_events(known, self.length)

    def example_losses(self, inputs, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Return the loss of each row's events, [batch]."""
        # No mask: a row is filled up at its end, after all that counts.
        states = self._states(inputs["inputs"], training=True)
        return self.event_losses(states, inputs["targets"], inputs["user"])

    def _states(self, events: tf.Tensor, mask: tf.Tensor | None = None, training: bool = False) -> tf.Tensor:
        states = self._dropout(self.embedded(events), training=training)
        for layer in self._layers:
            states = self._dropout(layer(states, mask=mask), training=training)
        return self._to_items(states)

    def state_of(self, newest: tf.Tensor) -> tf.Tensor:
        """Return the state after the newest event, [batch, dim]."""
        return self._states(newest, mask=newest >= 0)[:, -1]
