"""Known users and items by one model, unknown ones by another that has learnt from content alone."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from configs.model import Fallback
from models.base import Recommender
from models.registry import build_model
from transforms.transformed import TransformedFeature


class KnownOrContent(Recommender):
    """Transformed features -> logits [batch] of `known`, or of `content` where the user's or the item's id is unknown.

    In training `content`, which is built without ids and what gives them away (crosses and sequences of ids), answers
    for a random `share` of the rows, so that it learns to do so from all of the data and not from the few rows that
    meet an unknown id.
    """

    def __init__(self, config: Fallback, features: Sequence[TransformedFeature]):
        super().__init__(config, features)
        self._ids = [f for f in features if f.hideable and f.oov and not f.multivalued]
        self._known = build_model(config.known, features)
        self._content = build_model(config.content, [f for f in features if not f.gives_id_away])
        self._share = config.share

    def call(self, inputs, training=None) -> tf.Tensor:
        """Return the logits."""
        known = self._known(inputs, training=training)
        content = self._content(inputs, training=training)
        if training:
            return tf.where(tf.random.uniform(tf.shape(known)) < self._share, content, known)
        unknown = tf.zeros(tf.shape(known), tf.bool)
        for f in self._ids:
            low, high = f.oov  # type: ignore[misc]
            ids = inputs[f.name]
            # 0 is a missing id, which is none that training has met.
            unknown |= tf.equal(ids, 0) | (tf.greater_equal(ids, low) & tf.less(ids, high))
        return tf.where(unknown, content, known)

    @property
    def output_biases(self) -> list[tf.Variable]:
        """Those of both models."""
        return [*self._known.output_biases, *self._content.output_biases]
