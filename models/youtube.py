"""The retrieval network of YouTube (Covington et al. 2016): a softmax over items from what a user met and is."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
import tf_keras as keras

from configs.model.topn import YouTube as YouTubeConfig
from models.base import TrainingSource
from models.layers.deep import Dropout
from models.layers.embedding import FieldEmbedding
from models.layers.hide_ids import HideIds
from models.topn.sequences import SoftmaxRanker, with_one
from transforms.transformed import TransformedFeature, id_of


class YouTube(SoftmaxRanker):
    """Embeddings of the user's and the context's features, the past pooled among them, -> a network -> the state.

    Trained on the examples with a positive label, whose own past is what lies before them, so that it learns from
    earlier events to tell later ones (section 3.4). The paper's example age is a feature of kind time.
    """

    def __init__(self, config: YouTubeConfig, features: Sequence[TransformedFeature]):
        super().__init__(config, features, config.hidden[-1])
        self._user = id_of("user", features)
        of_user = [f for f in features if f.of != "item" and not (f.crossed and f.of == "context")]
        self._hide = HideIds(of_user, config.id_dropout)
        self._embedding = FieldEmbedding(of_user, config.embedding_dim, config.l2)
        self._layers = [keras.layers.Flatten(), Dropout(config.dropout)]
        for width in config.hidden:
            self._layers += [keras.layers.Dense(width, activation="relu"), Dropout(config.dropout)]

    def training_source(self, examples: TrainingSource) -> TrainingSource:
        """Return the examples themselves."""
        return examples

    def example_losses(self, inputs, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Return the loss of each positive example of a known item, else 0: [batch]."""
        columns = inputs[self.item.name] - 1
        counted = (labels > 0) & (columns >= 0) & (columns < self.items)
        state = self._state(self._hide(inputs, training=True), training=True)
        losses = self.losses_of(state, tf.where(counted, columns, 0), inputs[self._user.name])
        return tf.where(counted, losses, 0.0)

    def _state(self, inputs, training: bool = False) -> tf.Tensor:
        state = self._embedding(inputs)
        for layer in self._layers:
            state = layer(state, training=training) if isinstance(layer, Dropout) else layer(state)
        return state

    def user_vectors(self, inputs) -> tf.Tensor:
        """Return the users' vectors, [batch, dim + 1]."""
        return with_one(self._state(inputs))
