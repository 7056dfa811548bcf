"""Layers that the models share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
import tf_keras as keras

from models.rows import rows_of
from transforms.transformed import PADDING, TransformedFeature

_DEAD = 0  # row of no feature: what fills the rows of several-valued features looks it up


@dataclass(frozen=True)
class Table:
    """The rows of one feature in the variable that holds all tables of its dimension."""

    variable: tf.Variable
    start: int
    rows: int

    def numpy(self) -> np.ndarray:
        """Return the rows, [rows, dim]."""
        return tf.convert_to_tensor(self.variable)[self.start : self.start + self.rows].numpy()


@tf.function(autograph=False)
def _drawn(seed: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    return tf.random.stateless_normal(shape, seed, stddev=0.01)


def _small(shape, dtype=None, partition_shape=None, **kwargs) -> tf.Tensor:
    """Draw small normal values, in a graph: outside one the largest tables would be held three times meanwhile."""
    seed = tf.random.uniform([2], 0, 2**31 - 1, tf.int32)
    return _drawn(seed, tf.constant(partition_shape or shape, tf.int64))


class FieldEmbedding(keras.layers.Layer):
    """One embedding a feature: inputs as TransformedFeature describes them -> [batch, fields, dim].

    Ids are looked up in the feature's table, or in the one it shares; several ids are pooled; a number scales one
    vector (Guo et al. 2017, section 2.1). A feature with a dimension of its own is projected to `dim`. `l2` is half the
    penalty on the squared norm of what a batch looked up, divided by its size.

    Tables of one dimension lie in one variable, one after the other, so that a batch costs one lookup and one sparse
    update, whatever the number of features and of rows.
    """

    def __init__(self, features: Sequence[TransformedFeature], dim: int, l2: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        self._features = list(features)
        self._dim = dim
        self._l2 = l2
        self._tables: dict[str, Table] = {}
        self._variables: dict[str, tf.Variable] = {}
        self._projections: dict[str, tf.Variable] = {}
        self._contents: dict[str, tf.Variable] = {}

    @property
    def tables(self) -> Mapping[str, Table]:
        """Each feature's table, once built; features that share one have equal entries."""
        return dict(self._tables)

    def trainable_tables(self) -> list[tf.Variable]:
        """Return the variables whose gradients are sparse; the shards of those that are cut over servers."""
        return [shard for v in self._variables.values() for shard in getattr(v, "variables", [v])]

    def build(self, input_shape) -> None:
        """Lay the tables out, make their variables, and the projections."""
        by_dim: dict[int, list[TransformedFeature]] = {}
        for f in self._features:
            by_dim.setdefault(self._own_dim(f), []).append(f)
        known = {f.name for f in self._features}
        for own, features in by_dim.items():
            starts: dict[str, tuple[int, int]] = {}
            end = _DEAD + 1
            for f in features:
                table = self._table_of(f, known)
                if table not in starts:
                    starts[table] = end, f.rows
                    end += f.rows
            self._variables[str(own)] = self.add_weight(name=f"tables_{own}", shape=[end, own], initializer=_small)
            for f in features:
                self._tables[f.name] = Table(self._variables[str(own)], *starts[self._table_of(f, known)])
            if own != self._dim:
                for f in features:
                    self._projections[f.name] = self.add_weight(
                        name=f"{f.name}_projection", shape=[own, self._dim], initializer="glorot_uniform"
                    )
        for f in self._features:
            if f.cold == "content":
                width = sum(self._dim for _ in self._content_of(f))
                self._contents[f.name] = self.add_weight(
                    name=f"{f.name}_content", shape=[width, self._dim], initializer="glorot_uniform"
                )
        super().build(input_shape)

    def call(self, inputs) -> tf.Tensor:
        """Look up, pool, scale, project, and put vectors in place of cold ids."""
        fields: dict[str, tf.Tensor] = {}
        for own in self._variables:
            features = [f for f in self._features if str(self._own_dim(f)) == own]
            ids = [self._row_ids(f, inputs[f.name]) for f in features]
            rows = rows_of(self._variables[own], tf.concat(ids, axis=1))
            pieces = tf.split(rows, [self._lookups(f, i) for f, i in zip(features, ids, strict=True)], axis=1)
            for f, piece in zip(features, pieces, strict=True):
                field = self._composed(f, inputs[f.name], piece)
                if f.name in self._projections:
                    field = tf.matmul(field, self._projections[f.name])
                fields[f.name] = field
        for f in self._features:
            if f.cold in ("zero", "content") and f.oov:
                fields[f.name] = tf.where(self._is_cold(f, inputs[f.name]), self._for_cold(f, fields), fields[f.name])
        stacked = tf.concat([fields[f.name] for f in self._features], axis=1)
        stacked.set_shape([None, len(self._features), self._dim])  # which several-valued features hide from a graph
        if self._l2:
            self.add_loss(0.5 * self._l2 * tf.reduce_mean(tf.reduce_sum(tf.square(stacked), axis=[1, 2])))
        return stacked

    def look_up(self, name: str, ids: tf.Tensor) -> tf.Tensor:
        """Return the embeddings of ids of the feature `name`, un-pooled: [batch, values] -> [batch, values, dim].

        PADDING has zeros, as have unknown ids whose vector is not learnt by lookups. The layer must have been called
        before; the penalty does not count these rows.
        """
        (f,) = (f for f in self._features if f.name == name)
        table, given = self._tables[name], tf.not_equal(ids, PADDING)
        ids = tf.maximum(ids, 0)
        if n := f.quotient_remainder:
            quotients, remainders = table.start + ids // n, table.start + f.rows - n + ids % n
            rows = rows_of(table.variable, tf.stack([quotients, remainders]))
            rows = rows[0] * (1.0 + rows[1])
        else:
            rows = rows_of(table.variable, ids + table.start)
        if name in self._projections:
            rows = tf.matmul(rows, self._projections[name])
        if f.cold in ("zero", "content") and f.oov:
            low, high = f.oov
            given = given & ~((ids >= low) & (ids < high))
        return rows * tf.cast(given, rows.dtype)[:, :, tf.newaxis]

    def settle(self) -> None:
        """Once trained: give ids without a row the mean of the known ids' rows, where the feature table says so."""
        for f in self._features:
            if f.cold == "mean" and f.oov:
                table = self._tables[f.name]
                low, high = f.oov
                rows = tf.convert_to_tensor(table.variable)[table.start : table.start + table.rows]
                known = tf.concat([rows[1:low], rows[high:]], axis=0)
                if known.shape[0]:
                    mean = tf.repeat(tf.reduce_mean(known, axis=0, keepdims=True), high - low, axis=0)
                    ids = tf.range(table.start + low, table.start + high)
                    table.variable.scatter_update(tf.IndexedSlices(mean, ids))

    def _own_dim(self, f: TransformedFeature) -> int:
        return (f.dim or self._dim) if self._dim > 1 else 1

    def _table_of(self, f: TransformedFeature, known: set[str]) -> str:
        return f.table if f.table in known else f.name

    def _row_ids(self, f: TransformedFeature, value: tf.Tensor) -> tf.Tensor:
        """Return the rows to look up, [batch, lookups]."""
        start = self._tables[f.name].start
        if not f.size:
            return tf.fill([tf.shape(value)[0], 1], tf.constant(start, tf.int64))
        if f.multivalued:
            return tf.where(value == PADDING, tf.constant(_DEAD, tf.int64), value + start)
        if f.quotient_remainder:
            n = f.quotient_remainder
            quotients = f.rows - n
            return tf.stack([start + value // n, start + quotients + value % n], axis=1)
        return value[:, tf.newaxis] + start

    def _lookups(self, f: TransformedFeature, ids: tf.Tensor) -> int | tf.Tensor:
        return ids.shape[1] if ids.shape[1] is not None else tf.shape(ids)[1]

    def _composed(self, f: TransformedFeature, value: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        """Make one vector of a feature's rows, [batch, 1, own]."""
        if not f.size:
            return rows * value[:, tf.newaxis, tf.newaxis]
        if f.multivalued:
            return _pooled(rows, value, f.pool)
        if f.quotient_remainder:
            # Around one, so that a fresh quotient row alone decides the size of the product.
            return rows[:, :1] * (1.0 + rows[:, 1:])
        return rows

    def _is_cold(self, f: TransformedFeature, ids: tf.Tensor) -> tf.Tensor:
        low, high = f.oov  # type: ignore[misc]
        return tf.logical_and(ids >= low, ids < high)[:, tf.newaxis, tf.newaxis]

    def _for_cold(self, f: TransformedFeature, fields: Mapping[str, tf.Tensor]) -> tf.Tensor:
        if f.cold == "zero":
            return tf.zeros_like(fields[f.name])
        content = tf.concat([fields[other.name] for other in self._content_of(f)], axis=2)
        return tf.matmul(content, self._contents[f.name])

    def _content_of(self, f: TransformedFeature) -> list[TransformedFeature]:
        found = [g for g in self._features if g.of == f.of and g.cold != "content" and not g.hideable]
        if not found:
            raise ValueError(f"features.{f.name}.cold: content needs another feature of {f.of}")
        return found


class Dropout(keras.layers.Layer):
    """Drops a share of the units in training and scales up the others, as Keras' own does.

    One random number serves four units, each a byte of it: drawing them is what dropout costs. The share is so rounded
    to 1/256.
    """

    def __init__(self, share: float, **kwargs):
        super().__init__(**kwargs)
        self._dropped = min(round(share * 256), 255)

    def call(self, inputs: tf.Tensor, training=None) -> tf.Tensor:
        """Return the inputs, some of them 0."""
        if not training or not self._dropped:
            return inputs
        size = tf.size(inputs)
        drawn = tf.random.uniform([(size + 3) // 4], tf.int32.min, tf.int32.max, tf.int32)
        bytes_ = tf.reshape(tf.bitcast(drawn, tf.uint8), [-1])[:size]
        kept = tf.reshape(bytes_ >= tf.constant(self._dropped, tf.uint8), tf.shape(inputs))
        return inputs * (tf.cast(kept, inputs.dtype) * (256.0 / (256 - self._dropped)))


def _pooled(rows: tf.Tensor, ids: tf.Tensor, pool: str) -> tf.Tensor:
    present = tf.cast(tf.not_equal(ids, PADDING), rows.dtype)
    summed = tf.matmul(present[:, tf.newaxis, :], rows)
    if pool == "sum":
        return summed
    return summed / tf.maximum(tf.reduce_sum(present, axis=1), 1.0)[:, tf.newaxis, tf.newaxis]


def table_layers(model: keras.Model) -> list[FieldEmbedding]:
    """Return the layers of a model that hold embedding tables."""
    return [layer for layer in model.submodules if isinstance(layer, FieldEmbedding)]


class HideIds(keras.layers.Layer):
    """In training, replaces a share of the ids of single users and items by an unknown one, row by row.

    The embedding of unknown ids, which nothing else trains, so learns what to say of anyone.
    """

    def __init__(self, features: Sequence[TransformedFeature], share: float, **kwargs):
        super().__init__(**kwargs)
        self._hidden = [f for f in features if f.hideable and f.oov and not f.multivalued]
        self._hashed_twice = [f for f in features if f.hideable and f.oov == (0, 1) and f.multivalued]
        self._share = share

    def call(self, inputs, training=None):
        """Return the inputs, some ids replaced."""
        if not training or not self._share:
            return inputs
        outputs = dict(inputs)
        for f in self._hidden:
            ids = inputs[f.name]
            low, high = f.oov  # type: ignore[misc]
            unknown = tf.random.uniform(tf.shape(ids), low, high, tf.int64)
            outputs[f.name] = tf.where(tf.random.uniform(tf.shape(ids)) < self._share, unknown, ids)
        for f in self._hashed_twice:
            ids = inputs[f.name]
            hidden = tf.random.uniform(tf.shape(ids)[:1]) < self._share
            outputs[f.name] = tf.where(hidden[:, tf.newaxis], tf.zeros_like(ids), ids)
        return outputs


class FirstOrder(keras.layers.Layer):
    """w0 + sum of one weight a feature value: [batch]."""

    def __init__(self, features: Sequence[TransformedFeature], l2: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        self._weights = FieldEmbedding(features, 1, l2, name="weights")

    def build(self, input_shape) -> None:
        """Make the bias."""
        self._bias = self.add_weight(name="bias", shape=[], initializer="zeros")
        super().build(input_shape)

    def call(self, inputs) -> tf.Tensor:
        """Sum the weights."""
        return self._bias + tf.reduce_sum(self._weights(inputs), axis=[1, 2])

    def parts(self, inputs) -> dict[str, tf.Tensor]:
        """Return the bias, [batch], and each feature's weight, [batch, fields]."""
        weights = tf.squeeze(self._weights(inputs), axis=2)
        return {"bias": tf.fill(tf.shape(weights)[:1], self._bias), "first_order": weights}


class Dice(keras.layers.Layer):
    """p x + (1 - p) alpha x, where p is the sigmoid of x normalized over the batch (Zhou et al. 2018, section 5.3)."""

    def build(self, input_shape) -> None:
        """Make alpha, one a unit."""
        self._normalized = keras.layers.BatchNormalization(center=False, scale=False, epsilon=1e-8)
        self._alpha = self.add_weight(name="alpha", shape=[input_shape[-1]], initializer="zeros")
        super().build(input_shape)

    def call(self, inputs, training=None) -> tf.Tensor:
        """Return the activations."""
        p = tf.sigmoid(self._normalized(inputs, training=training))
        return p * inputs + (1.0 - p) * self._alpha * inputs


def deep_network(hidden: Sequence[int], dropout: float, activation: str = "relu") -> keras.Sequential:
    """Return the deep part that many models share: [batch, ...] -> [batch, 1]."""
    activations = {
        "relu": lambda: keras.layers.Activation("relu"),
        "prelu": keras.layers.PReLU,
        "dice": Dice,
    }
    return keras.Sequential(
        [
            keras.layers.Flatten(),
            Dropout(dropout),
            *(
                layer
                for width in hidden
                for layer in (keras.layers.Dense(width), activations[activation](), Dropout(dropout))
            ),
            keras.layers.Dense(1, use_bias=False),
        ]
    )


def pairwise_interactions(fields: tf.Tensor) -> tf.Tensor:
    """Return the sum over all pairs of fields of their inner products: [batch, fields, dim] -> [batch].

    Rendle 2010, lemma 3.1: half of (square of the sum - sum of the squares).
    """
    return 0.5 * tf.reduce_sum(tf.square(tf.reduce_sum(fields, 1)) - tf.reduce_sum(tf.square(fields), 1), axis=1)
