"""A process among those that train together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf


@dataclass(frozen=True)
class WorkerContext:
    """This process among those that train together."""

    index: int = 0
    count: int = 1
    strategy: tf.distribute.Strategy = field(default_factory=tf.distribute.get_strategy)

    @property
    def chief(self) -> bool:
        """Whether it is the one that reports, keeps and exports."""
        return self.index == 0

    def share_of(self, batch: int) -> int:
        """Return how many examples of a global batch this process takes."""
        return batch // self.count + (self.index < batch % self.count)

    def total(self, vector: np.ndarray) -> np.ndarray:
        """Return the sum of a vector over all processes; all of them must call it."""
        if self.count == 1:
            return vector
        added = self.strategy.experimental_local_results(self._sum(tf.constant(vector, tf.float64)))
        return added[0].numpy()

    def largest(self, value: int) -> int:
        """Return the largest value that any process has; all of them must call it."""
        own = np.zeros(self.count)
        own[self.index] = value
        return int(self.total(own).max())

    @cached_property
    def _sum(self) -> Callable[[tf.Tensor], Any]:
        def of_replica(vector):
            context = tf.distribute.get_replica_context()
            first = context.replica_id_in_sync_group % self._replicas_here == 0
            own = tf.where(first, vector, tf.zeros_like(vector))
            return context.all_reduce(tf.distribute.ReduceOp.SUM, own)

        return tf.function(lambda vector: self.strategy.run(of_replica, args=(vector,)), autograph=False)

    @property
    def _replicas_here(self) -> int:
        return self.strategy.num_replicas_in_sync // self.count
