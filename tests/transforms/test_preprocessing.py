"""Every feature kind against a slow reference, and the training path against the served one."""

import math
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf

from configs.features import Bucketized, Crossed, Hashed, Numeric, Sequence, Time, Vocabulary
from models.training.examples import examples
from tests.conftest import DAY, make_rows, missing, named, serialized
from transforms.raw import raw_feature_spec, sparse_from_named
from transforms.text_ids import split_values
from transforms.transformed import PADDING, model_inputs


@pytest.fixture(scope="module")
def trained(sample):
    """What the training path wrote, read back as models read it."""
    inputs, _ = next(examples([sample.files], sample.features, len(sample.rows)).as_numpy_iterator())
    return inputs


def texts(feature, name, row) -> list[str]:
    cells = row[feature.column or name]
    if feature.separator is None:
        found = cells[:1] if cells and not missing(cells[0]) else []
    else:
        found = [value for cell in cells for value in cell.split(feature.separator) if value]
    return found or ([feature.default] if feature.default is not None else [])


def fast_hash(text: str, buckets: int) -> int:
    return int(tf.strings.to_hash_bucket_fast(text, buckets))


def text_ids(sample, name, row) -> list[int]:
    feature = sample.table[name]
    values = texts(feature, name, row)
    if isinstance(feature, Hashed):
        return [1 + fast_hash(value, feature.buckets) for value in values] or [0]
    words = [word.decode() for word in sample.transform_output.vocabulary_by_name(name)]
    return [1 + words.index(v) if v in words else 1 + len(words) + fast_hash(v, feature.oov) for v in values] or [0]


def names(sample, *kinds) -> list[str]:
    return [name for name, feature in sample.table.items() if isinstance(feature, kinds)]


def test_vocabularies_hold_the_most_frequent_values_in_order(sample):
    for name in ("user", "item", "city", "tags"):
        feature = sample.table[name]
        counts = Counter(value for row in sample.rows for value in texts(feature, name, row))
        kept = [value for value, count in counts.items() if count >= feature.min_count]
        kept = sorted(kept, key=lambda value: (counts[value], value.encode()), reverse=True)[: feature.top]
        found = [word.decode() for word in sample.transform_output.vocabulary_by_name(name)]
        assert Counter(counts[word] for word in found) == Counter(counts[word] for word in kept)
        assert [counts[word] for word in found] == sorted((counts[word] for word in found), reverse=True)
        assert set(found) <= set(counts)


def test_texts_become_ids(sample, trained):
    for name in names(sample, Vocabulary, Hashed):
        for row, ids in zip(sample.rows, trained[name], strict=True):
            ids = [ids] if np.ndim(ids) == 0 else [i for i in ids if i != PADDING]
            assert list(ids) == text_ids(sample, name, row), (name, row)


def test_sequences_become_the_newest_ids_of_the_feature_they_are_of(sample, trained):
    for name in names(sample, Sequence):
        feature = sample.table[name]
        of = sample.table[feature.feature]
        for row, ids in zip(sample.rows, trained[name], strict=True):
            newest = [text_ids(sample, feature.feature, {of.column or feature.feature: [v]})[0] for v in row[name]]
            newest = newest[-feature.length :]
            assert list(ids) == newest + [PADDING] * (feature.length - len(newest)), (name, row)


def test_numbers_are_scaled(sample, trained):
    for name in names(sample, Numeric):
        feature = sample.table[name]
        values = [next(iter(row[feature.column or name]), math.nan) for row in sample.rows]

        def scale(value, log=feature.scale == "log"):
            return math.copysign(math.log1p(abs(value)), value) if log else value

        seen = [scale(float(np.float32(v))) for v in values if not math.isnan(v)]
        mean = sum(seen) / max(len(seen), 1)
        deviation = math.sqrt(sum((v - mean) ** 2 for v in seen) / max(len(seen), 1)) or 1.0
        for value, found in zip(values, trained[name], strict=True):
            value = feature.default if math.isnan(value) and feature.default is not None else value
            if math.isnan(value):
                expected = 0.0
            elif feature.scale == "none":
                expected = value
            else:
                expected = min(max((scale(float(np.float32(value))) - mean) / deviation, -10.0), 10.0)
            assert found == pytest.approx(expected, rel=1e-4, abs=1e-5), (name, value)


