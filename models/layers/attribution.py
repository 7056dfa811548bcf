"""What each part of a model adds to a logit, feature by feature, so that all of it adds up to the logit."""

from __future__ import annotations

from collections.abc import Callable
from math import comb

import numpy as np
import tensorflow as tf

_EXACT_FIELDS = 10  # up to here all subsets are tried
_PERMUTATIONS = 16  # of more fields, each also taken backwards


def interactions(fields: tf.Tensor) -> tf.Tensor:
    """Return the inner product of each pair of fields, [batch, fields, dim] -> [batch, fields, fields].

    Only above the diagonal: all entries add up to `pairwise_interactions`.
    """
    products = tf.matmul(fields, fields, transpose_b=True)
    return tf.linalg.band_part(products, 0, -1) - tf.linalg.band_part(products, 0, 0)


def shapley(value: Callable[[tf.Tensor], tf.Tensor], fields: tf.Tensor, seed: int = 0) -> tuple[tf.Tensor, tf.Tensor]:
    """Return each field's part of `value(fields)` and `value` of no field: [batch, fields] and [batch].

    A field's part is its Shapley value (Shapley 1953; as an attribution, Lundberg and Lee 2017): what it changes,
    averaged over the orders in which fields can come in; one that is left out is the zero vector. All parts and the
    value of no field add up to `value(fields)`. Of many fields the orders are a sample (Castro et al. 2009), with the
    same sum.
    """
    count = fields.shape[1]
    masks, weights = _design(count, seed)
    batch = tf.shape(fields)[0]
    masked = fields[:, tf.newaxis] * tf.cast(tf.constant(masks == 1), fields.dtype)[tf.newaxis, :, :, tf.newaxis]
    values = tf.reshape(value(tf.reshape(masked, [-1, count, fields.shape[2]])), [batch, len(masks)])
    parts = tf.matmul(tf.cast(values, tf.float64), tf.constant(weights, tf.float64), transpose_b=True)
    return tf.cast(parts, fields.dtype), values[:, 0]


def _design(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the subsets to try, [subsets, fields], the empty one first, and what their values weigh in each field's
    part, [fields, subsets].
    """
    if count <= _EXACT_FIELDS:
        masks = (np.arange(2**count)[:, np.newaxis] >> np.arange(count)) & 1
        size = masks.sum(axis=1)
        with_it = 1.0 / (count * np.array([comb(count - 1, s - 1) if s else 1 for s in size]))
        without = np.array([1.0 / (count * comb(count - 1, s)) if s < count else 0.0 for s in size])
        return masks, np.where(masks == 1, with_it[:, np.newaxis], -without[:, np.newaxis]).T
    return _sampled(count, seed)


def _sampled(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    orders = [o for _ in range(_PERMUTATIONS) for p in [random.permutation(count)] for o in (p, p[::-1])]
    index: dict[bytes, int] = {}
    rows: list[np.ndarray] = []

    def subset(members: np.ndarray) -> int:
        mask = np.zeros(count, np.int64)
        mask[members] = 1
        if mask.tobytes() not in index:
            index[mask.tobytes()] = len(rows)
            rows.append(mask)
        return index[mask.tobytes()]

    subset(np.zeros(0, np.int64))
    steps = [(order[i - 1], subset(order[: i - 1]), subset(order[:i])) for order in orders for i in range(1, count + 1)]
    weights = np.zeros((count, len(rows)))
    for field, before, after in steps:
        weights[field, after] += 1 / len(orders)
        weights[field, before] -= 1 / len(orders)
    return np.stack(rows), weights
