"""DCN-v2 (Wang et al. 2021): embeddings crossed with themselves layer by layer, and a deep network."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
import tf_keras as keras

from configs.model import DCN as DCNConfig
from models.base import Recommender
from models.layers.deep import deep_network
from models.layers.embedding import FieldEmbedding
from models.layers.hide_ids import HideIds
from transforms.transformed import TransformedFeature


class DCN(Recommender):
    """Transformed features -> logits [batch]: of the crossed embeddings and of a deep network beside or above them."""

    def __init__(self, config: DCNConfig, features: Sequence[TransformedFeature]):
        super().__init__(config, features)
        self._hide = HideIds(features, config.id_dropout)
        self._embedding = FieldEmbedding(features, config.embedding_dim, config.l2)
        self._crosses = [Cross(config.rank) for _ in range(config.cross_layers)]
        self._stacked = config.structure == "stacked"
        self._linear = keras.layers.Dense(1)
        self._deep = deep_network(config.hidden, config.dropout, bias=self._stacked)

    def call(self, inputs, training=None) -> tf.Tensor:
        """Return the logits."""
        fields = self._embedding(self._hide(inputs, training=training))
        first = crossed = tf.reshape(fields, [-1, fields.shape[1] * fields.shape[2]])
        for cross in self._crosses:
            crossed = cross([first, crossed])
        deep = self._deep(crossed if self._stacked else first, training=training)
        # Stacked, the paper has the deep part alone above the crosses; parallel, one linear layer above both.
        return tf.squeeze(deep if self._stacked else deep + self._linear(crossed), axis=1)

    @property
    def output_biases(self) -> list[tf.Variable]:
        """The bias of the last layer."""
        return [self._deep.layers[-1].bias if self._stacked else self._linear.bias]


class Cross(keras.layers.Layer):
    """[x0, x] -> x0 * (W x + b) + x, all of shape [batch, width] (equation 1).

    With a `rank` W is the product of two thinner matrices (equation 2).
    """

    def __init__(self, rank: int | None = None, **kwargs):
        super().__init__(**kwargs)
        self._rank = rank

    def build(self, input_shape) -> None:
        """Make W and b."""
        width = input_shape[0][-1]
        shapes = [[width, width]] if self._rank is None else [[width, self._rank], [self._rank, width]]
        self._kernels = [
            self.add_weight(name=f"kernel_{i}", shape=shape, initializer="glorot_uniform")
            for i, shape in enumerate(shapes)
        ]
        self._bias = self.add_weight(name="bias", shape=[width], initializer="zeros")
        super().build(input_shape)

    def call(self, inputs) -> tf.Tensor:
        """Cross once."""
        first, crossed = inputs
        weighted = crossed
        for kernel in self._kernels:
            weighted = tf.matmul(weighted, kernel)
        return first * (weighted + self._bias) + crossed
