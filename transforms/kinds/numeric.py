"""A number, scaled."""

from __future__ import annotations

import tensorflow as tf
import tensorflow_transform as tft

from configs.features import Numeric
from transforms.kind import Batch, Inputs, Kind, TransformedFeature
from transforms.raw import first_value, is_given

_Z_LIMIT = 10.0


class NumericKind(Kind[Numeric]):
    """See `configs.features.Numeric`."""

    def transform(self, name: str, feature: Numeric, batch: Batch) -> tf.Tensor:
        """Return the scaled number."""
        column = batch.inputs[feature.column or name]

        def scale(values: tf.Tensor) -> tf.Tensor:
            values = tf.cast(values, tf.float64)
            return tf.sign(values) * tf.math.log1p(tf.abs(values)) if feature.scale == "log" else values

        values = first_value(column)
        if feature.default is not None:
            values = tf.where(is_given(values), values, feature.default)
        given = is_given(values)
        scaled, seen = scale(values), scale(column.values)
        mean = tft.mean(seen)
        if feature.scale == "none":
            missing = tf.where(tf.math.is_finite(mean), mean, tf.zeros_like(mean))
        else:
            variance = tft.var(seen)
            deviation = tf.where(variance > 0, tf.sqrt(variance), tf.ones_like(variance))
            scaled = tf.clip_by_value((scaled - mean) / deviation, -_Z_LIMIT, _Z_LIMIT)
            missing = tf.zeros_like(mean)
        return tf.cast(tf.where(given, scaled, missing), tf.float32)

    def describe(self, name: str, feature: Numeric, inputs: Inputs) -> TransformedFeature:
        """Return a number."""
        return TransformedFeature(name, feature.of, 0, feature.dim)


KIND = NumericKind()