def test_buckets_are_ordered_full_and_leave_0_to_the_missing(sample, trained):
    for name in names(sample, Bucketized):
        feature = sample.table[name]
        values = [next(iter(row[name]), math.nan) for row in sample.rows]
        if feature.default is not None:
            values = [feature.default if math.isnan(value) else value for value in values]
        given = sorted((value, id_) for value, id_ in zip(values, trained[name], strict=True) if not math.isnan(value))
        assert all(id_ == 0 for value, id_ in zip(values, trained[name], strict=True) if math.isnan(value))
        ids = [id_ for _, id_ in given]
        assert ids == sorted(ids)
        assert all(1 <= id_ <= feature.buckets for id_ in ids)
        assert len({value for value, _ in given}) == len(set(given))
        if given:
            assert len(set(ids)) >= 3


def test_times_become_their_parts(sample, trained):
    from datetime import UTC, datetime, timedelta

    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    for index, row in enumerate(sample.rows):
        moment = epoch + timedelta(seconds=row["t"][0])
        assert trained["hour"][index] == moment.hour
        assert trained["weekday"][index] == moment.weekday()
        if row["joined"]:
            days = max(row["t"][0] - row["joined"][0], 0) / DAY
            assert trained["tenure"][index] == 1 + min(int(2 * math.log2(1 + days) + 1e-9), 30), row
        else:
            assert trained["tenure"][index] == 0


def test_crosses_hash_the_pair(sample, trained):
    for name in names(sample, Crossed):
        feature = sample.table[name]
        for index, row in enumerate(sample.rows):
            parts = []
            for part in feature.cross:
                other = sample.table[part]
                if isinstance(other, Vocabulary | Hashed):
                    parts.append(next(iter(texts(other, part, row)), ""))
                else:
                    assert isinstance(other, Bucketized | Time)
                    parts.append(str(trained[part][index]))
            assert trained[name][index] == fast_hash("\x1f".join(parts), feature.buckets)


def test_hashes_never_change():
    """A bucket is part of a trained model: another hash would scramble its tables without a word."""
    assert [fast_hash(text, 1000) for text in ("", "007", "日本")] == [263, 884, 883]


def test_ids_lie_within_their_tables(sample, trained):
    for feature in sample.features:
        if feature.size:
            ids = trained[feature.name]
            assert ids.min() >= (PADDING if feature.multivalued else 0)
            assert ids.max() < feature.size


@pytest.mark.parametrize("rows", [None, make_rows(60, seed=7)], ids=["training rows", "unseen rows"])
def test_the_same_bytes_at_serving(sample, trained, rows):
    """Named columns and serialized Examples give what the training path gave, and the same as one another."""
    layer = sample.transform_output.transform_features_layer()
    rows_ = sample.rows if rows is None else rows
    by_name = model_inputs(sample.features, layer(sparse_from_named(named(sample, rows_))))
    parsed = tf.io.parse_example(serialized(sample, rows_), raw_feature_spec(sample.columns.values()))
    by_example = model_inputs(sample.features, layer(parsed))
    for feature in sample.features:
        served = by_example[feature.name].numpy()
        np.testing.assert_array_equal(by_name[feature.name].numpy(), served, err_msg=feature.name)
        if rows is None:
            np.testing.assert_array_equal(trained[feature.name], served, err_msg=feature.name)


def test_splitting_drops_empty_values_and_keeps_rows():
    cells = tf.RaggedTensor.from_row_lengths(["a|b", "||", "c", "|d|e", "ü"], [1, 0, 1, 3]).to_sparse()
    values = tf.RaggedTensor.from_sparse(split_values(cells, "|")).to_list()
    assert values == [[b"a", b"b"], [], [], [b"c", b"d", b"e", "ü".encode()]]


def test_rows_without_any_value_leave_room_for_the_one_that_fills_them():
    """A request that leaves a several-valued column out has no value in any row."""
    values = split_values(tf.RaggedTensor.from_row_lengths(tf.constant([], tf.string), [0, 0]).to_sparse(), "|")
    filled, empty = tf.sparse.fill_empty_rows(values, "none")
    assert tf.sparse.to_dense(filled).numpy().tolist() == [[b"none"], [b"none"]]
    assert empty.numpy().tolist() == [True, True]
