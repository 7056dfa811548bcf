"""A number in quantile buckets: 0 is a missing one."""

from __future__ import annotations

import tensorflow as tf
import tensorflow_transform as tft

from configs.features import Bucketized
from transforms.kind import Batch, Inputs, Kind, TransformedFeature
from transforms.raw import first_value, is_given


class BucketizedKind(Kind[Bucketized]):
    """See `configs.features.Bucketized`."""

    def transform(self, name: str, feature: Bucketized, batch: Batch) -> tf.Tensor:
        """Return the bucket's number."""
        column = batch.inputs[feature.column or name]
        values = first_value(column)
        if feature.default is not None:
            values = tf.where(is_given(values), values, feature.default)
        given = is_given(values)
        boundaries = tft.quantiles(column.values, feature.buckets, epsilon=min(0.01, 0.1 / feature.buckets), name=name)
        ids = tft.apply_buckets(tf.where(given, values, tf.zeros_like(values)), boundaries)
        return tf.where(given, ids + 1, tf.zeros_like(ids))

    def describe(self, name: str, feature: Bucketized, inputs: Inputs) -> TransformedFeature:
        """Return ids of the buckets."""
        return TransformedFeature(name, feature.of, 1 + feature.buckets, feature.dim)


KIND = BucketizedKind()
