import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import tensorflow as tf
import tensorflow_data_validation as tfdv
from tensorflow_data_validation.statistics import stats_impl
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.types import standard_artifacts

from components.artifacts import VERDICT, DataBlessing
from components.data_gate import distance_findings, label_findings, leak_findings, moved_values
from components.distances import distances
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
    measured = distances(before, now, {"gender": 0.1, "age": 0.3}, {})
    assert measured["gender"] == ("L-infinity", pytest.approx(0.4), pytest.approx(0.1 + 3 * (0.7 * 0.3 / 50) ** 0.5))
    assert measured["age"][0] == "Jensen-Shannon"
    assert measured["age"][1] > 0.9
    findings = distance_findings(measured, "drift", "train", before, now)
    assert [(f.feature, f.severity) for f in findings] == [("age", "error"), ("gender", "error")]
    assert moved_values("gender", before, now)[0] in ("'F': 50.0% -> 90.0%", "'M': 50.0% -> 10.0%")


def test_nothing_drifts_from_itself(before, schema):
    measured = distances(before, before, {"gender": 0.0, "age": 0.0}, {})
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


@pytest.fixture(scope="module")
def long_tail():
    def sampled(seed: int, rows: int, factor: float = 1.0):
        random = np.random.default_rng(seed)
        return statistics(["F"] * rows, np.round(random.lognormal(np.log(260 * factor), 2.0, rows)).tolist())

    return sampled


def test_a_long_tail_is_compared_where_its_values_are(long_tail):
    """Bins of equal width hold all but a few values of it in one, or fall apart with the largest value."""
    (_, near, limit) = distances(long_tail(1, 4000), long_tail(2, 900, 250 / 260), {"age": 0.0}, {})["age"]
    assert near < 0.02
    assert near <= limit, "no more than chance"
    (_, far, limit) = distances(long_tail(1, 4000), long_tail(2, 900, 20.0), {"age": 0.1}, {})["age"]
    assert far > limit


@pytest.mark.parametrize("rows", [30, 300, 3000])
def test_samples_of_one_distribution_are_not_told_apart_whatever_their_size(long_tail, rows):
    found = [distances(long_tail(0, 5000), long_tail(seed, rows), {"age": 0.0}, {})["age"] for seed in range(1, 21)]
    assert sum(value > limit for _, value, limit in found) <= 1


def test_the_values_of_few_users_are_few_values():
    """Thirty users of a hundred rows each are thirty ages, not three thousand."""
    random = np.random.default_rng(3)

    def of_users(count: int):
        ages = random.normal(40, 12, count).round()
        users = np.repeat(np.arange(count), 100)
        frame = pd.DataFrame({"user": [f"u{u}" for u in users], "age": ages[users]})
        return tfdv.generate_statistics_from_dataframe(frame)

    everybody, some = of_users(800), [of_users(30) for _ in range(10)]
    with_ids = [distances(everybody, few, {"age": 0.0}, {"age": "user"})["age"] for few in some]
    without = [distances(everybody, few, {"age": 0.0}, {})["age"] for few in some]
    assert sum(value > limit for _, value, limit in with_ids) <= 1
    assert sum(value > limit for _, value, limit in without) >= 8


def test_missing_values_are_no_distance():
    full = pd.DataFrame({"user": [f"u{i}" for i in range(4000)], "note": ["a", "b"] * 2000, "size": [1.0, 5.0] * 2000})
    sparse = full.assign(note=full["note"].where(full.index % 49 == 0), size=full["size"].where(full.index % 49 == 1))
    before, now = map(tfdv.generate_statistics_from_dataframe, (full, sparse))
    for _, value, limit in distances(before, now, {"note": 0.0, "size": 0.0}, {}).values():
        assert value <= limit


def test_empty_lists_are_missing_values():
    """As Examples have them; TFDV counts their rows as there."""

    def of_lists(values):
        return stats_impl.generate_statistics_in_memory(
            pa.record_batch({"note": pa.array(values, pa.list_(pa.binary()))}), tfdv.StatsOptions()
        )

    many = of_lists([[b"a"], [b"b"]] * 1000)
    few = of_lists([[b"a"]] * 5 + [[b"b"]] * 1 + [[]] * 2000)
    (_, value, limit) = distances(many, few, {"note": 0.0}, {})["note"]
    assert value > 0.3
    assert value <= limit, "six values"


def test_too_few_of_the_rarer_label_are_said_before_training():
    def split(positives: int, rows: int = 400):
        return tfdv.generate_statistics_from_dataframe(
            pd.DataFrame({"label": np.append(np.ones(positives), np.zeros(rows - positives)).astype(np.float32)})
        )

    found = label_findings({"train": split(5), "eval": split(200), "test": split(31)}, "label", 50)
    assert [(f.severity, f.split, f.value) for f in found] == [("warning", "test", 31)]
    assert "only 31 positives" in found[0].what


def test_a_column_that_gives_the_label_away_is_warned_of(tmp_path):
    random = np.random.default_rng(1)
    with tf.io.TFRecordWriter(str(tmp_path / "data.gz"), "GZIP") as writer:
        for row in range(1000):
            label, noise = float(random.random() < 0.4), float(random.random())
            values = {
                "user": f"u{row % 30}".encode(),
                "label": label,
                "bought": b"yes" if label else b"no",
                "noise": noise,
            }
            features = {
                name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[v]))
                if isinstance(v, bytes)
                else tf.train.Feature(float_list=tf.train.FloatList(value=[v]))
                for name, v in values.items()
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
    examples = standard_artifacts.Examples()
    examples.split_names, examples.uri = '["train"]', str(tmp_path)
    (tmp_path / "Split-train").mkdir()
    (tmp_path / "data.gz").rename(tmp_path / "Split-train" / "data.gz")
    (finding,) = leak_findings(examples, "user", ["bought", "noise", "gone"])
    assert (finding.severity, finding.feature) == ("warning", "bought")
    assert "gives the label away (AUC" in finding.what
