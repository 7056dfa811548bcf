"""Items that stand for what a user did not choose: how they are drawn, and what corrects their logits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from configs.model.topn import Drawn
from models.topn.interactions import Interactions

_TRIES = 4  # draws of an item before a place that keeps meeting the user's own is left out
_NEVER = -1e9  # logit of an item that is left out of a softmax


class Sampler:
    """Draws columns of items for rows of (user, positive column), never one of the user's own positives.

    `scores(columns [rows, n]) -> logits [rows, n]` is what hard negatives are mined with.
    """

    def __init__(self, config: Drawn, known: Interactions):
        self.config = config
        self._items = known.item_count
        self._pairs = tf.constant(known.pairs())
        counts = known.counts().astype(np.float64)
        self._unigram = tf.constant(np.log(np.maximum(counts, 1e-12) / counts.sum()), tf.float32)
        weights = counts**config.alpha if config.by == "popularity" else np.ones(self._items)
        self._log_q = tf.constant(np.log(np.maximum(weights, 1e-12) / weights.sum()), tf.float32)
        self._ends = tf.constant(np.cumsum(weights) / weights.sum(), tf.float32)
        pairs = known.pairs()
        of_users = np.bincount(pairs // self._items, weights[pairs % self._items] / weights.sum(), known.user_count)
        # Log of the probability that a draw is none of the user's own.
        self._log_left = tf.constant(np.log(np.maximum(1 - of_users, 1e-12)), tf.float32)

    def draw(
        self, users: tf.Tensor, scores: Callable[[tf.Tensor], tf.Tensor] | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return columns [rows, count] int64 and where they may be used; false where all tries met the user's own."""
        if self.config.by != "hard":
            return self._not_met(users, self.config.count)
        assert scores is not None
        pool, usable = self._not_met(users, self.config.pool)
        ranked = tf.where(usable, tf.stop_gradient(scores(pool)), _NEVER)
        _, best = tf.math.top_k(ranked, self.config.count)
        return tf.gather(pool, best, batch_dims=1), tf.gather(usable, best, batch_dims=1)

    def log_q(self, users: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
        """Return log of the probability with which a draw for a user is each of its columns [rows, n], not its own."""
        return tf.gather(self._log_q, columns) - tf.gather(self._log_left, users)[:, tf.newaxis]

    def met(self, users: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
        """Say which columns [rows, n] are among the positives of the rows' users."""
        pairs = tf.cast(users, tf.int64)[:, tf.newaxis] * self._items + tf.cast(columns, tf.int64)
        flat = tf.reshape(pairs, [-1])
        at = tf.minimum(tf.searchsorted(self._pairs, flat), tf.size(self._pairs) - 1)
        return tf.reshape(tf.equal(tf.gather(self._pairs, at), flat), tf.shape(pairs))

    def _not_met(self, users: tf.Tensor, count: int) -> tuple[tf.Tensor, tf.Tensor]:
        shape = tf.stack([tf.shape(users)[0], count])
        columns = self._any(shape)
        own = self.met(users, columns)
        for _ in range(_TRIES - 1):
            columns = tf.where(own, self._any(shape), columns)
            own = self.met(users, columns)
        return columns, ~own

    def _any(self, shape: tf.Tensor) -> tf.Tensor:
        if self.config.by == "popularity":
            drawn = tf.reshape(tf.random.uniform(shape), [-1])
            return tf.reshape(tf.minimum(tf.searchsorted(self._ends, drawn, "right", tf.int64), self._items - 1), shape)
        return tf.random.uniform(shape, 0, self._items, tf.int64)

    def softmax(
        self,
        users: tf.Tensor,
        positives: tf.Tensor,
        queries: tf.Tensor,
        vectors_of: Callable[[tf.Tensor], tf.Tensor],
    ) -> tf.Tensor:
        """Return the sampled-softmax loss of each row, [rows].

        `vectors_of` gives the vectors of columns. Each item's logit, the positive's too, is lowered by the log of how
        probable it was to be drawn (Yi et al. 2019, section 3), so that the loss is that of the softmax over all items
        in expectation. Drawn items that the user has met otherwise are left out.
        """
        if self.config.by not in ("in_batch", "mixed"):
            columns, usable = self.draw(users, lambda c: tf.einsum("rd,rnd->rn", queries, vectors_of(c)))
            own = tf.reduce_sum(queries * vectors_of(positives), axis=1)
            others = tf.einsum("rd,rnd->rn", queries, vectors_of(columns))
            if self.config.by != "hard":  # what a model picks has no probability to correct by
                # As many draws as there are negatives: the correction is of how often an item is expected among them.
                expected = tf.math.log(float(self.config.count)) + self.log_q(users, columns)
                others = others - expected
            logits = tf.concat([own[:, tf.newaxis], tf.where(usable, others, _NEVER)], axis=1)
            return -tf.nn.log_softmax(logits)[:, 0]
        shared, log_q = positives, tf.gather(self._unigram, positives)
        if self.config.by == "mixed":
            rows, drawn = tf.cast(tf.size(positives), tf.float32), float(self.config.count)
            extra = self._any(tf.constant([self.config.count]))
            shared = tf.concat([positives, extra], axis=0)
            # The mixture of both ways to come into the batch (Yang et al. 2020, section 3.3).
            of_batch = tf.exp(tf.gather(self._unigram, shared)) * rows / (rows + drawn)
            log_q = tf.math.log(of_batch + drawn / (rows + drawn) / self._items)
        logits = tf.matmul(queries, vectors_of(shared), transpose_b=True) - log_q
        count = tf.size(positives)
        own = tf.equal(positives[:, tf.newaxis], shared)  # other rows' too: as many as there would be
        met = self.met(users, tf.broadcast_to(shared, [count, tf.size(shared)]))
        logits = tf.where(met & ~own, _NEVER, logits)
        return -tf.linalg.diag_part(tf.nn.log_softmax(logits)[:, :count])
