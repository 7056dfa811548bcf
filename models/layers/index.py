"""Largest inner products of a query with many vectors, in plain TensorFlow operations: exact, or by inverted lists.

Any model server that runs TensorFlow runs them; nothing needs XLA or a custom kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import tensorflow as tf

GROUP = 64  # scores whose largest stands for them all while the best are looked for
_SCORES_AT_ONCE = 1 << 24  # 64 MiB: queries of a batch are searched in blocks that have no more scores than this
_TRAINED_ON = 64  # vectors a list that k-means looks at; more move the centroids little
_ASSIGNED_AT_ONCE = 1 << 24

FOUND = (tf.TensorSpec([None, None], tf.float32), tf.TensorSpec([None, None], tf.int32))
Found = tuple[tf.Tensor, tf.Tensor]  # scores, best first, and places in the index, both [batch, k]


class Index(Protocol):
    """Something that can be searched."""

    def search(self, query: tf.Tensor, k: tf.Tensor | int) -> Found:
        """Return the `k` best of all, or all there are, for queries [batch, dim]."""
        ...


def best(scores: tf.Tensor, k: tf.Tensor | int) -> Found:
    """Return the `k` largest of `scores` [batch, n] and their places, exactly; of equal ones the first.

    The k best lie in the k groups whose largest is best, so that one pass over the scores and a look at k groups do:
    a whole sort costs several times as much.
    """
    rows, n = tf.unstack(tf.shape(scores), 2)
    k = tf.minimum(tf.cast(k, tf.int32), n)
    groups = -(-n // GROUP)
    filled = tf.pad(scores, [[0, 0], [0, groups * GROUP - n]], constant_values=-np.inf)
    return _best_of_groups(tf.reshape(filled, [rows, groups, GROUP]), n, k)


def _best_of_groups(grouped: tf.Tensor, n: tf.Tensor | int, k: tf.Tensor) -> Found:
    """Return the best of scores [batch, groups, GROUP]; those from place `n` on are no scores, whatever they hold."""
    rows, groups, _ = tf.unstack(tf.shape(grouped), 3)
    # One group more than k: what fills the last one up may have won it a place.
    _, chosen = tf.math.top_k(tf.reduce_max(grouped, axis=2), tf.minimum(k + 1, groups), sorted=False)
    chosen = tf.sort(chosen, axis=1)  # so that of equal scores the first is found
    places = tf.reshape(chosen[:, :, tf.newaxis] * GROUP + tf.range(GROUP), [rows, -1])
    scores = tf.reshape(tf.gather(grouped, chosen, batch_dims=1), [rows, -1])
    scores = tf.where(places < n, scores, -np.inf)
    found, at = tf.math.top_k(scores, k)
    return found, tf.gather(places, at, batch_dims=1)


class ExactIndex(tf.Module):
    """Every vector is looked at: one product of matrices, then `best`.

    It holds 4 bytes a dimension of each vector, and 4 bytes a vector for each query of a block while it searches.
    """

    def __init__(self, vectors: np.ndarray, name: str = "exact_index"):
        """`vectors` are [n, dim]."""
        super().__init__(name)
        self._count = len(vectors)
        groups = -(-self._count // GROUP)
        filled = np.zeros([vectors.shape[1], groups * GROUP], np.float32)
        filled[:, : self._count] = vectors.T
        self._vectors = tf.Variable(filled, trainable=False, name="vectors")

    def search(self, query: tf.Tensor, k: tf.Tensor | int) -> Found:
        """Return the exact best."""
        k = tf.minimum(tf.cast(k, tf.int32), self._count)

        def search(query: tf.Tensor) -> Found:
            grouped = tf.reshape(tf.matmul(query, self._vectors), [tf.shape(query)[0], -1, GROUP])
            return _best_of_groups(grouped, self._count, k)

        return in_blocks(search, [query], max(1, _SCORES_AT_ONCE // max(self._count, 1)), FOUND)


class InvertedIndex(tf.Module):
    """Vectors in lists about centroids, of which a query looks into the `probes` that promise most.

    Inner products become distances by one more dimension, sqrt(largest norm^2 - norm^2) of each vector and 0 of a query
    (Bachrach et al. 2014), in which k-means finds the centroids. A query's length changes no order, so it gets that of
    the vectors. It holds 4 bytes a dimension of each vector.
    """

    def __init__(
        self,
        vectors: np.ndarray,
        lists: int | None = None,
        probes: int | None = None,
        seed: int = 0,
        name: str = "inverted_index",
    ):
        """`vectors` are [n, dim]; by default there are 4 sqrt(n) `lists`, `probes` a sixteenth of them."""
        super().__init__(name)
        lists = min(lists or int(4 * len(vectors) ** 0.5), len(vectors))
        lengthened = with_norm(vectors)
        centroids = k_means(lengthened, lists, seed)
        assigned = nearest(lengthened, centroids)
        order = np.argsort(assigned, kind="stable")
        ends = np.cumsum(np.bincount(assigned, minlength=lists))
        self.probes = min(probes or max(8, lists // 16), lists)
        self._length = float(np.linalg.norm(lengthened[0]))
        self._vectors = tf.Variable(vectors[order].astype(np.float32), trainable=False, name="vectors")
        self._places = tf.Variable(order.astype(np.int32), trainable=False, name="places")
        self._starts = tf.Variable(np.append(0, ends).astype(np.int32), trainable=False, name="starts")
        self._centroids = tf.Variable(centroids[:, :-1].T, trainable=False, name="centroids")
        self._half_norms = tf.Variable(np.square(centroids).sum(axis=1) / 2, trainable=False, name="half_norms")

    def search(self, query: tf.Tensor, k: tf.Tensor | int) -> Found:
        """Return the best of the lists looked into; more lists than `probes` where those do not hold `k` vectors."""
        count = self._places.shape[0]
        k = tf.minimum(tf.cast(k, tf.int32), count)
        promise = tf.matmul(tf.math.l2_normalize(query, axis=1) * self._length, self._centroids) - self._half_norms
        _, order = tf.math.top_k(promise, self._centroids.shape[1])

        def search(row: tuple[tf.Tensor, tf.Tensor]) -> Found:
            one, lists = row
            starts, ends = tf.gather(self._starts, lists), tf.gather(self._starts, lists + 1)
            enough = tf.searchsorted(tf.cumsum(ends - starts), [k])[0] + 1
            used = tf.maximum(enough, self.probes)
            at = tf.ragged.range(starts[:used], ends[:used]).flat_values
            scores, found = best(tf.linalg.matvec(tf.gather(self._vectors, at), one)[tf.newaxis], k)
            return scores[0], tf.gather(self._places, tf.gather(at, found[0]))

        signature = (tf.TensorSpec([None], tf.float32), tf.TensorSpec([None], tf.int32))
        return tf.map_fn(search, (query, order), fn_output_signature=signature)


def with_norm(vectors: np.ndarray) -> np.ndarray:
    """Return vectors [n, dim + 1] of one length, whose nearest to (q, 0) has the largest inner product with q."""
    squared = np.square(vectors, dtype=np.float64).sum(axis=1)
    missing = np.sqrt(np.maximum(squared.max(initial=0.0) - squared, 0.0))
    return np.concatenate([vectors, missing[:, np.newaxis]], axis=1).astype(np.float32)


def k_means(vectors: np.ndarray, lists: int, seed: int, rounds: int = 8) -> np.ndarray:
    """Return centroids [lists, dim] by Lloyd's algorithm on a sample of the vectors [n, dim].

    A list that nothing is nearest to starts anew from a vector drawn by chance.
    """
    draw = np.random.default_rng(seed)
    sample = vectors[np.sort(draw.permutation(len(vectors))[: lists * _TRAINED_ON])]
    centroids = sample[draw.permutation(len(sample))[:lists]]
    for _ in range(rounds):
        assigned = nearest(sample, centroids)
        counts = np.bincount(assigned, minlength=lists)
        order = np.argsort(assigned, kind="stable")
        starts, empty = np.cumsum(counts) - counts, counts == 0
        centroids = sample[draw.integers(len(sample), size=lists)]
        centroids[~empty] = np.add.reduceat(sample[order], starts[~empty], axis=0) / counts[~empty, np.newaxis]
    return centroids


def nearest(vectors: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Return the centroid nearest to each vector, [n]."""
    half_norms = np.square(centroids).sum(axis=1) / 2
    rows = max(1, _ASSIGNED_AT_ONCE // len(centroids))
    parts = [(vectors[at : at + rows] @ centroids.T - half_norms).argmax(axis=1) for at in range(0, len(vectors), rows)]
    return np.concatenate([np.zeros(0, np.int64), *parts])


def in_blocks(
    function: Callable[..., Sequence[tf.Tensor]],
    tensors: Sequence[tf.Tensor],
    rows: int,
    specs: Sequence[tf.TensorSpec],
) -> tuple[tf.Tensor, ...]:
    """Return what `function` gives for blocks of up to `rows` rows of `tensors`, joined: tensors of `specs`."""
    count = tf.shape(tensors[0])[0]

    def at_once() -> tuple[tf.Tensor, ...]:
        return tuple(function(*tensors))

    def one_by_one() -> tuple[tf.Tensor, ...]:
        blocks = -(-count // rows)
        arrays = [tf.TensorArray(s.dtype, blocks, infer_shape=False) for s in specs]

        def step(block, arrays):
            part = slice(block * rows, (block + 1) * rows)
            made = function(*(t[part] for t in tensors))
            return block + 1, [a.write(block, m) for a, m in zip(arrays, made, strict=True)]

        _, arrays = tf.while_loop(lambda block, _: block < blocks, step, (0, arrays), parallel_iterations=1)
        return tuple(a.concat() for a in arrays)

    joined = tf.cond(count <= rows, at_once, one_by_one)
    return tuple(tf.ensure_shape(j, s.shape) for j, s in zip(joined, specs, strict=True))
