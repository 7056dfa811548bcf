"""AUC and LogLoss over a stream of batches, from counts that several processes can add up."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

_BUCKETS = 1 << 14
_WIDEST = 16.0  # logits beyond it count as this: a probability of one in ten million


class StreamingAUC:
    """Counts of positives and negatives by logit, and the sum of their losses."""

    def __init__(self) -> None:
        self._counts = tf.Variable(tf.zeros([2 * _BUCKETS], tf.int64), trainable=False)
        self._loss = tf.Variable(0.0, trainable=False, dtype=tf.float64)

    def add(self, labels: tf.Tensor, logits: tf.Tensor) -> None:
        """Count a batch, [batch] each, in a graph or eagerly."""
        scaled = (tf.clip_by_value(logits, -_WIDEST, _WIDEST) + _WIDEST) * ((_BUCKETS - 1) / (2 * _WIDEST))
        at = tf.cast(scaled, tf.int32) + _BUCKETS * tf.cast(labels > 0.5, tf.int32)
        self._counts.scatter_add(tf.IndexedSlices(tf.ones_like(at, tf.int64), at))
        losses = tf.nn.sigmoid_cross_entropy_with_logits(labels, logits)
        self._loss.assign_add(tf.cast(tf.reduce_sum(losses), tf.float64))

    def take(self) -> np.ndarray:
        """Return everything counted so far as one vector, which adds up over processes, and start anew."""
        taken = np.append(self._counts.numpy().astype(np.float64), self._loss.numpy())
        self._counts.assign(tf.zeros_like(self._counts))
        self._loss.assign(0.0)
        return taken


def figures(taken: np.ndarray) -> dict[str, float]:
    """Return `auc` and `logloss` of what was counted; 0.5 where there is only one class, which `one_label` says."""
    negatives, positives = taken[:_BUCKETS], taken[_BUCKETS:-1]
    pairs = negatives.sum() * positives.sum()
    # Of a pair in one bucket nobody knows which came first: half (Mann and Whitney 1947).
    won = (positives * (np.cumsum(negatives) - 0.5 * negatives)).sum()
    return {
        "auc": float(won / pairs) if pairs else 0.5,
        "logloss": float(taken[-1] / max(negatives.sum() + positives.sum(), 1)),
        **({} if pairs else {"one_label": 1.0}),
    }
