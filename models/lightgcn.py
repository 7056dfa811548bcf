"""LightGCN (He et al. 2020): vectors of users and items, spread over the graph of who met what."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import scipy.sparse
import tensorflow as tf

from configs.model.topn import LightGCN as LightGCNConfig
from models.bpr import mean_of
from models.topn.interactions import Interactions
from models.topn.ranker import PairRanker, VectorRanker
from transforms.transformed import TransformedFeature


class LightGCN(PairRanker, VectorRanker):
    """The mean over layers k of A^k E, where A is the graph, each edge divided by sqrt(degree) of both its ends.

    Equations 3 to 8. A is sparse: spreading is linear in the number of edges. Trained by BPR, the penalty on E.
    """

    def __init__(self, config: LightGCNConfig, features: Sequence[TransformedFeature]):
        super().__init__(config, features)
        nodes = self.user.size + self.items
        self._vectors = self.add_weight(
            name="vectors", shape=[nodes, config.dim], initializer=tf.random_normal_initializer(stddev=0.1)
        )
        self._of_users = self.add_weight(
            name="user_index", shape=[self.user.size, config.dim], initializer="zeros", trainable=False
        )
        self._index = self.add_weight(
            name="index", shape=[self.items, config.dim], initializer="zeros", trainable=False
        )

    def prepared(self, known: Interactions) -> None:
        """Lay out the graph."""
        super().prepared(known)
        self._graph = Graph(known)

    def example_losses(self, inputs, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Return -ln sigmoid(x_ui - x_uj), the mean over the drawn j, and half the penalty: [batch]."""
        vectors = tf.convert_to_tensor(self._vectors)
        spread = self._spread(vectors)
        users = tf.gather(spread, inputs["user"])
        columns, usable = self.sampler.draw(
            inputs["user"],
            lambda c: tf.einsum("rd,rnd->rn", users, tf.gather(spread, c + self.user.size)),
        )
        used, items = tf.cast(usable, tf.float32), inputs["item"] + self.user.size
        others = columns + self.user.size
        own = tf.reduce_sum(users * tf.gather(spread, items), axis=1)
        gaps = own[:, tf.newaxis] - tf.einsum("rd,rnd->rn", users, tf.gather(spread, others))
        squares = tf.reduce_sum(tf.square(vectors), axis=1)
        penalty = tf.gather(squares, inputs["user"]) + tf.gather(squares, items)
        penalty += mean_of(tf.gather(squares, others), used)
        return mean_of(tf.nn.softplus(-gaps), used) + 0.5 * self.config.l2 * penalty

    def _spread(self, vectors: tf.Tensor) -> tf.Tensor:
        times = self._graph.product()
        total, layer = vectors, vectors
        for _ in range(self.config.layers):
            layer = times(layer)
            total += layer
        return total / (self.config.layers + 1)

    def refresh(self) -> None:
        """Spread the vectors."""
        users, items = tf.split(self._spread(tf.convert_to_tensor(self._vectors)), [self.user.size, self.items])
        self._of_users.assign(users)
        self._index.assign(items)

    def user_vectors(self, inputs) -> tf.Tensor:
        """Return the users' vectors, [batch, dim]."""
        return tf.gather(tf.convert_to_tensor(self._of_users), inputs[self.user.name])

    @property
    def item_vectors(self) -> tf.Variable:
        """The items' vectors, [items, dim]."""
        return self._index


class Graph:
    """Users and, after them, items; an edge for each pair that met, in compressed sparse rows."""

    def __init__(self, known: Interactions):
        met = known.matrix()
        nodes = scipy.sparse.bmat([[None, met], [met.T, None]]).tocoo()
        degrees = np.maximum(np.bincount(nodes.row, minlength=nodes.shape[0]), 1)
        weights = nodes.data / np.sqrt(degrees[nodes.row] * degrees[nodes.col])
        order = np.lexsort((nodes.col, nodes.row))
        self._edges = tf.constant(np.stack([nodes.row, nodes.col], axis=1)[order], tf.int64)
        self._weights = tf.constant(weights[order], tf.float32)
        self._shape = tf.constant(nodes.shape, tf.int64)

    def product(self) -> Callable[[tf.Tensor], tf.Tensor]:
        """Return the function that multiplies the graph with vectors, [nodes, dim].

        The graph is symmetric: so is the gradient, at the same cost.
        """
        # Made anew in each step: a loop does not take the kernel's own form of a matrix from outside.
        rows = tf.raw_ops.SparseTensorToCSRSparseMatrix(
            indices=self._edges, values=self._weights, dense_shape=self._shape
        )

        def product(x: tf.Tensor) -> tf.Tensor:
            return tf.ensure_shape(tf.raw_ops.SparseMatrixMatMul(a=rows, b=x), x.shape)

        @tf.custom_gradient
        def both_ways(x: tf.Tensor):
            return product(x), product

        return both_ways
