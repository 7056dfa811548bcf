"""Logistic regression: one weight a feature value."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from configs.model import LR as LRConfig
from models.base import Explainable, Recommender
from models.layers.embedding import FirstOrder
from models.layers.hide_ids import HideIds
from transforms.transformed import TransformedFeature


class LR(Recommender, Explainable):
    """Transformed features -> logits [batch]."""

    def __init__(self, config: LRConfig, features: Sequence[TransformedFeature]):
        super().__init__(config, features)
        self._hide = HideIds(features, config.id_dropout)
        self._first_order = FirstOrder(features, config.l2)

    def call(self, inputs, training=None) -> tf.Tensor:
        """Return the logits."""
        return self._first_order(self._hide(inputs, training=training))

    @property
    def output_biases(self) -> list[tf.Variable]:
        """The first order's bias."""
        return [self._first_order.bias]

    def parts(self, inputs) -> dict[str, tf.Tensor]:
        """Return what adds up to the logits: the bias, [batch], and each feature's weight, [batch, fields]."""
        return self._first_order.parts(inputs)
