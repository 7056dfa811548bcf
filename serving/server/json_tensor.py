"""REST bodies to columns, as TensorFlow Serving reads them.

orjson does the work; it refuses the bare NaN and Infinity that this API allows, so the standard library reads what has
them.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import orjson

from serving.server.limits import DEFAULT_BYTES, Budget, RequestLimits, check_rank, width_of
from serving.server.saved_model import Input, Signature
from serving.server.status import Code, ServingError, invalid_argument
from serving.server.tensor_proto import Column

_SHOWN_CHARACTERS = 200  # of a value in an error message; a client's whole body is not sent back
_SHOWN_VALUES = 400  # as many as could stand in so many characters
_INTEGERS = {3: 32, 4: 8, 5: 16, 6: 8, 9: 64, 17: 16, 22: 32, 23: 64}
_UNSIGNED = {4, 17, 22, 23}
_TYPE_NAMES = {
    1: "float", 2: "double", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 7: "string", 9: "int64", 10: "bool",
    17: "uint16", 22: "uint32", 23: "uint64",
}  # fmt: skip


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`."""
    if not body:
        raise invalid_argument("JSON Parse error: The document is empty")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as refused:
        if b"NaN" not in body and b"Infinity" not in body:  # then nothing else would read it either
            raise _unreadable(refused.pos, refused.msg) from refused
        try:
            document = json.loads(body, parse_float=_finite)
        except (ValueError, RecursionError) as error:
            raise _unreadable(getattr(error, "pos", 0), error) from error
    if not isinstance(document, dict):
        raise invalid_argument(f"JSON Value: {_show(document)} Is not object")
    return document


def _unreadable(offset: int, why: object) -> ServingError:
    return invalid_argument(f"JSON Parse error: Invalid value. at offset: {offset} ({why})")


def _finite(text: str) -> float:
    """A number of the document; infinity has a name of its own, and 1e400 is not it."""
    value = float(text)
    if math.isinf(value):
        raise ValueError("number is infinity when parsed as double")
    return value


def signature_name(document: Mapping[str, Any]) -> str:
    """The request's `signature_name`, or empty."""
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid_argument(
            f"JSON Value: {_show(document)} not formatted correctly. 'signature_name' key must be a string value."
        )
    return name


def predict_columns(
    document: Mapping[str, Any], signature: Signature, budget: Budget | None = None
) -> tuple[dict[str, Column], bool]:
    """The columns a predict body sends (those it leaves out are missing here), and whether it sent rows."""
    if budget is None:
        budget = RequestLimits().budget(DEFAULT_BYTES)
    rows, columns = "instances" in document, "inputs" in document
    if rows and columns:
        raise invalid_argument(
            f"JSON Value: {_show(document)} Not formatted correctly expecting only one of 'inputs' or 'instances' "
            "keys to exist "
        )
    if rows:
        return _from_instances(document, signature, budget), True
    if columns:
        return _from_inputs(document["inputs"], signature, budget), False
    raise invalid_argument("Missing 'inputs' or 'instances' key")


def _from_instances(document: Mapping[str, Any], signature: Signature, budget: Budget) -> dict[str, Column]:
    instances = document["instances"]
    if not isinstance(instances, list):
        raise invalid_argument(f"JSON Value: {_show(document)} Excepting 'instances' to be an list/array")
    if not instances:
        raise invalid_argument(f"JSON Value: {_show(document)} No values in 'instances' array")
    budget.limits.check_rows(len(instances))
    declared = signature.inputs
    if not _is_object(instances[0]):
        if len(declared) != 1:
            raise invalid_argument(
                "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
                "tensorinfo_map"
            )
        for position, each in enumerate(instances):
            if _is_object(each):
                raise invalid_argument(f"Expecting value/list but got object at item {position} of input list")
        ((name, only),) = declared.items()
        return {name: _tensor(instances, only, budget)}
    keys = instances[0].keys() if isinstance(instances[0], dict) else set()
    unknown = [key for key in keys if key not in declared]
    required = {name for name, each in declared.items() if each.default is None}
    for position, row in enumerate(instances):
        if not _is_object(row):
            raise invalid_argument(f"Expecting object but got list at item {position} of input list")
        if row.keys() != keys or unknown or not required <= row.keys():
            raise invalid_argument(
                f"Failed to process element: {position} of 'instances' list. JSON object: {_show(row)} keys must be "
                f"equal to: {','.join(sorted(declared))}"
            )
    columns = {}
    for name, each in declared.items():
        if name in keys:
            try:
                columns[name] = _tensor([row[name] for row in instances], each, budget)
            except ServingError as error:
                raise invalid_argument(
                    f"Failed to process element: 0 key: {name} of 'instances' list. Error: {error.message}"
                ) from error
    return columns


