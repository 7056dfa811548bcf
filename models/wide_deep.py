"""Wide & Deep (Cheng et al. 2016): a linear model that remembers and a deep network that generalizes."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from configs.model import WideDeep as WideDeepConfig
from models.base import Recommender
from models.layers.deep import deep_network
from models.layers.embedding import FieldEmbedding, FirstOrder
from models.layers.hide_ids import HideIds
from transforms.transformed import TransformedFeature


class WideDeep(Recommender):
    """Transformed features -> logits [batch]: wide (one weight a value, crossed ones too) + deep (without crossed)."""

    def __init__(self, config: WideDeepConfig, features: Sequence[TransformedFeature]):
        super().__init__(config, features)
        self._hide = HideIds(features, config.id_dropout)
        self._wide = FirstOrder(features, config.l2)
        self._embedding = FieldEmbedding([f for f in features if not f.crossed], config.embedding_dim, config.l2)
        self._deep = deep_network(config.hidden, config.dropout, zero=True)

    def call(self, inputs, training=None) -> tf.Tensor:
        """Return the logits."""
        inputs = self._hide(inputs, training=training)
        deep = self._deep(self._embedding(inputs), training=training)
        return self._wide(inputs) + tf.squeeze(deep, axis=1)

    @property
    def output_biases(self) -> list[tf.Variable]:
        """The first order's bias."""
        return [self._wide.bias]
