"""Named columns of a request."""

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from components.requests import named_columns
from configs.data import PER_SECOND
from configs.features import MISSING_TIME, Feature, raw_columns
from transforms.raw import is_given, sparse_from_named


@given(st.lists(st.floats(width=32) | st.just(float("nan")), min_size=1, max_size=8), st.data())
def test_values_stay_and_missing_ones_are_not_there(numbers, data):
    count = len(numbers)
    words = data.draw(st.lists(st.text(max_size=3), min_size=count, max_size=count))
    times = data.draw(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=count, max_size=count))
    sparse = sparse_from_named(
        {"n": tf.constant(numbers, tf.float32), "w": tf.constant(words), "t": tf.constant(times, tf.int64)}
    )
    found = {name: tf.RaggedTensor.from_sparse(column).to_list() for name, column in sparse.items()}
    assert found["w"] == [[word.encode()] if word else [] for word in words]
    assert found["t"] == [[t] if t != MISSING_TIME else [] for t in times]
    assert found["n"] == [[float(np.float32(x))] if x == x else [] for x in numbers]


def test_a_column_of_one_row_stands_for_all():
    sparse = sparse_from_named({"user": tf.constant(["u"]), "item": tf.constant(["a", "", "c"])})
    assert tf.sparse.to_dense(sparse["user"]).numpy().tolist() == [[b"u"], [b"u"], [b"u"]]
    assert sparse["item"].dense_shape.numpy().tolist() == [3, 1]
    assert sparse["item"].indices.numpy().tolist() == [[0, 0], [2, 0]]


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(tf.errors.InvalidArgumentError):
        sparse_from_named({"a": tf.constant(["x", "y"]), "b": tf.constant(["x", "y", "z"])})


def test_missing_marks():
    assert is_given(tf.constant(["", " ", "0"])).numpy().tolist() == [False, True, True]
    assert is_given(tf.constant([0.0, float("nan"), float("inf")])).numpy().tolist() == [True, False, True]
    assert is_given(tf.constant([0, MISSING_TIME], tf.int64)).numpy().tolist() == [True, False]


@pytest.mark.parametrize(("unit", "per_second"), [("s", 1), ("ms", 1_000), ("us", 1_000_000), ("ns", 1_000_000_000)])
def test_times_of_a_request_are_in_the_unit_of_the_logs(unit, per_second):
    """What ingest reads from a log as seconds, the graph makes of the same value in a request."""
    features = TypeAdapter(dict[str, Feature]).validate_python({"hour": {"kind": "time", "part": "hour"}})
    columns = raw_columns(features, "t", PER_SECOND[unit])
    assert columns["t"].per_second == per_second
    logged = [1_700_000_000 * per_second, -1, MISSING_TIME]
    made = sparse_from_named({"t": tf.constant(logged, tf.int64)}, columns)["t"]
    assert made.values.numpy().tolist() == [1_700_000_000, -1]
    batch = pa.RecordBatch.from_pydict({"t": [[1_700_000_000], None]})
    assert named_columns(columns, batch)["t"] == [1_700_000_000 * per_second, MISSING_TIME]
