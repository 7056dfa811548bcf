"""A part of the event's time, or an age at it."""

from __future__ import annotations

import tensorflow as tf

from configs.features import Time
from transforms.kind import Batch, Inputs, Kind, TransformedFeature
from transforms.raw import first_value, is_given

_AGE_BUCKETS = 32
_SIZES = {"hour": 24, "weekday": 7, "age": _AGE_BUCKETS}


class TimeKind(Kind[Time]):
    """See `configs.features.Time`."""

    def transform(self, name: str, feature: Time, batch: Batch) -> tf.Tensor:
        """Return the part's id."""
        assert batch.time is not None
        event = first_value(batch.inputs[batch.time])
        event = tf.where(is_given(event), event, tf.cast(tf.timestamp(), tf.int64))
        if feature.part == "hour":
            return tf.math.floormod(tf.math.floordiv(event, 3600), 24)
        if feature.part == "weekday":
            return tf.math.floormod(tf.math.floordiv(event, 86400) + 3, 7)  # 1970-01-01 was a Thursday
        assert feature.since is not None
        start = first_value(batch.inputs[feature.since])
        days = tf.cast(tf.maximum(event - start, 0), tf.float32) / 86400.0
        # Two buckets an octave from a day to ninety years; 1 holds the first hours and 0 an unknown start.
        ids = tf.cast(tf.minimum(2.0 * tf.math.log1p(days) / tf.math.log(2.0), _AGE_BUCKETS - 2.0), tf.int64) + 1
        return tf.where(is_given(start), ids, tf.zeros_like(ids))

    def describe(self, name: str, feature: Time, inputs: Inputs) -> TransformedFeature:
        """Return ids of the part."""
        return TransformedFeature(name, feature.of, _SIZES[feature.part], feature.dim)


KIND = TimeKind()