def _from_inputs(value: Any, signature: Signature, budget: Budget) -> dict[str, Column]:
    declared = signature.inputs
    if not _is_object(value):
        if len(declared) != 1:
            raise invalid_argument(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
                "tensorinfo_map"
            )
        ((name, only),) = declared.items()
        return {name: _tensor(value, only, budget)}
    columns = {}
    for name, each in declared.items():
        if name in value:
            columns[name] = _tensor(value[name], each, budget)
        elif each.default is None:
            raise invalid_argument(f"Missing named input: {name} in 'inputs' object.")
    return columns


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and not _is_base64(value)


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def _tensor(value: Any, declared: Input, budget: Budget) -> Column:
    """A scalar, list or nested list as one tensor."""
    if type(value) is not list:
        return np.array(_leaves([value], declared)[0], declared.numpy)
    if list not in set(map(type, value)):
        leaves = _leaves(value, declared)
        if len(leaves) > budget.free_rows:
            budget.take(declared, (len(leaves),), width_of(declared, leaves))
        return leaves
    flat, shape = _flattened(value, declared, budget)
    leaves = _leaves(flat, declared)
    budget.take(declared, shape, width_of(declared, leaves))
    array = np.empty(len(leaves), declared.numpy)
    try:
        array[:] = leaves
    except OverflowError as error:
        raise invalid_argument(f"input {declared.name!r}: {error}") from error
    return array.reshape(shape)


def _flattened(value: list[Any], declared: Input, budget: Budget) -> tuple[list[Any], list[int]]:
    """The values inside nested lists, and their shape; all lists of a level have one length, or it is no tensor."""
    shape: list[int] = []
    flat: list[Any] = [value]
    while flat:
        kinds = set(map(type, flat))
        if list not in kinds:
            break
        if kinds != {list}:
            raise invalid_argument(
                f"JSON Value: {_show(next(each for each in flat if type(each) is not list))} found at incorrect "
                f"level: {len(shape) + 1} in the JSON DOM. Expected at level: {len(shape)}"
            )
        sizes = set(map(len, flat))
        if len(sizes) != 1:
            raise invalid_argument(
                f"Encountered list at unexpected size: {max(sizes)} at level: {len(shape)} expected size: "
                f"{len(flat[0])}"
            )
        shape.append(sizes.pop())
        check_rank(declared, len(shape))
        budget.check_elements(declared, shape)
        flat = [each for inner in flat for each in inner]
    return flat, shape


def _leaves(values: list[Any], declared: Input) -> list[Any]:
    """Values of one tensor, checked (and for strings encoded) by the types that occur rather than one by one."""
    dtype = declared.dtype
    kinds = set(map(type, values))
    if dtype == 7:
        if kinds <= {str}:
            return [value.encode("utf-8", "surrogatepass") for value in values]
        return [_string(value, declared) for value in values]
    if dtype in (1, 2, 14, 19):
        if kinds <= {int, float}:
            limit = (1 << (53 if dtype == 2 else 24)) - 1
            largest = 3.4028234663852886e38 if dtype != 2 else math.inf
            for value in values:
                if type(value) is int:
                    if not -limit <= value <= limit:
                        raise _lossy(value, declared)
                elif not -largest <= value <= largest and math.isfinite(value):
                    raise _lossy(value, declared)
            return values
    elif dtype in _INTEGERS:
        if kinds <= {int}:
            bits = _INTEGERS[dtype]
            low, high = (0, (1 << bits) - 1) if dtype in _UNSIGNED else (-(1 << bits - 1), (1 << bits - 1) - 1)
            for value in (min(values), max(values)) if values else ():
                if not low <= value <= high:
                    raise _wrong_type(value, declared)
            return values
    elif dtype == 10:
        if kinds <= {bool}:
            return values
    else:
        raise ServingError(
            Code.UNIMPLEMENTED, f"Conversion of JSON Value: {_show(values)} to type: {declared.numpy} of an input"
        )
    allowed = {1: (int, float), 2: (int, float), 10: (bool,)}.get(dtype, (int,))
    raise _wrong_type(next(value for value in values if type(value) not in allowed), declared)


