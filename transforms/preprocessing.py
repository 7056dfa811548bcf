"""The TFT `preprocessing_fn`: raw columns to ids and scaled numbers, as the feature table declares.

Ids of text and buckets leave 0 for a missing value. A vocabulary's ids follow from 1, its OOV buckets after them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft
from pydantic import TypeAdapter

from configs.features import (
    LABEL,
    MISSING_TIME,
    WEIGHT,
    Bucketized,
    Crossed,
    Feature,
    Hashed,
    Numeric,
    Sequence,
    Time,
    Vocabulary,
)
from transforms.raw import is_given

AGE_BUCKETS = 32
_FEATURES: TypeAdapter[dict[str, Feature]] = TypeAdapter(dict[str, Feature])
_MISSING = {tf.string: "", tf.float32: float("nan"), tf.int64: MISSING_TIME}
_Z_LIMIT = 10.0
_SEPARATOR = "\x1f"
_SECOND_HASH = [0x5EC04D, 0x4A54]  # any key: it makes the second hash of a value independent of the first


def preprocessing_fn(inputs: Mapping[str, tf.SparseTensor], custom_config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the transformed features of a batch of raw columns.

    `custom_config` holds `features` (the feature table as JSON), `time` (the event time's column, or None) and, where
    rows count unequally, `weight` (the column that says how much; it comes out as WEIGHT). Single-valued features are
    dense, int64 ids or float32 numbers of shape [batch]; several-valued ones are sparse int64 ids.
    """
    features = read_features(custom_config["features"])
    time = custom_config["time"]
    outputs: dict[str, Any] = {}
    vocabularies: dict[str, Any] = {}
    # Those whose table others share come first: theirs is the vocabulary.
    for name, feature in sorted(features.items(), key=lambda item: getattr(item[1], "share", None) is not None):
        if isinstance(feature, Vocabulary | Hashed):
            shared = features[feature.share] if feature.share else feature
            assert isinstance(shared, Vocabulary | Hashed)
            outputs[name] = _text_ids(
                feature.share or name, feature, shared, inputs[feature.column or name], vocabularies
            )
        elif isinstance(feature, Numeric):
            outputs[name] = _scaled(feature, inputs[feature.column or name])
        elif isinstance(feature, Bucketized):
            outputs[name] = _bucket_ids(name, feature, inputs[feature.column or name])
        elif isinstance(feature, Time):
            outputs[name] = _time_part(feature, inputs[time], inputs[feature.since] if feature.since else None)
    for name, feature in features.items():
        if isinstance(feature, Crossed):
            tokens = [_token(features[part], inputs, part, outputs) for part in feature.cross]
            outputs[name] = tf.strings.to_hash_bucket_fast(
                tf.strings.join(tokens, separator=_SEPARATOR), feature.buckets
            )
        elif isinstance(feature, Sequence):
            outputs[name] = _sequence_ids(feature, features, inputs[name], vocabularies)
    if LABEL in inputs:
        outputs[LABEL] = first_value(inputs[LABEL])
    weight = custom_config.get("weight")
    if weight is not None and weight in inputs:
        outputs[WEIGHT] = first_value(inputs[weight])
    return outputs


def read_features(text: str) -> dict[str, Feature]:
    """Read a feature table from JSON; its order is the table's."""
    return _FEATURES.validate_python(json.loads(text))


def first_value(column: tf.SparseTensor) -> tf.Tensor:
    """Return each row's first value, of shape [batch]; the mark of a missing one where there is none."""
    missing = _MISSING[column.dtype]
    dense = tf.sparse.to_dense(column, default_value=missing)
    return tf.pad(dense, [[0, 0], [0, 1]], constant_values=missing)[:, 0]


def split_values(column: tf.SparseTensor, separator: str) -> tf.SparseTensor:
    """Split text cells into their non-empty values; values that are split already stay as they are."""
    parts = tf.strings.split(column.values, separator)
    rows = tf.gather(column.indices[:, 0], parts.value_rowids())
    given = tf.not_equal(parts.flat_values, "")
    values = tf.RaggedTensor.from_value_rowids(
        tf.boolean_mask(parts.flat_values, given), tf.boolean_mask(rows, given), column.dense_shape[0]
    )
    sparse = values.to_sparse()
    # Room for one value even where no row has any: what fills empty rows must lie inside.
    shape = tf.maximum(sparse.dense_shape, [0, 1])
    return tf.SparseTensor(sparse.indices, sparse.values, shape)


def _text_ids(
    name: str,
    feature: Vocabulary | Hashed,
    table: Vocabulary | Hashed,
    column: tf.SparseTensor,
    vocabularies: dict[str, Any],
) -> tf.Tensor | tf.SparseTensor:
    """Return ids as `table`, the feature itself or the one whose table it shares, declares them; `name` is its name."""
    if feature.separator is None:
        text = first_value(column)
        if feature.default is not None:
            text = tf.where(is_given(text), text, feature.default)
        given = is_given(text)
        if table is feature:
            # Analyzed as sparse values, so that "missing" never becomes a word of the vocabulary.
            _analyze(name, table, tf.boolean_mask(text, given), vocabularies)
        ids = _lookup(name, table, text, vocabularies)
        return tf.where(given if ids.shape.rank == 1 else given[:, tf.newaxis], ids + 1, tf.zeros_like(ids))
    values = split_values(column, feature.separator)
    if feature.default is not None:
        values, _ = tf.sparse.fill_empty_rows(values, feature.default)
    if table is feature:
        _analyze(name, table, values.values, vocabularies)
    ids = _lookup(name, table, values, vocabularies)
    shifted = tf.SparseTensor(ids.indices, ids.values + 1, ids.dense_shape)
    filled, _ = tf.sparse.fill_empty_rows(shifted, tf.constant(0, tf.int64))
    return filled


