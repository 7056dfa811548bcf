"""Deep Interest Network (Zhou et al. 2018): what a user did before, weighed by the item in question."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
import tf_keras as keras

from configs.model import DIN as DINConfig
from models.base import Recommender
from models.layers.deep import deep_network
from models.layers.embedding import FieldEmbedding
from models.layers.hide_ids import HideIds
from transforms.transformed import PADDING, TransformedFeature, plain_in, sequences_in


class DIN(Recommender):
    """Transformed features -> logits [batch]: a deep network over the embeddings and one interest a sequence.

    An event of a sequence has the embedding of the feature it is of, shared with the item in question.
    """

    def __init__(self, config: DINConfig, features: Sequence[TransformedFeature]):
        super().__init__(config, features)
        self._plain, self._sequences = plain_in(features), sequences_in(features)
        self._hide = HideIds(features, config.id_dropout)
        self._embedding = FieldEmbedding(self._plain, config.embedding_dim, config.l2)
        self._units = [Interest(config.attention) for _ in self._sequences]
        self._deep = deep_network(config.hidden, config.dropout, config.activation, bias=True)

    def call(self, inputs, training=None) -> tf.Tensor:
        """Return the logits."""
        inputs = self._hide(inputs, training=training)
        fields = self._embedding(inputs)
        item = dict(zip([f.name for f in self._plain], tf.unstack(fields, axis=1), strict=True))
        interests = []
        for sequence, unit in zip(self._sequences, self._units, strict=True):
            of = str(sequence.sequence_of)
            ids = inputs[sequence.name]
            interests.append(unit([self._embedding.look_up(of, ids), item[of], ids]))
        stacked = tf.concat([fields, tf.stack(interests, axis=1)], axis=1)
        return tf.squeeze(self._deep(stacked, training=training), axis=1)

    @property
    def output_biases(self) -> list[tf.Variable]:
        """The bias of the last layer."""
        return [self._deep.layers[-1].bias]


class Interest(keras.layers.Layer):
    """[events [batch, values, dim], item [batch, dim], ids [batch, values]] -> sum of a(event, item) event.

    Equation 3. The activation unit `a` is a network over event, item, their difference and their product, in place of
    the paper's outer product; its weights are not normalized, so that a stronger interest stays stronger (section 4.3).
    """

    def __init__(self, widths: Sequence[int], **kwargs):
        super().__init__(**kwargs)
        self._hidden = [
            layer for width in widths for layer in (keras.layers.Dense(width), keras.layers.PReLU(shared_axes=[1]))
        ]
        self._weight = keras.layers.Dense(1)

    def call(self, inputs) -> tf.Tensor:
        """Weigh and add up."""
        events, item, ids = inputs
        item = tf.broadcast_to(item[:, tf.newaxis], tf.shape(events))
        unit = tf.concat([events, item, events - item, events * item], axis=-1)
        for layer in self._hidden:
            unit = layer(unit)
        weights = self._weight(unit) * tf.cast(tf.not_equal(ids, PADDING), events.dtype)[:, :, tf.newaxis]
        return tf.reduce_sum(weights * events, axis=1)
