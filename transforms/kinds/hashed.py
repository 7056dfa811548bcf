"""Text hashed into buckets, by one hash or two."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tensorflow_transform as tft

from configs.features import Hashed
from transforms.kind import Batch, Inputs, TransformedFeature
from transforms.text_ids import TextKind, described, on_values

_SECOND_HASH = [0x5EC04D, 0x4A54]  # any key: it makes the second hash of a value independent of the first


class HashedKind(TextKind[Hashed]):
    """See `configs.features.Hashed`."""

    def analyze(self, name: str, table: Hashed, values: tf.Tensor, batch: Batch) -> None:
        """Learn which buckets have been seen often enough, where that counts."""
        if table.min_count > 1:
            batch.vocabularies[name] = tft.vocabulary(
                tf.strings.as_string(tf.strings.to_hash_bucket_fast(values, table.buckets)),
                frequency_threshold=table.min_count,
                vocab_filename=name,
                reserved_tokens=tf.constant([], tf.string),
            )

    def lookup(self, name: str, table: Hashed, text: Any, batch: Batch) -> Any:
        """Hash; with two hashes the ids are [values, 2]."""

        def ids(values: tf.Tensor) -> tf.Tensor:
            first = tf.strings.to_hash_bucket_fast(values, table.buckets)
            if table.hashes == 2:
                second = tf.strings.to_hash_bucket_strong(values, table.buckets, key=_SECOND_HASH)
                return tf.stack([first, second], axis=1)
            if table.min_count > 1:
                return tft.apply_vocabulary(tf.strings.as_string(first), batch.vocabularies[name], default_value=-1)
            return first

        return on_values(ids, text)

    def describe(self, name: str, feature: Hashed, inputs: Inputs) -> TransformedFeature:
        """Return ids of the table."""
        table = feature.table_of(inputs.features)
        assert isinstance(table, Hashed)
        known = inputs.vocabulary_size(feature.share or name) if table.min_count > 1 else table.buckets
        size, oov = 1 + known, (0, 1)
        return described(name, feature, table, size, oov, inputs)


KIND = HashedKind()