def _string(value: Any, declared: Input) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if not isinstance(value, dict):
        raise _wrong_type(value, declared)
    if not _is_base64(value):
        raise invalid_argument(f"JSON Value: {_show(value)} not formatted correctly for base64 data")
    text = value["b64"]
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid_argument("Unable to base64 decode") from error


def _wrong_type(value: Any, declared: Input) -> ServingError:
    kinds: dict[type, str] = {
        type(None): "Null", bool: "True" if value else "False", dict: "Object", list: "Array", str: "String",
    }  # fmt: skip
    expected = _TYPE_NAMES.get(declared.dtype, str(declared.numpy))
    return invalid_argument(
        f"JSON Value: {_show(value)} Type: {kinds.get(type(value), 'Number')} is not of expected type: {expected}"
    )


def _lossy(value: Any, declared: Input) -> ServingError:
    return invalid_argument(
        f"Cannot convert JSON value: {_show(value)} to {_TYPE_NAMES.get(declared.dtype)} without loss of precision."
    )


def _show(value: Any) -> str:
    """The beginning of a value, for an error message."""
    text = json.dumps(_beginning(value, itertools.count()))
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."


def _beginning(value: Any, seen: Iterator[int]) -> Any:
    """So much of a parsed value as can be shown: a request may have millions of them, nested a thousand deep."""
    if isinstance(value, str):
        return value[: _SHOWN_CHARACTERS + 1]
    if isinstance(value, int) and value.bit_length() > _SHOWN_CHARACTERS * 4:
        return "a number of thousands of digits"
    if isinstance(value, dict):
        pairs = itertools.islice(value.items(), _SHOWN_CHARACTERS)
        return {
            key[: _SHOWN_CHARACTERS + 1]: _beginning(each, seen) for key, each in pairs if next(seen) < _SHOWN_VALUES
        }
    if isinstance(value, list):
        items = itertools.islice(value, _SHOWN_CHARACTERS)
        return [_beginning(each, seen) for each in items if next(seen) < _SHOWN_VALUES]
    return value


def fill_examples(document: Mapping[str, Any], request: Any, limits: RequestLimits) -> None:
    """Fill the Input of a classify or regress request from `examples` and `context`."""
    request.model_spec.signature_name = signature_name(document)
    examples = document.get("examples")
    if "examples" not in document:
        raise invalid_argument(
            f"JSON Value: {_show(document)} When method is classify, key 'examples' is expected and was not found"
        )
    if not isinstance(examples, list):
        raise invalid_argument(f"JSON Value: {_show(document)} Expecting 'examples' value to be an list/array")
    if not examples:
        raise invalid_argument(f"JSON Value: {_show(document)} 'examples' value is an empty array")
    limits.check_rows(len(examples))
    if "context" in document:
        target = request.input.example_list_with_context
        _fill_example(document["context"], target.context)
    else:
        target = request.input.example_list
    for each in examples:
        _fill_example(each, target.examples.add())


def _fill_example(value: Any, example: Any) -> None:
    if not isinstance(value, dict):
        raise invalid_argument(f"Example must be JSON object but got JSON {_show(value)}")
    for name, content in value.items():
        values = content if isinstance(content, list) else [content]
        feature = example.features.feature[name]
        kinds = set(map(type, values))
        try:
            if not values:
                continue
            if kinds <= {int, bool}:
                feature.int64_list.value.extend(map(int, values))
            elif kinds <= {float}:
                feature.float_list.value.extend(values)
            elif kinds <= {str, dict}:
                declared = Input(name, "", 7, np.dtype(object), None)
                feature.bytes_list.value.extend(_string(each, declared) for each in values)
            elif kinds & {type(None), list}:
                raise invalid_argument(f"Feature: {name} has element with unexpected JSON type: {_show(values)}")
            else:
                raise invalid_argument(f"Unexpected element type in feature: {name} in {_show(values)}")
        except (ValueError, OverflowError) as error:
            raise invalid_argument(f"Feature: {name}: {error}") from error
