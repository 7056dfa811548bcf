"""Factorization machine (Rendle 2010) of second order."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from configs.model import FM as FMConfig
from models.base import Explainable, Recommender
from models.layers.attribution import interactions
from models.layers.embedding import FieldEmbedding, FirstOrder
from models.layers.hide_ids import HideIds
from models.layers.interactions import pairwise_interactions
from transforms.transformed import TransformedFeature


class FM(Recommender, Explainable):
    """Transformed features -> logits [batch]: w0 + sum of weights + sum of pairwise products of embeddings."""

    def __init__(self, config: FMConfig, features: Sequence[TransformedFeature]):
        super().__init__(config, features)
        self._hide = HideIds(features, config.id_dropout)
        self._first_order = FirstOrder(features, config.l2)
        self._embedding = FieldEmbedding(features, config.embedding_dim, config.l2)

    def call(self, inputs, training=None) -> tf.Tensor:
        """Return the logits."""
        inputs = self._hide(inputs, training=training)
        return self._first_order(inputs) + pairwise_interactions(self._embedding(inputs))

    @property
    def output_biases(self) -> list[tf.Variable]:
        """The first order's bias."""
        return [self._first_order.bias]

    def parts(self, inputs) -> dict[str, tf.Tensor]:
        """Return what adds up to the logits: the first order's parts and all pairs, [batch, fields, fields]."""
        return {**self._first_order.parts(inputs), "pairs": interactions(self._embedding(inputs))}
