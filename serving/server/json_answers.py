"""Outputs to JSON, as TensorFlow Serving writes them.

orjson does the work; it would write null for NaN and Infinity, which this API writes bare, so the standard library
writes what has them.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from serving.server.status import invalid_argument

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY


def predictions(outputs: Mapping[str, np.ndarray], rows: bool) -> bytes:
    """The body of a predict answer, in the form of the request: `predictions` by row or `outputs` by column."""
    if not outputs:
        raise invalid_argument("Cannot convert empty tensor map to JSON")
    ready = {name: _printable(name, array) for name, array in outputs.items()}
    if not rows:
        return _dump({"outputs": ready if len(ready) > 1 else next(iter(ready.values()))})
    sizes = set()
    for name, array in outputs.items():
        if array.ndim == 0:
            raise invalid_argument(f"Tensor name: {name} has no shape information ")
        sizes.add(array.shape[0])
        if len(sizes) > 1:
            raise invalid_argument(
                f"Tensor name: {name} has inconsistent batch size: {array.shape[0]} expecting: "
                f"{next(iter(outputs.values())).shape[0]}"
            )
    if len(ready) == 1:
        return _dump({"predictions": next(iter(ready.values()))})
    names = list(ready)
    return _dump({"predictions": [dict(zip(names, row, strict=True)) for row in zip(*ready.values(), strict=True)]})


def _printable(name: str, array: np.ndarray) -> Any:
    if array.dtype == object:
        return _strings(array.tolist(), as_base64=name.endswith("_bytes"))
    if array.dtype.kind not in "fiub":
        raise invalid_argument(f"Failed to write JSON value for tensor type: {array.dtype}")
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    return np.ascontiguousarray(array)


def _strings(value: Any, as_base64: bool) -> Any:
    if isinstance(value, list):
        return [_strings(each, as_base64) for each in value]
    if as_base64:
        return {"b64": base64.b64encode(value).decode()}
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _dump(document: Any) -> bytes:
    if _finite(document):
        try:
            return orjson.dumps(document, option=_OPTIONS)
        except TypeError:  # a numpy type that orjson does not know
            pass
    return json.dumps(_plain(document)).encode()


def _finite(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.dtype.kind != "f" or bool(np.isfinite(value).all())
    if isinstance(value, np.floating):
        return bool(np.isfinite(value))
    if isinstance(value, dict):
        return all(map(_finite, value.values()))
    return all(map(_finite, value)) if isinstance(value, list) else True


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return _plain(list(value)) if value.ndim else _plain(value[()])
    if isinstance(value, np.float32):
        return float(str(value))  # the shortest digits that give this float32 back, not its double's noise
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list) else value


def classifications(result: Any) -> bytes:
    """The body of a classify answer."""
    return _dump(
        {
            "results": [
                [[entry.label, np.float32(entry.score)] for entry in each.classes] for each in result.classifications
            ]
        }
    )


def regressions(result: Any) -> bytes:
    """The body of a regress answer."""
    return _dump({"results": np.array([each.value for each in result.regressions], np.float32)})


def error_body(message: str) -> bytes:
    """The body of every failed request."""
    return orjson.dumps({"error": message.encode("utf-8", "replace").decode()})


def named(values: Sequence[np.ndarray], names: Sequence[str]) -> dict[str, np.ndarray]:
    """Outputs by name."""
    return dict(zip(names, values, strict=True))
