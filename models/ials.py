"""Implicit matrix factorization by alternating least squares (Hu et al. 2008; Rendle et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse
import tensorflow as tf

from configs.features import WEIGHT
from configs.model.topn import IALS as IALSConfig
from models.base import Inputs
from models.topn.interactions import Interactions, interactions
from models.topn.ranker import FittedRanker, Past, VectorRanker
from transforms.transformed import TransformedFeature

_SOLVED_AT_ONCE = 512
_DEVIATION = 0.1  # of the first vectors, times 1 / sqrt(dim)


class IALS(VectorRanker, FittedRanker):
    """min sum_S w (u.i - 1)^2 + unobserved sum_all (u.i)^2 + l2 sum (events + unobserved others)^nu |v|^2.

    Rendle et al. 2022, equations 1 to 4. `adapt` solves users and items in turn; a request's user is solved from its
    past, so that the newest events count without another training.

    w is how many events the pair has; where these have weights, 1 + alpha * their sum or, with epsilon,
    1 + alpha * log(1 + sum / epsilon): the confidence of Hu et al. 2008, equation 1 and section 6. A request's past
    has no weights: each of its items gets the median confidence.
    """

    seeded = True

    def __init__(self, config: IALSConfig, features: Sequence[TransformedFeature]):
        super().__init__(config, features)
        self.past = Past(features, config.past)
        self._config = config
        self._asked = self.add_weight(name="confidence", shape=[], initializer="ones", trainable=False)
        self._vectors = self.add_weight(
            name="item_vectors", shape=[self.items, config.dim], initializer="zeros", trainable=False
        )

    def adapt(self, examples: tf.data.Dataset) -> None:
        """Solve for batches of (inputs, labels)."""
        weighted = WEIGHT in examples.element_spec[0]
        self.fit_to(interactions(examples.as_numpy_iterator(), self.features), weighted)

    def fit_to(self, known: Interactions, weighted: bool = False) -> None:
        """Solve for the items' vectors; `weighted` says that the events' weights are more than ones."""
        self.known = known
        self.past.keep(known)
        config = self._config
        met = known.matrix(binary=False)
        if weighted:
            met.data = self._confidence(met.data)
            self._asked.assign(np.median(met.data))
        met = met[np.flatnonzero(np.diff(met.indptr))]  # users without events have the vector 0
        of_items = met.T.tocsr()
        items = tf.random.normal([self.items, config.dim], stddev=_DEVIATION / np.sqrt(config.dim)).numpy()
        for _ in range(config.sweeps):
            users = self.solved(met, items)
            items = self.solved(of_items, users)
        self._vectors.assign(items)

    def solved(self, met: scipy.sparse.csr_matrix, others: np.ndarray) -> np.ndarray:
        """Return the best vectors of the rows of `met`, given those of its columns: [rows, dim]."""
        config = self._config
        everywhere = config.unobserved * others.T @ others
        found = np.zeros((met.shape[0], config.dim))
        for start in range(0, met.shape[0], _SOLVED_AT_ONCE):
            rows = range(start, min(start + _SOLVED_AT_ONCE, met.shape[0]))
            left, right = np.empty((len(rows), config.dim, config.dim)), np.empty((len(rows), config.dim))
            for place, row in enumerate(rows):
                columns = slice(met.indptr[row], met.indptr[row + 1])
                weights, vectors = met.data[columns], others[met.indices[columns]]
                left[place] = everywhere + vectors.T @ (vectors * weights[:, np.newaxis])
                left[place].flat[:: config.dim + 1] += self._penalty(len(weights), len(others))
                right[place] = weights @ vectors
            found[start : start + len(rows)] = np.linalg.solve(left, right[..., np.newaxis])[..., 0]
        return found

    def _confidence(self, weights: np.ndarray) -> np.ndarray:
        config = self._config
        scaled = weights if config.epsilon is None else np.log1p(weights / config.epsilon)
        return 1.0 + config.alpha * scaled

    def _penalty(self, events, others: int):
        return self._config.l2 * (events + self._config.unobserved * others) ** self._config.nu

    def user_vectors(self, inputs: Inputs) -> tf.Tensor:
        """Return the users' vectors, solved from their past: [batch, dim]."""
        past = self.past(inputs)
        given = tf.cast(past >= 0, tf.float32)
        vectors = tf.gather(self._vectors, tf.maximum(past, 0)) * given[:, :, tf.newaxis]
        everywhere = self._config.unobserved * tf.matmul(self._vectors, self._vectors, transpose_a=True)
        penalty = self._penalty(tf.reduce_sum(given, axis=1), self.items)[:, tf.newaxis, tf.newaxis]
        seen = self._asked * tf.matmul(vectors, vectors, transpose_a=True)
        left = everywhere + seen + penalty * tf.eye(self._config.dim)
        return tf.linalg.solve(left, self._asked * tf.reduce_sum(vectors, axis=1)[:, :, tf.newaxis])[:, :, 0]

    @property
    def item_vectors(self) -> tf.Variable:
        """The items' vectors, [items, dim]."""
        return self._vectors
