"""Shared vocabularies, two hashes, and buckets that must be seen before they get a row."""

import json

import numpy as np
import pytest
import tensorflow as tf
from pydantic import TypeAdapter, ValidationError

from configs.features import Feature

TABLE = {
    "item": {"kind": "vocabulary", "of": "item", "min_count": 2, "oov": 2},
    "last": {"kind": "vocabulary", "of": "user", "share": "item"},
    "twice": {"kind": "hashed", "of": "user", "from": "user", "buckets": 50, "hashes": 2},
    "plain": {"kind": "numeric", "of": "item", "scale": "none"},
    "rare": {"kind": "hashed", "of": "user", "from": "user", "buckets": 1000, "min_count": 3},
}


def read(table):
    return TypeAdapter(dict[str, Feature]).validate_python(table)


@pytest.fixture(scope="module")
def transformed(tmp_path_factory):
    """Return a few rows transformed, and the features they became."""
    import apache_beam as beam
    import tensorflow_transform as tft
    import tensorflow_transform.beam as tft_beam
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    from configs.features import raw_columns
    from transforms.preprocessing import preprocessing_fn
    from transforms.raw import raw_feature_spec
    from transforms.transformed import transformed_features

    folder = str(tmp_path_factory.mktemp("shared"))
    table = read(TABLE)
    text = json.dumps({name: f.model_dump(mode="json", by_alias=True) for name, f in table.items()})
    items, users = ["a", "a", "a", "b", "b", "once", ""], ["u", "u", "u", "v", "v", "w", "w"]
    rows = [
        {"item": [i] if i else [], "last": [last], "user": [u], "plain": [float(ord(i[0]))] if i else []}
        for i, u, last in zip(items, users, ["b", "a", "zzz", "b", "a", "once", "b"], strict=True)
    ]
    spec = raw_feature_spec(raw_columns(table, "t").values())
    with beam.Pipeline(runner=FnApiRunner()) as pipeline, tft_beam.Context(f"{folder}/tmp"):
        metadata = tft.DatasetMetadata.from_feature_spec(spec)
        (data, _), graph = (pipeline | beam.Create(rows, reshuffle=False), metadata) | (
            tft_beam.AnalyzeAndTransformDataset(lambda x: preprocessing_fn(x, {"features": text, "time": "t"}))
        )
        _ = graph | tft_beam.WriteTransformFn(f"{folder}/graph")
        _ = (
            data
            | beam.Map(lambda row: repr({k: np.asarray(v).tolist() for k, v in row.items()}))
            | beam.io.WriteToText(f"{folder}/rows", shard_name_template="")
        )
    output = tft.TFTransformOutput(f"{folder}/graph")
    features = transformed_features(table, output.vocabulary_size_by_name, ("user", "item"))
    return [eval(line) for line in tf.io.gfile.GFile(f"{folder}/rows")], {f.name: f for f in features}


def test_a_feature_that_shares_a_table_has_its_ids(transformed):
    rows, features = transformed
    a, b = rows[0]["item"], rows[3]["item"]
    assert [row["last"] for row in rows[:2]] == [b, a]
    assert features["item"].size == features["last"].size == 1 + 2 + 2
    assert features["last"].table == "item"
    low, high = features["item"].oov
    assert low <= rows[2]["last"] < high  # never seen
    assert low <= rows[5]["item"] < high  # seen once: min_count is 2
    assert rows[6]["item"] == 0


def test_two_hashes_are_two_rows_of_one_table(transformed):
    rows, features = transformed
    assert features["twice"].multivalued
    assert features["twice"].size == 51
    by_user = {row["twice"].__repr__() for row in rows}
    assert len(by_user) == 3
    assert all(len(row["twice"]) == 2 and min(row["twice"]) > 0 and max(row["twice"]) <= 50 for row in rows)


def test_a_bucket_has_a_row_once_it_was_seen_often_enough(transformed):
    rows, features = transformed
    assert features["rare"].size == 1 + 1  # only u was seen three times
    assert [row["rare"] for row in rows] == [1, 1, 1, 0, 0, 0, 0]


@pytest.mark.parametrize(
    "feature",
    [
        {"kind": "hashed", "of": "user", "buckets": 5, "hashes": 2, "separator": "|"},
        {"kind": "hashed", "of": "user", "buckets": 5, "hashes": 2, "min_count": 2},
        {"kind": "vocabulary", "of": "user", "separator": "|", "quotient_remainder": 9},
        {"kind": "vocabulary", "of": "user", "quotient_remainder": 9, "cold": "mean"},
    ],
)
def test_options_that_exclude_one_another_are_refused(feature):
    with pytest.raises(ValidationError):
        read({"f": feature})


def test_a_missing_number_that_is_not_scaled_is_the_mean(transformed):
    rows, _ = transformed
    given = [row["plain"] for row in rows[:-1]]
    assert given[0] == ord("a")
    assert rows[-1]["plain"] == pytest.approx(np.mean(given))
