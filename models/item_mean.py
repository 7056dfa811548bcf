"""Smoothed mean label of each item: what popularity alone can say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from configs.model import ItemMean as ItemMeanConfig
from models.base import ClosedForm, Recommender
from transforms.transformed import TransformedFeature, id_of


class ItemMean(Recommender, ClosedForm):
    """Transformed features -> logits [batch] of (positives + prior * mean) / (examples + prior) of the row's item.

    It is counted, not trained: `adapt` takes one pass over the examples. Unknown items get the overall mean.
    """

    def __init__(self, config: ItemMeanConfig, features: Sequence[TransformedFeature]):
        super().__init__(config, features)
        self._item = id_of("item", features)
        if self._item.multivalued:
            raise ValueError(f"needs {self._item.name} with one id an item: hashes: 2 gives it two")
        self._prior = config.prior
        self._logits = self.add_weight(name="logits", shape=[self._item.size], initializer="zeros", trainable=False)

    def adapt(self, examples: tf.data.Dataset) -> None:
        """Count positives by item over batches of (features, labels)."""
        positives, counts = np.zeros(self._item.size), np.zeros(self._item.size)
        for features, labels in examples.as_numpy_iterator():
            ids = features[self._item.name]
            positives += np.bincount(ids, labels, self._item.size)
            counts += np.bincount(ids, minlength=self._item.size)
        mean = positives.sum() / max(counts.sum(), 1)
        share = np.clip((positives + self._prior * mean) / (counts + self._prior), 1e-6, 1 - 1e-6)
        self._logits.assign(np.log(share / (1 - share)))

    def call(self, inputs, training=None) -> tf.Tensor:
        """Return the logits."""
        return tf.gather(self._logits, inputs[self._item.name])

    @property
    def output_biases(self) -> list[tf.Variable]:
        """The logits themselves."""
        return [self._logits]
