from __future__ import annotations

import numpy as np
import pytest

from serving.server.inference import feeds, level, predict_columns
from serving.server.saved_model import SavedModelBundle
from serving.server.status import ServingError
from tests.serving import saved_models


def test_tf1_model_with_variables_runs(tmp_path):
    bundle = SavedModelBundle(saved_models.half_plus_two(tmp_path, 1))
    (answer,) = bundle.signatures["serving_default"].run([np.array([[2.0], [4.0]], np.float32)])
    assert answer.tolist() == [[3.0], [4.0]]
    assert bundle.signatures["classify_x_to_y"].method == "tensorflow/serving/classify"
    bundle.close()


def test_an_error_that_quotes_bytes_is_still_the_clients(tmp_path):
    bundle = SavedModelBundle(saved_models.half_plus_two(tmp_path, 1))
    with pytest.raises(ServingError, match="Could not parse example input") as caught:
        bundle.run({"tf_example:0": np.array([b"\x0a\x03\x0a\xb1\xff"], object)}, ["y:0"])
    assert caught.value.code.name == "INVALID_ARGUMENT"
    bundle.close()


def test_tf2_model_with_table_and_defaults_runs(tmp_path):
    bundle = SavedModelBundle(saved_models.ranking(tmp_path))
    signature = bundle.signatures["serving_default"]
    assert signature.batchable
    assert not bundle.signatures["rank"].batchable  # its user features have exactly one row
    (answer,) = signature.run([np.array([50, 10]), np.array([b"a", b"zz"], object)])
    assert answer == pytest.approx([101.5, 2.1])
    columns = predict_columns(signature, {})
    assert feeds(signature, columns)[0].tolist() == [30]
    levelled = level({**columns, "item": [b"x", b"y", b"z"]}, signature, {"item"})
    assert levelled["age"].tolist() == [30, 30, 30]
    bundle.close()


@pytest.mark.slow
def test_every_kind_of_saved_model_loads(tmp_path):
    for kind, (base, name) in saved_models.kinds(tmp_path).items():
        bundle = SavedModelBundle(base / "1")
        signature = bundle.signatures["serving_default"]
        assert list(signature.inputs) == [name], kind
        (answer,) = signature.run([np.array([[3.0]], np.float32)])
        assert answer.tolist() == [[6.0]], kind
        bundle.close()


def test_what_is_no_saved_model_says_so(tmp_path):
    with pytest.raises(ServingError, match="Could not find SavedModel"):
        SavedModelBundle(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"\xff\xff")
    with pytest.raises(ServingError, match="Can't parse"):
        SavedModelBundle(tmp_path)
    path = saved_models.half_plus_two(tmp_path / "m", 1)
    with pytest.raises(ServingError, match="supplied tags"):
        SavedModelBundle(path, tags=frozenset({"train"}))
    (path / "variables" / "variables.index").unlink()
    with pytest.raises(ServingError, match="not whole"):
        SavedModelBundle(path)