def _sequence_ids(
    feature: Sequence, features: Mapping[str, Feature], column: tf.SparseTensor, vocabularies: Mapping[str, Any]
) -> tf.SparseTensor:
    """Return the ids of the newest values in the vocabulary of the feature they are of; rows may be empty."""
    of = features[feature.feature]
    assert isinstance(of, Vocabulary | Hashed)
    name = of.share or feature.feature
    table = features[name]
    assert isinstance(table, Vocabulary | Hashed)
    newest = tf.RaggedTensor.from_sparse(column)[:, -feature.length :]
    ids = _lookup(name, table, newest.values, vocabularies)
    return newest.with_values(ids + 1).to_sparse()


def _analyze(name: str, feature: Vocabulary | Hashed, values: tf.Tensor, vocabularies: dict[str, Any]) -> None:
    """Learn which values, or buckets of a hash, have been seen often enough to have rows of their own."""
    if isinstance(feature, Hashed) and feature.min_count == 1:
        return
    if isinstance(feature, Hashed):
        values = tf.strings.as_string(tf.strings.to_hash_bucket_fast(values, feature.buckets))
    vocabularies[name] = tft.vocabulary(
        values,
        top_k=feature.top if isinstance(feature, Vocabulary) else None,
        frequency_threshold=feature.min_count,
        vocab_filename=name,
        reserved_tokens=tf.constant([], tf.string),
    )


def _lookup(name: str, feature: Vocabulary | Hashed, text, vocabularies: Mapping[str, Any]):
    """Return ids from 0, -1 for a bucket without a row; with two hashes [values, 2]."""
    if isinstance(feature, Vocabulary):
        return tft.apply_vocabulary(text, vocabularies[name], num_oov_buckets=feature.oov)
    if isinstance(text, tf.SparseTensor):
        return tf.SparseTensor(text.indices, _lookup(name, feature, text.values, vocabularies), text.dense_shape)
    ids = tf.strings.to_hash_bucket_fast(text, feature.buckets)
    if feature.hashes == 2:
        second = tf.strings.to_hash_bucket_strong(text, feature.buckets, key=_SECOND_HASH)
        return tf.stack([ids, second], axis=1)
    if feature.min_count > 1:
        return tft.apply_vocabulary(tf.strings.as_string(ids), vocabularies[name], default_value=-1)
    return ids


def _scaled(feature: Numeric, column: tf.SparseTensor) -> tf.Tensor:
    def scale(values: tf.Tensor) -> tf.Tensor:
        values = tf.cast(values, tf.float64)
        return tf.sign(values) * tf.math.log1p(tf.abs(values)) if feature.scale == "log" else values

    values = first_value(column)
    if feature.default is not None:
        values = tf.where(is_given(values), values, feature.default)
    given = is_given(values)
    scaled = scale(values)
    if feature.scale != "none":
        seen = scale(column.values)
        mean, variance = tft.mean(seen), tft.var(seen)
        deviation = tf.where(variance > 0, tf.sqrt(variance), tf.ones_like(variance))
        scaled = tf.clip_by_value((scaled - mean) / deviation, -_Z_LIMIT, _Z_LIMIT)
    return tf.where(given, tf.cast(scaled, tf.float32), tf.zeros_like(values))


def _bucket_ids(name: str, feature: Bucketized, column: tf.SparseTensor) -> tf.Tensor:
    values = first_value(column)
    if feature.default is not None:
        values = tf.where(is_given(values), values, feature.default)
    given = is_given(values)
    boundaries = tft.quantiles(column.values, feature.buckets, epsilon=min(0.01, 0.1 / feature.buckets), name=name)
    ids = tft.apply_buckets(tf.where(given, values, tf.zeros_like(values)), boundaries)
    return tf.where(given, ids + 1, tf.zeros_like(ids))


def _time_part(feature: Time, time: tf.SparseTensor, since: tf.SparseTensor | None) -> tf.Tensor:
    event = first_value(time)
    event = tf.where(is_given(event), event, tf.cast(tf.timestamp(), tf.int64))
    if feature.part == "hour":
        return tf.math.floormod(tf.math.floordiv(event, 3600), 24)
    if feature.part == "weekday":
        return tf.math.floormod(tf.math.floordiv(event, 86400) + 3, 7)  # 1970-01-01 was a Thursday
    start = first_value(since)
    days = tf.cast(tf.maximum(event - start, 0), tf.float32) / 86400.0
    # Two buckets an octave from a day to ninety years; 1 holds the first hours and 0 an unknown start.
    ids = tf.cast(tf.minimum(2.0 * tf.math.log1p(days) / tf.math.log(2.0), AGE_BUCKETS - 2.0), tf.int64) + 1
    return tf.where(is_given(start), ids, tf.zeros_like(ids))


def _token(feature: Feature, inputs: Mapping[str, tf.SparseTensor], name: str, outputs: Mapping[str, Any]) -> tf.Tensor:
    """Return what a cross hashes: the text itself, or the bucket's number."""
    if isinstance(feature, Vocabulary | Hashed):
        text = first_value(inputs[feature.column or name])
        return text if feature.default is None else tf.where(is_given(text), text, feature.default)
    return tf.strings.as_string(outputs[name])
