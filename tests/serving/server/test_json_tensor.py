from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.server import json_answers, json_tensor
from serving.server.saved_model import Input, Signature
from serving.server.status import ServingError

FLOAT, INT64, STRING, BOOL, INT8 = (1, np.float32), (9, np.int64), (7, object), (10, np.bool_), (6, np.int8)


def signature(**inputs) -> Signature:
    declared = {name: Input(name, f"{name}:0", kind[0], np.dtype(kind[1]), None) for name, kind in inputs.items()}
    return Signature("s", "", declared, {"y": "y:0"}, {"y": 1}, lambda feeds: feeds, False, True, ("y",))


def columns(body, **inputs):
    found, rows = json_tensor.predict_columns(json_tensor.parse_object(json.dumps(body).encode()), signature(**inputs))
    return {name: values.tolist() if isinstance(values, np.ndarray) else values for name, values in found.items()}, rows


def test_rows_and_columns():
    rows = [{"a": 1, "b": "x"}, {"a": 2, "b": {"b64": "/w=="}}]
    assert columns({"instances": rows}, a=INT64, b=STRING) == ({"a": [1, 2], "b": [b"x", b"\xff"]}, True)
    assert columns({"inputs": {"a": [[1], [2]], "b": "x"}}, a=INT64, b=STRING) == ({"a": [[1], [2]], "b": b"x"}, False)
    assert columns({"instances": [[[1.0], [2.0]]]}, a=FLOAT) == ({"a": [[[1.0], [2.0]]]}, True)
    assert columns({"inputs": {"b64": "eA"}}, a=STRING) == ({"a": b"x"}, False)
    assert columns({"instances": []} | {"instances": [True, False]}, a=BOOL) == ({"a": [True, False]}, True)


@pytest.mark.parametrize(
    ("kind", "value"),
    [(INT64, 1.5), (INT64, True), (INT64, 2**63), (INT64, None), (INT8, 128),
     (FLOAT, True), (FLOAT, 1e39), (FLOAT, 2**24), (FLOAT, "1"),
     (STRING, 1), (STRING, {"b64": "?"}), (BOOL, 1)],
)  # fmt: skip
def test_what_does_not_fit_the_type_is_refused(kind, value):
    with pytest.raises(ServingError) as caught:
        columns({"instances": [value]}, a=kind)
    assert caught.value.http == 400


@given(
    st.lists(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=2, max_size=2), min_size=1)
)
def test_float32_survives_both_ways(values):
    array = np.array(values, np.float32)
    text = json_answers.predictions({"y": array}, rows=True)
    np.testing.assert_array_equal(np.array(json.loads(text)["predictions"], np.float32), array)


def test_answers():
    two = {"score": np.array([0.2, 3.0], np.float32), "image_bytes": np.array([b"\xff", b"x"], object)}
    assert json_answers.predictions(two, rows=True) == (
        b'{"predictions":[{"score":0.2,"image_bytes":{"b64":"/w=="}},{"score":3.0,"image_bytes":{"b64":"eA=="}}]}'
    )
    assert json_answers.predictions({"y": np.array([1, 2])}, rows=False) == b'{"outputs":[1,2]}'
    nan = json_answers.predictions({"y": np.array([[np.nan, -np.inf, 0.1]], np.float32)}, rows=True)
    assert nan == b'{"predictions": [[NaN, -Infinity, 0.1]]}'
    with pytest.raises(ServingError, match="inconsistent batch size"):
        json_answers.predictions({"a": np.zeros(2), "b": np.zeros(3)}, rows=True)
    with pytest.raises(ServingError, match="no shape"):
        json_answers.predictions({"a": np.array(1.0)}, rows=True)
