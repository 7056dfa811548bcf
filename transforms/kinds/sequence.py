"""The user's recent events, by a text feature of theirs."""

from __future__ import annotations

import tensorflow as tf

from configs.features import Sequence, Text
from transforms.kind import Batch, Inputs, Kind, TransformedFeature


class SequenceKind(Kind[Sequence]):
    """See `configs.features.Sequence`."""

    def transform(self, name: str, feature: Sequence, batch: Batch) -> tf.SparseTensor:
        """Return the ids of the newest values in the table of the feature they are of; rows may be empty."""
        of = batch.features[feature.feature]
        assert isinstance(of, Text)
        table_name, table = of.share or feature.feature, of.table_of(batch.features)
        batch.transformed(table_name)  # its vocabulary comes first
        newest = tf.RaggedTensor.from_sparse(batch.inputs[name])[:, -feature.length :]
        ids = batch.lookup(table_name, table, newest.values)
        return newest.with_values(ids + 1).to_sparse()

    def describe(self, name: str, feature: Sequence, inputs: Inputs) -> TransformedFeature:
        """Return several ids of the feature they are of."""
        of = inputs.described(feature.feature)
        return TransformedFeature(
            name, "user", of.size, feature.dim, multivalued=True, pool=feature.pool, oov=of.oov, sequence_of=of.name,
            length=feature.length, ids=of.ids,
        )  # fmt: skip


KIND = SequenceKind()
