"""The pair of two features, hashed."""

from __future__ import annotations

import tensorflow as tf

from configs.features import Crossed, Owner
from transforms.kind import Batch, Inputs, Kind, TransformedFeature

_SEPARATOR = "\x1f"


class CrossedKind(Kind[Crossed]):
    """See `configs.features.Crossed`."""

    def transform(self, name: str, feature: Crossed, batch: Batch) -> tf.Tensor:
        """Return the bucket."""
        tokens = [batch.token(part) for part in feature.cross]
        return tf.strings.to_hash_bucket_fast(tf.strings.join(tokens, separator=_SEPARATOR), feature.buckets)

    def describe(self, name: str, feature: Crossed, inputs: Inputs) -> TransformedFeature:
        """Return ids of its owner, where both parts have the same one, else of the context."""
        ids = tuple(id_ for part in feature.cross for id_ in inputs.described(part).ids)
        owners = {inputs.features[part].owner for part in feature.cross}
        of: Owner = (owners.pop() or "context") if len(owners) == 1 else "context"
        return TransformedFeature(name, of, feature.buckets, feature.dim, crossed=True, ids=ids)


KIND = CrossedKind()
