"""Optimizers whose step costs what a batch looked up, not what a table holds.

All are legacy Keras optimizers: their updates of dense weights are single kernels, and they know sharded variables.
"""

from __future__ import annotations

import tensorflow as tf
import tf_keras as keras

from configs.model import Training
from models.layers.rows import put_rows, rows_of, shards_of


class _OfTables(keras.optimizers.legacy.Optimizer):
    """For sparse gradients that have each row once, as `rows_once` makes them: not looked for again, table by table."""

    def _resource_apply_sparse_duplicate_indices(self, grad, handle, indices, **kwargs):
        return self._resource_apply_sparse(grad, handle, indices, **kwargs)

    def _resource_apply_dense(self, grad, var, apply_state=None):
        raise TypeError(f"{var.name}: the gradient of a table must be sparse")


class LazyAdam(_OfTables, keras.optimizers.legacy.Adam):
    """Adam (Kingma and Ba 2015) that moves a row and its moments only when the row was looked up.

    Keras' own decays the moments of every row at each step. Bias correction is by the steps of the whole training.
    A row's two moments lie beside one another, so that both are read at once: [rows, 2 * dim].
    """

    def _create_slots(self, var_list) -> None:
        for var in var_list:
            self.add_slot(var, "moments", shape=[var.shape[0], 2 * var.shape[1]])

    def _resource_apply_sparse(self, grad, var, indices, apply_state=None):
        c = (apply_state or {}).get((var.device, var.dtype.base_dtype)) or self._fallback_apply_state(
            var.device, var.dtype.base_dtype
        )
        moments = self.get_slot(var, "moments")
        m, v = tf.split(rows_of(moments, indices), 2, axis=1)
        m = m * c["beta_1_t"] + grad * c["one_minus_beta_1_t"]
        v = v * c["beta_2_t"] + tf.square(grad) * c["one_minus_beta_2_t"]
        rows = rows_of(var, indices) - c["lr"] * m / (tf.sqrt(v) + c["epsilon"])
        return tf.group(put_rows(moments, indices, tf.concat([m, v], axis=1)), put_rows(var, indices, rows))


class Adagrad(_OfTables, keras.optimizers.legacy.Adagrad):
    """Adagrad (Duchi et al. 2011)."""


class RowwiseAdagrad(_OfTables):
    """Adagrad (Duchi et al. 2011) with one accumulator a row: the mean square of its gradients (Gupta et al. 2020)."""

    def __init__(
        self, learning_rate: float, initial: float = 0.1, epsilon: float = 1e-7, name: str = "rowwise_adagrad"
    ):
        super().__init__(name)
        self._set_hyper("learning_rate", learning_rate)
        self._set_hyper("decay", 0.0)
        self._initial = initial
        self._epsilon = epsilon

    def _create_slots(self, var_list) -> None:
        for var in var_list:
            self.add_slot(var, "accumulator", keras.initializers.Constant(self._initial), shape=[var.shape[0], 1])

    def _resource_apply_sparse(self, grad, var, indices, apply_state=None):
        accumulator = self.get_slot(var, "accumulator")
        squares = rows_of(accumulator, indices) + tf.reduce_mean(tf.square(grad), axis=1, keepdims=True)
        step = self._decayed_lr(var.dtype.base_dtype) * grad / (tf.sqrt(squares) + self._epsilon)
        rows = rows_of(var, indices) - step
        return tf.group(put_rows(accumulator, indices, squares), put_rows(var, indices, rows))

    def get_config(self):
        """Return what makes it again."""
        own = {"learning_rate": self._serialize_hyperparameter("learning_rate"), "initial": self._initial}
        return super().get_config() | own | {"epsilon": self._epsilon}


_INITIAL = 0.1  # of Adagrad's accumulators; a row that holds more has been looked up


def dense_optimizer(config: Training) -> keras.optimizers.legacy.Optimizer:
    """Return the optimizer of all weights but tables."""
    _, rate = config.step_sizes
    if config.optimizer == "adagrad":
        return keras.optimizers.legacy.Adagrad(rate, _INITIAL)
    return keras.optimizers.legacy.Adam(rate)


def table_optimizer(config: Training) -> keras.optimizers.legacy.Optimizer:
    """Return the optimizer of embedding tables."""
    rate, _ = config.step_sizes
    optimizer = config.tables.optimizer
    if optimizer == "adagrad":
        return Adagrad(rate, _INITIAL)
    if optimizer == "rowwise_adagrad":
        return RowwiseAdagrad(rate, _INITIAL)
    return LazyAdam(rate)


def rows_seen(optimizer: keras.optimizers.legacy.Optimizer, table: tf.Variable, start: int, rows: int) -> int:
    """Return how many rows of a table, from row `start` of its variable on, the optimizer has ever moved."""
    adam = isinstance(optimizer, LazyAdam)
    first = seen = 0
    for shard in shards_of(table):
        slot = optimizer.get_slot(shard, "moments" if adam else "accumulator")
        here = slot[max(start - first, 0) : max(start + rows - first, 0)]
        seen += int(tf.math.count_nonzero(tf.reduce_max(here, axis=1) > (0.0 if adam else _INITIAL)))
        first += int(shard.shape[0])
    return seen
