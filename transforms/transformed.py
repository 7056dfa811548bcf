"""What models receive: for each feature its kind, and for ids how large the embedding table must be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import tensorflow as tf

from configs.features import LABEL, Bucketized, Cold, Crossed, Feature, Hashed, Numeric, Owner, Time, Vocabulary
from transforms.preprocessing import AGE_BUCKETS

PADDING = -1  # fills the rows of a several-valued feature up to the longest


@dataclass(frozen=True)
class TransformedFeature:
    """One input of a model.

    Ids (`size` > 0) are int64 in [0, size), of shape [batch], or [batch, values] padded with PADDING where
    `multivalued`. Numbers (`size` == 0) are float32 of shape [batch]. `oov` are the ids of unknown values, `hideable`
    says that the feature identifies a single user or item. `table` names the feature whose embeddings it looks up, ""
    its own. `quotient_remainder` and `cold` are as the feature table has them.
    """

    name: str
    of: Owner
    size: int
    dim: int | None = None
    multivalued: bool = False
    pool: Literal["mean", "sum"] = "mean"
    oov: tuple[int, int] | None = None
    hideable: bool = False
    table: str = ""
    quotient_remainder: int | None = None
    cold: Cold = "learnt"

    @property
    def rows(self) -> int:
        """Rows of its embedding table."""
        if self.quotient_remainder:
            return -(-self.size // self.quotient_remainder) + self.quotient_remainder
        return max(self.size, 1)


def transformed_features(
    features: Mapping[str, Feature], vocabulary_size: Callable[[str], int], id_columns: tuple[str, str]
) -> list[TransformedFeature]:
    """Return the models' inputs in the table's order. `id_columns` are the user's and the item's."""
    found = []
    for name, feature in features.items():
        if isinstance(feature, Vocabulary | Hashed):
            column = feature.column or name
            table = features[feature.share] if feature.share else feature
            assert isinstance(table, Vocabulary | Hashed)
            if isinstance(table, Vocabulary):
                known = 1 + vocabulary_size(feature.share or name)
                size, oov = known + table.oov, (known, known + table.oov)
            elif table.min_count > 1:
                size, oov = 1 + vocabulary_size(feature.share or name), (0, 1)
            else:
                size, oov = 1 + table.buckets, (0, 1)
            found.append(
                TransformedFeature(
                    name,
                    feature.of,
                    size,
                    table.dim,
                    feature.separator is not None or (isinstance(table, Hashed) and table.hashes == 2),
                    feature.pool,
                    oov,
                    column in id_columns,
                    feature.share or "",
                    table.quotient_remainder,
                    feature.cold,
                )
            )
        elif isinstance(feature, Numeric):
            found.append(TransformedFeature(name, feature.of, 0, feature.dim))
        elif isinstance(feature, Bucketized):
            found.append(TransformedFeature(name, feature.of, 1 + feature.buckets, feature.dim))
        elif isinstance(feature, Time):
            size = {"hour": 24, "weekday": 7, "age": AGE_BUCKETS}[feature.part]
            found.append(TransformedFeature(name, feature.of, size, feature.dim))
        elif isinstance(feature, Crossed):
            owners = {features[part].of for part in feature.cross}  # type: ignore[union-attr]
            of: Owner = owners.pop() if len(owners) == 1 else "context"
            found.append(TransformedFeature(name, of, feature.buckets, feature.dim))
    return found


def transformed_feature_spec(
    features: list[TransformedFeature],
) -> dict[str, tf.io.FixedLenFeature | tf.io.RaggedFeature]:
    """Return the parsing spec of transformed Examples, label included."""
    spec: dict[str, tf.io.FixedLenFeature | tf.io.RaggedFeature] = {LABEL: tf.io.FixedLenFeature([], tf.float32)}
    for f in features:
        dtype = tf.int64 if f.size else tf.float32
        spec[f.name] = tf.io.RaggedFeature(dtype) if f.multivalued else tf.io.FixedLenFeature([], dtype)
    return spec


def model_inputs(features: list[TransformedFeature], values: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Return parsed or just transformed features as dense tensors, as TransformedFeature describes them."""
    dense = {}
    for f in features:
        value = values[f.name]
        if isinstance(value, tf.SparseTensor):
            value = tf.sparse.to_dense(value, default_value=PADDING)
        elif isinstance(value, tf.RaggedTensor):
            value = value.to_tensor(PADDING)
        dense[f.name] = value
    return dense
