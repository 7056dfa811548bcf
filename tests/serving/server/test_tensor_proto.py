from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from serving.server.saved_model import Input
from serving.server.status import ServingError
from serving.server.tensor_proto import as_array, column, encode

TYPES = [
    "float32",
    "float64",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "bool",
    "float16",
]


def declared(dtype: tf.DType) -> Input:
    return Input("x", "x:0", dtype.as_datatype_enum, np.dtype(dtype.as_numpy_dtype), None)


@given(st.data(), st.sampled_from(TYPES))
def test_arrays_survive_the_wire(data, name):
    shapes = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
    array = data.draw(arrays.arrays(np.dtype(name), shapes))
    dtype = tf.dtypes.as_dtype(name)
    tensor = tf.make_tensor_proto(0).FromString(encode(array, dtype.as_datatype_enum))
    np.testing.assert_array_equal(tf.make_ndarray(tensor), array)
    assert not tensor.tensor_content
    for sent in (tensor, tf.make_tensor_proto(array)):
        received = as_array(column(sent, declared(dtype)), declared(dtype))
        assert received.dtype == array.dtype
        np.testing.assert_array_equal(received, array)


def test_strings_survive_the_wire():
    array = np.array([[b"a", b""], [b"\xff", b"long" * 100]], object)
    tensor = tf.make_tensor_proto(0).FromString(encode(array, 7))
    assert as_array(column(tensor, declared(tf.string)), declared(tf.string)).tolist() == array.tolist()


def test_the_last_value_stands_for_the_rest():
    tensor = tf.make_tensor_proto(0).FromString(b"")
    tensor.dtype = 1
    tensor.tensor_shape.dim.add(size=4)
    tensor.float_val.extend([1.0, 2.0])
    assert column(tensor, declared(tf.float32)).tolist() == [1.0, 2.0, 2.0, 2.0]


@pytest.mark.parametrize(
    ("size", "values", "content"), [(-1, [], b""), (1, [1.0, 2.0], b""), (2, [], b"123"), (10**15, [1.0], b"")]
)
def test_what_does_not_fit_is_refused(size, values, content):
    tensor = tf.make_tensor_proto(0).FromString(b"")
    tensor.dtype = 1
    tensor.tensor_shape.dim.add(size=size)
    tensor.float_val.extend(values)
    tensor.tensor_content = content
    with pytest.raises(ServingError, match="tensor parsing error"):
        column(tensor, declared(tf.float32))
