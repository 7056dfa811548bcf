"""Embeddings of features, and the sum of one weight per feature value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf
import tf_keras as keras

from models.layers.cold import content_of, give_mean, is_cold, replaced
from models.layers.rows import rows_of, shards_of
from models.layers.tables import EMPTY_ROW, Table, composed, laid_out, row_ids, small_normal
from transforms.transformed import PADDING, TransformedFeature

PRECISION_OF_WEIGHTS = 1.0  # of the prior on single weights, 1 / variance: that of scikit-learn's C = 1
PRECISION_OF_VECTORS = 20.0  # on the elements of embeddings, and for each lookup this much more:
SHARE_OF_VECTORS = 0.005


class FieldEmbedding(keras.layers.Layer):
    """One embedding per feature: inputs as TransformedFeature describes them -> [batch, fields, dim].

    Ids are looked up in the feature's table, or in the one it shares; several ids are pooled; a number scales one
    vector (Guo et al. 2017, section 2.1). A feature with a dimension of its own is projected to `dim`.

    `l2` is half the penalty on the squared norm of what a batch looked up, of a number its vector alone, divided by the
    batch's size. Where it is None, rows have a normal prior once `set_prior` has told how often each of them is looked
    up: over all examples each row then costs half its squared norm times PRECISION, whether one example looks it up or
    all do.

    Tables of one dimension lie in one variable, one after the other, so that a batch costs one lookup and one sparse
    update, whatever the number of features and of rows.
    """

    def __init__(self, features: Sequence[TransformedFeature], dim: int, l2: float | None = 0.0, **kwargs):
        super().__init__(**kwargs)
        self._features = list(features)
        self._dim = dim
        self._l2 = l2
        self._penalties: dict[str, tf.Tensor] = {}
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
        return [shard for v in self._variables.values() for shard in shards_of(v)]

    def build(self, input_shape) -> None:
        """Lay the tables out, make their variables, and the projections."""
        by_dim: dict[int, list[TransformedFeature]] = {}
        for f in self._features:
            by_dim.setdefault(self._own_dim(f), []).append(f)
        known = {f.name for f in self._features}
        for own, features in by_dim.items():
            places, end = laid_out(features, known)
            variable = self.add_weight(name=f"tables_{own}", shape=[end, own], initializer=small_normal)
            self._variables[str(own)] = variable
            for name, place in places.items():
                self._tables[name] = Table(variable, *place)
            if own != self._dim:
                for f in features:
                    self._projections[f.name] = self._projection(f"{f.name}_projection", own)
        for f in self._features:
            if f.cold == "content":
                width = self._dim * len(content_of(f, self._features))
                self._contents[f.name] = self._projection(f"{f.name}_content", width)
        super().build(input_shape)

    def call(self, inputs) -> tf.Tensor:
        """Look up, pool, scale, project, and put vectors in place of cold ids."""
        fields: dict[str, tf.Tensor] = {}
        vectors: dict[str, tf.Tensor] = {}  # of numbers, before they are scaled: the penalty is not on the number
        for own, variable in self._variables.items():
            features = [f for f in self._features if str(self._own_dim(f)) == own]
            ids = [row_ids(f, inputs[f.name], self._tables[f.name].start) for f in features]
            lookups = [i.shape[1] if i.shape[1] is not None else tf.shape(i)[1] for i in ids]
            joined = tf.concat(ids, axis=1)
            rows = rows_of(variable, joined)
            if own in self._penalties:
                penalties = tf.gather(self._penalties[own], joined) * tf.reduce_sum(tf.square(rows), axis=2)
                self.add_loss(0.5 * tf.reduce_mean(tf.reduce_sum(penalties, axis=1)))
            pieces = tf.split(rows, lookups, axis=1)
            for f, piece in zip(features, pieces, strict=True):
                field = composed(f, inputs[f.name], piece)
                if f.name in self._projections:
                    field = tf.matmul(field, self._projections[f.name])
                fields[f.name] = field
                if not f.size:
                    projection = self._projections.get(f.name)
                    vectors[f.name] = piece if projection is None else tf.matmul(piece, projection)
        for f in filter(replaced, self._features):
            cold = is_cold(f, inputs[f.name])[:, tf.newaxis, tf.newaxis]
            fields[f.name] = tf.where(cold, self._for_cold(f, fields), fields[f.name])
        stacked = tf.concat([fields[f.name] for f in self._features], axis=1)
        stacked.set_shape([None, len(self._features), self._dim])  # which several-valued features hide from a graph
        if self._l2:
            penalized = tf.concat([vectors.get(f.name, fields[f.name]) for f in self._features], axis=1)
            self.add_loss(0.5 * self._l2 * tf.reduce_mean(tf.reduce_sum(tf.square(penalized), axis=[1, 2])))
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
        if replaced(f):
            given = given & ~is_cold(f, ids)
        return rows * tf.cast(given, rows.dtype)[:, :, tf.newaxis]

    @property
    def wants_prior(self) -> bool:
        """Whether rows are to have a prior."""
        return self._l2 is None

    def lookups(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, np.ndarray]:
        """Return how often a batch looks up each row, by variable: [rows] each; zeros without inputs."""
        counts = {own: np.zeros(variable.shape[0]) for own, variable in self._variables.items()}
        for own in counts if inputs else ():
            features = [f for f in self._features if str(self._own_dim(f)) == own]
            ids = [row_ids(f, inputs[f.name], self._tables[f.name].start).numpy().ravel() for f in features]
            counts[own] += np.bincount(np.concatenate(ids), minlength=len(counts[own]))
        return counts

    def set_prior(self, counts: Mapping[str, np.ndarray]) -> None:
        """Give rows a normal prior; `counts` says how often all training examples look each up, as `lookups` does."""
        precision, share = (PRECISION_OF_WEIGHTS, 0.0) if self._dim == 1 else (PRECISION_OF_VECTORS, SHARE_OF_VECTORS)
        for own, count in counts.items():
            weights = np.where(count > 0, precision / np.maximum(count, 1) + share, 0.0)
            weights[EMPTY_ROW] = 0.0
            self._penalties[own] = tf.constant(weights, tf.float32)

    def settle(self) -> None:
        """Once trained: give ids without a row the mean of the known ids' rows, where the feature table says so."""
        for f in self._features:
            give_mean(f, self._tables[f.name])

    def _own_dim(self, f: TransformedFeature) -> int:
        return (f.dim or self._dim) if self._dim > 1 else 1

    def _projection(self, name: str, width: int) -> tf.Variable:
        return self.add_weight(name=name, shape=[width, self._dim], initializer="glorot_uniform")

    def _for_cold(self, f: TransformedFeature, fields: Mapping[str, tf.Tensor]) -> tf.Tensor:
        if f.cold == "zero":
            return tf.zeros_like(fields[f.name])
        content = tf.concat([fields[other.name] for other in content_of(f, self._features)], axis=2)
        return tf.matmul(content, self._contents[f.name])


