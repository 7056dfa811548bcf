"""Deep Interest Evolution Network (Zhou et al. 2019): interests as they follow one another."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
import tf_keras as keras

from configs.model import DIEN as DIENConfig
from models.base import Recommender
from models.layers.deep import deep_network
from models.layers.embedding import FieldEmbedding
from models.layers.hide_ids import HideIds
from transforms.transformed import PADDING, TransformedFeature, plain_in, sequences_in


class DIEN(Recommender):
    """Transformed features -> logits [batch]: a deep network over the embeddings and one evolved interest a sequence.

    A GRU makes of a sequence the interest at each event; attention to the item in question says how far each of them
    moves a second one, whose last state is the interest (sections 4.2 and 4.3).
    """

    def __init__(self, config: DIENConfig, features: Sequence[TransformedFeature]):
        super().__init__(config, features)
        self._plain, self._sequences = plain_in(features), sequences_in(features)
        self._auxiliary = config.auxiliary
        self._hide = HideIds(features, config.id_dropout)
        self._embedding = FieldEmbedding(self._plain, config.embedding_dim, config.l2)
        self._extractors = [keras.layers.GRU(config.embedding_dim, return_sequences=True) for _ in self._sequences]
        self._evolutions = [Evolution(config.embedding_dim) for _ in self._sequences]
        self._deep = deep_network(config.hidden, config.dropout, config.activation, bias=True)

    def call(self, inputs, training=None) -> tf.Tensor:
        """Return the logits."""
        inputs = self._hide(inputs, training=training)
        fields = self._embedding(inputs)
        item = dict(zip([f.name for f in self._plain], tf.unstack(fields, axis=1), strict=True))
        interests = []
        for sequence, extract, evolve in zip(self._sequences, self._extractors, self._evolutions, strict=True):
            of = str(sequence.sequence_of)
            ids = inputs[sequence.name]
            events, given = self._embedding.look_up(of, ids), tf.not_equal(ids, PADDING)
            states = extract(events, mask=given)
            if training and self._auxiliary:
                wrong = tf.random.uniform(tf.shape(ids), 1, sequence.size, ids.dtype)
                self.add_loss(
                    self._auxiliary * next_event_loss(states, events, self._embedding.look_up(of, wrong), given)
                )
            interests.append(evolve([states, item[of], given]))
        stacked = tf.concat([fields, tf.stack(interests, axis=1)], axis=1)
        return tf.squeeze(self._deep(stacked, training=training), axis=1)

    @property
    def output_biases(self) -> list[tf.Variable]:
        """The bias of the last layer."""
        return [self._deep.layers[-1].bias]


def next_event_loss(states: tf.Tensor, events: tf.Tensor, others: tf.Tensor, given: tf.Tensor) -> tf.Tensor:
    """Return how badly the state at an event tells the next event from a random one (equation 6), a scalar.

    States, events and random `others` are of shape [batch, values, dim]; `given` [batch, values] marks real events.
    """
    follows = tf.cast(given[:, 1:], states.dtype)
    right = tf.reduce_sum(states[:, :-1] * events[:, 1:], axis=-1)
    wrong = tf.reduce_sum(states[:, :-1] * others[:, 1:], axis=-1)
    loss = (tf.nn.softplus(-right) + tf.nn.softplus(wrong)) * follows
    return tf.reduce_sum(loss) / tf.maximum(tf.reduce_sum(follows), 1.0)


class Evolution(keras.layers.Layer):
    """[states [batch, values, dim], item [batch, dim], given [batch, values]] -> interest [batch, dim].

    The weight of a state is the softmax of state W item over the sequence (equation 13, before it is summed).
    """

    def __init__(self, dim: int, **kwargs):
        super().__init__(**kwargs)
        self._project = keras.layers.Dense(dim, use_bias=False)
        self._evolve = keras.layers.RNN(AttentionalGRUCell(dim))

    def call(self, inputs) -> tf.Tensor:
        """Weigh each state and let the interest evolve."""
        states, item, given = inputs
        scores = tf.reduce_sum(states * self._project(item)[:, tf.newaxis], axis=-1)
        weights = tf.nn.softmax(tf.where(given, scores, scores.dtype.min), axis=1)
        return self._evolve(tf.concat([states, weights[:, :, tf.newaxis]], axis=-1), mask=given)


class AttentionalGRUCell(keras.layers.Layer):
    """A GRU cell whose update gate is scaled by the weight in the input's last column (AUGRU, equations 15 and 16)."""

    def __init__(self, units: int, **kwargs):
        super().__init__(**kwargs)
        self.state_size = self.output_size = units

    def build(self, input_shape) -> None:
        """Make the weights of update, reset and candidate, side by side."""
        units = self.state_size
        self._kernel = self.add_weight(name="kernel", shape=[input_shape[-1] - 1, 3 * units])
        self._recurrent = self.add_weight(name="recurrent", shape=[units, 3 * units], initializer="orthogonal")
        self._bias = self.add_weight(name="bias", shape=[3 * units], initializer="zeros")
        super().build(input_shape)

    def call(self, inputs, states, training=None):
        """Return the next state, as output and as state."""
        (state,) = states
        of_input = tf.split(tf.matmul(inputs[:, :-1], self._kernel) + self._bias, 3, axis=1)
        of_state = tf.split(tf.matmul(state, self._recurrent), 3, axis=1)
        update = inputs[:, -1:] * tf.sigmoid(of_input[0] + of_state[0])
        reset = tf.sigmoid(of_input[1] + of_state[1])
        candidate = tf.tanh(of_input[2] + reset * of_state[2])
        state = (1.0 - update) * state + update * candidate
        return state, [state]
