"""TensorProto to columns and arrays and back to the wire, with as little Python per element as the wire allows."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from serving.server.saved_model import Input
from serving.server.status import invalid_argument

# A rank-1 tensor stays the list the protobuf runtime cuts in one call: cheaper than an array for the few rows of a
# ranking request, and cheaper to join with other requests' rows. Everything else is an array.
Column = list[Any] | np.ndarray

# A TensorProto may say [10**12] and send one value to repeat; nobody needs that, and it would take the server down.
MAX_REPEATED_ELEMENTS = 1 << 24

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


def column(tensor: Any, declared: Input, position: int = 0) -> Column:
    """The values of `tensor` (a TensorProto) for input `declared`; INVALID_ARGUMENT where they do not fit."""
    dtype = tensor.dtype
    if dtype != declared.dtype:
        raise invalid_argument(
            f"Expects arg[{position}] to be {_type_name(declared.dtype)} but {_type_name(dtype)} is provided "
            f"(input {declared.name!r})"
        )
    dims = tensor.tensor_shape.dim
    if len(dims) == 1 and dtype in _VALUES:
        values = _VALUES[dtype](tensor)[:]
        if values and len(values) == dims[0].size:
            return values
    try:
        return _array(tensor, declared, tuple(dim.size for dim in dims))
    except (TypeError, ValueError, OverflowError, IndexError, MemoryError) as error:
        raise invalid_argument(f"tensor parsing error: {declared.name}: {error}") from error


def as_array(values: Column, declared: Input) -> np.ndarray:
    """The array TensorFlow is to be fed for `values`."""
    if isinstance(values, np.ndarray):
        return values
    try:
        return np.array(values, declared.numpy)
    except (OverflowError, ValueError) as error:
        raise invalid_argument(f"input {declared.name!r}: {error}") from error


def _array(tensor: Any, declared: Input, shape: tuple[int, ...]) -> np.ndarray:
    if tensor.tensor_shape.unknown_rank or any(size < 0 for size in shape):
        raise invalid_argument(f"tensor parsing error: {declared.name}: shape {list(shape)} is not a full shape")
    count = 1
    for size in shape:
        count *= size
    if declared.dtype not in _FIELDS:
        import tensorflow as tf

        if count > MAX_REPEATED_ELEMENTS:
            raise _too_large(declared, shape)
        return tf.make_ndarray(tensor)
    if tensor.tensor_content:
        if declared.dtype == _STRING or len(tensor.tensor_content) != count * declared.numpy.itemsize:
            raise invalid_argument(
                f"tensor parsing error: {declared.name}: tensor_content has {len(tensor.tensor_content)} bytes, "
                f"which does not fit shape {list(shape)}"
            )
        return np.frombuffer(tensor.tensor_content, declared.numpy).reshape(shape)
    values = _VALUES[declared.dtype](tensor)[:]
    if len(values) > count:
        raise invalid_argument(
            f"tensor parsing error: {declared.name}: {len(values)} values do not fit shape {list(shape)}"
        )
    if len(values) == count:
        return as_array(values, declared).reshape(shape)
    if count > MAX_REPEATED_ELEMENTS:
        raise _too_large(declared, shape)
    empty = b"" if declared.dtype == _STRING else 0
    full = np.full(count, values[-1] if values else empty, declared.numpy)  # the last value stands for the rest
    full[: len(values)] = values
    return full.reshape(shape)


def _too_large(declared: Input, shape: Sequence[int]) -> Exception:
    return invalid_argument(
        f"tensor parsing error: {declared.name}: shape {list(shape)} has more than {MAX_REPEATED_ELEMENTS} elements "
        f"that were not sent"
    )


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
