"""TensorProto to columns and arrays and back to the wire, with as little Python per element as the wire allows."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from serving.server.limits import Budget, RequestLimits, check_rank, width_of
from serving.server.saved_model import Input
from serving.server.status import ServingError, invalid_argument

# A rank-1 tensor stays the list the protobuf runtime cuts in one call: cheaper than an array for the few rows of a
# ranking request, and cheaper to join with other requests' rows. Everything else is an array.
Column = list[Any] | np.ndarray

_FIELDS = {  # DataType number -> the *_val field and the numpy type of its elements
    1: ("float_val", np.float32),
    2: ("double_val", np.float64),
    3: ("int_val", np.int32),
    4: ("int_val", np.uint8),
    5: ("int_val", np.int16),
    6: ("int_val", np.int8),
    7: ("string_val", np.object_),
    9: ("int64_val", np.int64),
    10: ("bool_val", np.bool_),
    17: ("int_val", np.uint16),
    22: ("uint32_val", np.uint32),
    23: ("uint64_val", np.uint64),
}
_STRING = 7
_VALUES: dict[int, Callable[[Any], Any]] = {number: operator.attrgetter(name) for number, (name, _) in _FIELDS.items()}


def column(tensor: Any, declared: Input, position: int = 0, budget: Budget | None = None) -> Column:
    """The values of `tensor` (a TensorProto) for input `declared`; INVALID_ARGUMENT where they do not fit."""
    dtype = tensor.dtype
    if dtype != declared.dtype:
        raise invalid_argument(
            f"Expects arg[{position}] to be {_type_name(declared.dtype)} but {_type_name(dtype)} is provided "
            f"(input {declared.name!r})"
        )
    if budget is None:
        budget = RequestLimits().budget(tensor.ByteSize())
    dims = tensor.tensor_shape.dim
    if len(dims) == 1 and dtype in _VALUES:
        values = _VALUES[dtype](tensor)
        count = len(values)
        if count and count == dims[0].size:
            if count > budget.free_rows:
                budget.take(declared, (count,), width_of(declared, values))
            return values[:]
    check_rank(declared, len(dims))
    try:
        return _array(tensor, declared, tuple(dim.size for dim in dims), budget)
    except (ServingError, TypeError, ValueError, OverflowError, IndexError, MemoryError) as error:
        raise invalid_argument(f"tensor parsing error: {declared.name}: {error}") from error


def as_array(values: Column, declared: Input) -> np.ndarray:
    """The array TensorFlow is to be fed for `values`."""
    if isinstance(values, np.ndarray):
        return values
    try:
        return np.array(values, declared.numpy)
    except (OverflowError, ValueError) as error:
        raise invalid_argument(f"input {declared.name!r}: {error}") from error


def _array(tensor: Any, declared: Input, shape: tuple[int, ...], budget: Budget) -> np.ndarray:
    if tensor.tensor_shape.unknown_rank or any(size < 0 for size in shape):
        raise ValueError(f"shape {list(shape)} is not a full shape")
    count = math.prod(shape)
    if declared.dtype not in _FIELDS:
        import tensorflow as tf

        budget.take(declared, shape, declared.numpy.itemsize)
        return tf.make_ndarray(tensor)
    values = _VALUES[declared.dtype](tensor)
    # Before the values are copied out, let alone the last one repeated.
    budget.take(declared, shape, width_of(declared, values))
    if tensor.tensor_content:
        if declared.dtype == _STRING or len(tensor.tensor_content) != count * declared.numpy.itemsize:
            raise ValueError(
                f"tensor_content has {len(tensor.tensor_content)} bytes, which does not fit shape {list(shape)}"
            )
        return np.frombuffer(tensor.tensor_content, declared.numpy).reshape(shape)
    if len(values) > count:
        raise ValueError(f"{len(values)} values do not fit shape {list(shape)}")
    sent = values[:]
    if len(sent) == count:
        return as_array(sent, declared).reshape(shape)
    empty = b"" if declared.dtype == _STRING else 0
    full = np.full(count, sent[-1] if sent else empty, declared.numpy)  # the last value stands for the rest
    full[: len(sent)] = sent
    return full.reshape(shape)


def _type_name(number: int) -> str:
    import tensorflow as tf

    try:
        name = tf.dtypes.as_dtype(number).name
        return {"float32": "float", "float64": "double"}.get(name, name)  # TensorFlow's C++ names
    except (KeyError, TypeError):
        return f"unknown type {number}"


def varint(value: int) -> bytes:
    """`value` >= 0 as a protobuf varint."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


@functools.lru_cache(maxsize=4096)
def _prefix(dtype: int, shape: tuple[int, ...]) -> bytes:
    from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2

    dims = [tensor_shape_pb2.TensorShapeProto.Dim(size=size) for size in shape]
    # An empty shape message must still be there: a scalar is a tensor of known rank 0.
    return tensor_pb2.TensorProto(
        dtype=dtype, tensor_shape=tensor_shape_pb2.TensorShapeProto(dim=dims)
    ).SerializeToString()


def encode(array: np.ndarray, dtype: int) -> bytes:
    """`array` as the wire form of a TensorProto with its values in the typed field, as TensorFlow Serving answers."""
    prefix = _prefix(dtype, array.shape)
    if dtype == 1:  # packed little-endian values are the array's own bytes
        data = np.ascontiguousarray(array, "<f4").tobytes()
        return prefix + b"\x2a" + varint(len(data)) + data if data else prefix
    if dtype == 2:
        data = np.ascontiguousarray(array, "<f8").tobytes()
        return prefix + b"\x32" + varint(len(data)) + data if data else prefix
    from tensorflow.core.framework import tensor_pb2

    values = array.ravel()
    if dtype in _FIELDS:
        listed = values.tolist()
        if dtype == _STRING:
            listed = [each if isinstance(each, bytes) else str(each).encode() for each in listed]
        return prefix + tensor_pb2.TensorProto(**{_FIELDS[dtype][0]: listed}).SerializeToString()
    if dtype in (14, 19):  # bfloat16, half: the bits
        return prefix + tensor_pb2.TensorProto(half_val=values.view(np.uint16).tolist()).SerializeToString()
    import tensorflow as tf

    return tf.make_tensor_proto(array).SerializeToString()
