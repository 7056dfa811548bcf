import pandas as pd
import pytest
import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import schema_pb2

from components.artifacts import VERDICT, DataBlessing
from components.data_gate import distance_findings, distances, moved_values
from components.refusal import RefusedError
from components.resolvers import LatestAcceptedData
from components.schema import check_against_config, infer_schema, read_schema

COLUMNS = {"user": "string", "gender": "string", "age": "float", "absent": "string"}


def statistics(gender: list[str], age: list[float]):
    frame = pd.DataFrame({"user": [f"u{i}" for i in range(len(age))], "gender": gender, "age": age})
    return tfdv.generate_statistics_from_dataframe(frame)


@pytest.fixture(scope="module")
def before():
    return statistics(["F", "M"] * 50, [float(20 + i % 10) for i in range(100)])


@pytest.fixture(scope="module")
def schema(before):
    return infer_schema(before, COLUMNS, ["user"])


def test_an_inferred_schema_knows_every_column_of_the_config(schema):
    features = {f.name: f for f in schema.feature}
    assert features.keys() == COLUMNS.keys()
    assert features["user"].presence.min_fraction == 1.0
    assert features["age"].type == schema_pb2.FLOAT
    check_against_config(schema, COLUMNS, "s.pbtxt")
    with pytest.raises(RefusedError, match=r"s\.pbtxt: column 'age' is FLOAT in the schema and string in the config"):
        check_against_config(schema, COLUMNS | {"age": "string"}, "s.pbtxt")


def test_what_is_no_schema_is_refused_by_name(tmp_path):
    (tmp_path / "s.pbtxt").write_text("feature { nonsense: 1 }")
    with pytest.raises(RefusedError, match=r"s\.pbtxt: not a TensorFlow Metadata schema"):
        read_schema(str(tmp_path / "s.pbtxt"))


def test_text_drifts_by_l_infinity_and_numbers_by_jensen_shannon(before, schema):
    now = statistics(["F"] * 90 + ["M"] * 10, [float(60 + i % 10) for i in range(100)])
    measured = distances(before, now, schema, {"gender": 0.3, "age": 0.3})
    assert measured["gender"] == ("L-infinity", pytest.approx(0.4), 0.3)
    assert measured["age"][0] == "Jensen-Shannon"
    assert measured["age"][1] > 0.9
    findings = distance_findings(measured, "drift", "train", before, now)
    assert [(f.feature, f.severity) for f in findings] == [("age", "error"), ("gender", "error")]
    assert moved_values("gender", before, now)[0] in ("'F': 50.0% -> 90.0%", "'M': 50.0% -> 10.0%")


def test_nothing_drifts_from_itself(before, schema):
    measured = distances(before, before, schema, {"gender": 0.0, "age": 0.0})
    assert [value for _, value, _ in measured.values()] == [0.0, 0.0]
    assert distance_findings(measured, "drift", "train", before, before) == []


def test_refused_data_is_no_baseline(tmp_path):
    blessings = []
    for number, verdict in enumerate((1, 1, 0), 1):
        blessing = DataBlessing()
        blessing.id, blessing.uri = number, str(tmp_path / str(number))
        blessing.set_int_custom_property(VERDICT, verdict)
        (tmp_path / str(number)).mkdir()
        blessings.append(blessing)
    newest = LatestAcceptedData().resolve_artifacts(None, {"blessing": blessings})
    assert [b.id for b in newest["blessing"]] == [2]
