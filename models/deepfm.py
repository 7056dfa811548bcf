"""DeepFM (Guo et al. 2017): an FM and a deep network over the same embeddings, their logits added."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from configs.model import DeepFM as DeepFMConfig
from models.base import Explainable, Recommender
from models.layers.attribution import interactions, shapley
from models.layers.deep import deep_network
from models.layers.embedding import FieldEmbedding, FirstOrder
from models.layers.hide_ids import HideIds
from models.layers.interactions import pairwise_interactions
from transforms.transformed import TransformedFeature


class DeepFM(Recommender, Explainable):
    """Transformed features -> logits [batch]: first order + FM + deep."""

    def __init__(self, config: DeepFMConfig, features: Sequence[TransformedFeature]):
        super().__init__(config, features)
        self._hide = HideIds(features, config.id_dropout)
        self._first_order = FirstOrder(features, config.l2)
        self._embedding = FieldEmbedding(features, config.embedding_dim, config.l2)
        self._deep = deep_network(config.hidden, config.dropout, zero=True)

    def call(self, inputs, training=None) -> tf.Tensor:
        """Return the logits."""
        inputs = self._hide(inputs, training=training)
        fields = self._embedding(inputs)
        deep = tf.squeeze(self._deep(fields, training=training), axis=1)
        return self._first_order(inputs) + pairwise_interactions(fields) + deep

    @property
    def output_biases(self) -> list[tf.Variable]:
        """The first order's bias."""
        return [self._first_order.bias]

    def parts(self, inputs) -> dict[str, tf.Tensor]:
        """Return what adds up to the logits: the FM's parts, the deep part of no feature, [batch], and each feature's
        Shapley value in the deep part, [batch, fields].
        """
        fields = self._embedding(inputs)
        deep, deep_of_none = shapley(lambda masked: self._deep(masked, training=False), fields)
        return {
            **self._first_order.parts(inputs),
            "pairs": interactions(fields),
            "deep": deep,
            "deep_of_none": deep_of_none,
        }
