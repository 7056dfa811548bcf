"""Optimizers whose step costs what a batch looked up, not what a table holds.

All are legacy Keras optimizers: their updates of dense weights are single kernels, they know sharded variables, and a
sparse gradient comes to them with each row once.
"""

from __future__ import annotations

import tensorflow as tf
import tf_keras as keras

from configs.model import Tables, Training


# Not Keras' own helpers: those read the whole variable back.
def _put(variable: tf.Variable, rows: tf.Tensor, values: tf.Tensor) -> tf.Operation:
    return tf.raw_ops.ResourceScatterUpdate(resource=variable.handle, indices=rows, updates=values)


def _add(variable: tf.Variable, rows: tf.Tensor, values: tf.Tensor) -> tf.Operation:
    return tf.raw_ops.ResourceScatterAdd(resource=variable.handle, indices=rows, updates=values)


class LazyAdam(keras.optimizers.legacy.Adam):
    """Adam (Kingma and Ba 2015) that moves a row and its moments only when the row was looked up.

    Keras' own decays the moments of every row at each step. Bias correction is by the steps of the whole training.
    """

    def _resource_apply_sparse(self, grad, var, indices, apply_state=None):
        c = (apply_state or {}).get((var.device, var.dtype.base_dtype)) or self._fallback_apply_state(
            var.device, var.dtype.base_dtype
        )
        m, v = self.get_slot(var, "m"), self.get_slot(var, "v")
        m_rows = tf.gather(m, indices) * c["beta_1_t"] + grad * c["one_minus_beta_1_t"]
        v_rows = tf.gather(v, indices) * c["beta_2_t"] + tf.square(grad) * c["one_minus_beta_2_t"]
        step = c["lr"] * m_rows / (tf.sqrt(v_rows) + c["epsilon"])
        return tf.group(_put(m, indices, m_rows), _put(v, indices, v_rows), _add(var, indices, -step))


class RowwiseAdagrad(keras.optimizers.legacy.Optimizer):
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
        rows = tf.gather(accumulator, indices) + tf.reduce_mean(tf.square(grad), axis=1, keepdims=True)
        step = self._decayed_lr(var.dtype.base_dtype) * grad / (tf.sqrt(rows) + self._epsilon)
        return tf.group(_put(accumulator, indices, rows), _add(var, indices, -step))

    def _resource_apply_dense(self, grad, var, apply_state=None):
        raise TypeError(f"{var.name}: the gradient of a table must be sparse")

    def get_config(self):
        """Return what makes it again."""
        own = {"learning_rate": self._serialize_hyperparameter("learning_rate"), "initial": self._initial}
        return super().get_config() | own | {"epsilon": self._epsilon}


_INITIAL = 0.1  # of Adagrad's accumulators; a row that holds more has been looked up


def dense_optimizer(config: Training) -> keras.optimizers.legacy.Optimizer:
    """Return the optimizer of all weights but tables."""
    if config.optimizer == "adagrad":
        return keras.optimizers.legacy.Adagrad(config.learning_rate, _INITIAL)
    return keras.optimizers.legacy.Adam(config.learning_rate)


def table_optimizer(config: Tables, learning_rate: float) -> keras.optimizers.legacy.Optimizer:
    """Return the optimizer of embedding tables; `learning_rate` stands in where they have none of their own."""
    rate = config.learning_rate or learning_rate
    if config.optimizer == "adagrad":
        return keras.optimizers.legacy.Adagrad(rate, _INITIAL)
    if config.optimizer == "rowwise_adagrad":
        return RowwiseAdagrad(rate, _INITIAL)
    return LazyAdam(rate)


def rows_seen(optimizer: keras.optimizers.legacy.Optimizer, table: tf.Variable, start: int, rows: int) -> int:
    """Return how many rows of a table, from row `start` of its variable on, the optimizer has ever moved."""
    adam = isinstance(optimizer, LazyAdam)
    first = seen = 0
    for shard in getattr(table, "variables", [table]):
        slot = optimizer.get_slot(shard, "v" if adam else "accumulator")
        here = slot[max(start - first, 0) : max(start + rows - first, 0)]
        seen += int(tf.math.count_nonzero(tf.reduce_max(here, axis=1) > (0.0 if adam else _INITIAL)))
        first += int(shard.shape[0])
    return seen
