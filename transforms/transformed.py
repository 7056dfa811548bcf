"""What models receive: for each feature its kind, and for ids how large the embedding table must be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import tensorflow as tf

from configs.features import LABEL, Bucketized, Cold, Crossed, Feature, Hashed, Numeric, Owner, Time, Vocabulary
from configs.features import Sequence as SequenceFeature
from transforms.preprocessing import AGE_BUCKETS

PADDING = -1  # fills the rows of a several-valued feature up to the longest


@dataclass(frozen=True)
class TransformedFeature:
    """One input of a model.

    Ids (`size` > 0) are int64 in [0, size), of shape [batch], or [batch, values] padded with PADDING where
    `multivalued`. Numbers (`size` == 0) are float32 of shape [batch]. `oov` are the ids of unknown values, `hideable`
    says that the feature identifies a single user or item, `crossed` that it is the pair of two others. `table` names
    the feature whose embeddings it looks up, "" its own. `quotient_remainder` and `cold` are as the feature table has
    them.

    A sequence is several-valued, oldest first, always `length` wide; its ids are those of the feature `sequence_of`.
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
    crossed: bool = False
    sequence_of: str | None = None
    length: int | None = None

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
            parts = {"hour": 24, "weekday": 7, "age": AGE_BUCKETS}
            found.append(TransformedFeature(name, feature.of, parts[feature.part], feature.dim))
        elif isinstance(feature, Crossed):
            owners = {features[part].of for part in feature.cross}  # type: ignore[union-attr]
            of: Owner = owners.pop() if len(owners) == 1 else "context"
            found.append(TransformedFeature(name, of, feature.buckets, feature.dim, crossed=True))
    by_name = {f.name: f for f in found}
    for name, feature in features.items():
        if isinstance(feature, SequenceFeature):
            of_feature = by_name[feature.feature]
            by_name[name] = TransformedFeature(
                name,
                "user",
                of_feature.size,
                feature.dim,
                multivalued=True,
                pool=feature.pool,
                oov=of_feature.oov,
                sequence_of=of_feature.name,
                length=feature.length,
            )
    return [by_name[name] for name in features]


def id_of(owner: Owner, features: Sequence[TransformedFeature]) -> TransformedFeature:
    """Return the feature that is the user's or the item's id. Raises ValueError where there is none."""
    found = [f for f in features if f.hideable and f.of == owner]
    if not found:
        raise ValueError(f"needs the {owner}'s id (data.{owner}) among its features, as kind vocabulary or hashed")
    return found[0]


def sequences_in(features: Sequence[TransformedFeature]) -> list[TransformedFeature]:
    """Return the sequences. Raises ValueError where there is none, or one without the feature it is of."""
    found = [f for f in features if f.sequence_of]
    if not found:
        raise ValueError("needs a feature of kind sequence, such as {kind: sequence, feature: ...}")
    for sequence in found:
        if all(f.name != sequence.sequence_of for f in features):
            raise ValueError(f"needs the feature {sequence.sequence_of}, which the sequence {sequence.name} is of")
    return found


def plain_in(features: Sequence[TransformedFeature]) -> list[TransformedFeature]:
    """Return the features that are no sequences."""
    return [f for f in features if not f.sequence_of]


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
        if isinstance(value, tf.SparseTensor) and f.length:
            value = tf.RaggedTensor.from_sparse(value)
        if isinstance(value, tf.SparseTensor):
            value = tf.sparse.to_dense(value, default_value=PADDING)
        elif isinstance(value, tf.RaggedTensor):
            value = value.to_tensor(PADDING, shape=[None, f.length] if f.length else None)
        dense[f.name] = value
    return dense
