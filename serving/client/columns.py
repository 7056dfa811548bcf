"""Features as rows or columns to arrays of a signature's types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from serving.client.messages import Features, TensorTypes
from serving.server.status import Code, ServingError


def as_columns(features: Features) -> dict[str, Any]:
    """Columns by name, from rows or columns; INVALID_ARGUMENT naming the first row that has other features."""
    if isinstance(features, Mapping):
        return dict(features)
    rows = list(features)
    if not rows:
        raise ServingError(Code.INVALID_ARGUMENT, "no rows were given")
    names = rows[0].keys()
    for number, row in enumerate(rows):
        if row.keys() != names:
            raise ServingError(
                Code.INVALID_ARGUMENT,
                f"row {number} has features {sorted(row)}, the first one {sorted(names)}: all rows of a request need "
                "the same",
            )
    return {name: [row[name] for row in rows] for name in names}


def array_of(name: str, values: Any, dtype: int) -> np.ndarray:
    """The array of element type `dtype` (a DataType number) for Python values; INVALID_ARGUMENT names the feature."""
    import tensorflow as tf

    numpy = tf.dtypes.as_dtype(dtype).as_numpy_dtype
    try:
        if dtype == tf.string.as_datatype_enum:
            array = np.array(values, object)
            flat = [each.encode() if isinstance(each, str) else each for each in array.ravel().tolist()]
            wrong = next((each for each in flat if not isinstance(each, bytes)), None)
            if wrong is not None:
                raise TypeError(f"{wrong!r} is not a string")
            made = np.empty(len(flat), object)
            made[:] = flat
            return np.atleast_1d(made.reshape(array.shape))
        array = np.asarray(values)
        if array.size and array.dtype.kind not in "iufb":
            raise TypeError(f"{array.ravel()[0]!r} is not a number")
        if array.dtype.kind == "f" and np.dtype(numpy).kind in "iu" and (array != np.floor(array)).any():
            raise TypeError("a fraction was given for whole numbers")
        return np.atleast_1d(array.astype(numpy))
    except (TypeError, ValueError, OverflowError) as error:
        raise ServingError(Code.INVALID_ARGUMENT, f"feature {name!r}: {error}") from error


def check_names(columns: Mapping[str, Any], types: TensorTypes, signature: str) -> None:
    """INVALID_ARGUMENT for a column that the signature does not have."""
    unknown = sorted(set(columns) - set(types.inputs))
    if unknown:
        raise ServingError(
            Code.INVALID_ARGUMENT,
            f"signature {signature!r} has no input {unknown[0]!r}; it has {sorted(types.inputs)}",
        )
