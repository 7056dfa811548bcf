"""What models receive: for each feature its kind, and for ids how large the embedding table must be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf

from configs.features import LABEL, Feature, Owner
from transforms.kind import Inputs, TransformedFeature
from transforms.kinds import KINDS

PADDING = -1  # fills the rows of a several-valued feature up to the longest


def transformed_features(
    features: Mapping[str, Feature], vocabulary_size: Callable[[str], int], id_columns: tuple[str, str]
) -> list[TransformedFeature]:
    """Return the models' inputs in the table's order. `id_columns` are the user's and the item's."""
    inputs = Inputs(features, vocabulary_size, id_columns, KINDS)
    return [inputs.described(name) for name in features]


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