class FirstOrder(keras.layers.Layer):
    """w0 + sum of one weight per feature value: [batch]."""

    def __init__(self, features: Sequence[TransformedFeature], l2: float | None = 0.0, **kwargs):
        super().__init__(**kwargs)
        self._weights = FieldEmbedding(features, 1, l2, name="weights")

    def build(self, input_shape) -> None:
        """Make the bias."""
        self._bias = self.add_weight(name="bias", shape=[], initializer="zeros")
        super().build(input_shape)

    def call(self, inputs) -> tf.Tensor:
        """Sum the weights."""
        return self._bias + tf.reduce_sum(self._weights(inputs), axis=[1, 2])

    @property
    def bias(self) -> tf.Variable:
        """w0, once built."""
        return self._bias

    def parts(self, inputs) -> dict[str, tf.Tensor]:
        """Return the bias, [batch], and each feature's weight, [batch, fields]."""
        weights = tf.squeeze(self._weights(inputs), axis=2)
        return {"bias": tf.fill(tf.shape(weights)[:1], self._bias), "first_order": weights}


def table_layers(model: tf.Module) -> list[FieldEmbedding]:
    """Return the layers of a model that hold embedding tables."""
    return [layer for layer in model.submodules if isinstance(layer, FieldEmbedding)]
