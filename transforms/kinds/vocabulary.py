"""Text looked up in a vocabulary: its OOV buckets follow after the known values."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tensorflow_transform as tft

from configs.features import Vocabulary
from transforms.kind import Batch, Inputs, TransformedFeature
from transforms.text_ids import TextKind, described


class VocabularyKind(TextKind[Vocabulary]):
    """See `configs.features.Vocabulary`."""

    def analyze(self, name: str, table: Vocabulary, values: tf.Tensor, batch: Batch) -> None:
        """Make the vocabulary."""
        batch.vocabularies[name] = tft.vocabulary(
            values,
            top_k=table.top,
            frequency_threshold=table.min_count,
            vocab_filename=name,
            reserved_tokens=tf.constant([], tf.string),
        )

    def lookup(self, name: str, table: Vocabulary, text: Any, batch: Batch) -> Any:
        """Look up."""
        return tft.apply_vocabulary(text, batch.vocabularies[name], num_oov_buckets=table.oov)

    def describe(self, name: str, feature: Vocabulary, inputs: Inputs) -> TransformedFeature:
        """Return ids of the table."""
        table = feature.table_of(inputs.features)
        assert isinstance(table, Vocabulary)
        known = 1 + inputs.vocabulary_size(feature.share or name)
        size, oov = known + table.oov, (known, known + table.oov)
        return described(name, feature, table, size, oov, inputs)


KIND = VocabularyKind()
