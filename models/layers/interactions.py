"""Interactions of second order between fields."""

from __future__ import annotations

import tensorflow as tf


def pairwise_interactions(fields: tf.Tensor) -> tf.Tensor:
    """Return the sum over all pairs of fields of their inner products: [batch, fields, dim] -> [batch].

    Rendle 2010, lemma 3.1: half of (square of the sum - sum of the squares).
    """
    return 0.5 * tf.reduce_sum(tf.square(tf.reduce_sum(fields, 1)) - tf.reduce_sum(tf.square(fields), 1), axis=1)
