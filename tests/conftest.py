"""One small data set that went through the whole of TFT once, for every test of transforms and models."""

import atexit
import json
import math
import os
import random
import sys
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import settings

from configs.features import MISSING_TIME, Feature, RawColumn, raw_columns

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

DAY = 86400
TABLE: dict[str, dict[str, Any]] = {
    "user": {"kind": "vocabulary", "of": "user", "min_count": 2, "oov": 3},
    "item": {"kind": "vocabulary", "of": "item", "top": 12, "oov": 2, "dim": 3},
    "city": {"kind": "vocabulary", "of": "user", "default": "Zürich"},
    "never": {"kind": "vocabulary", "of": "item", "oov": 2},
    "tags": {"kind": "vocabulary", "of": "item", "separator": "|", "min_count": 2},
    "words": {"kind": "hashed", "of": "item", "separator": ", ", "buckets": 11, "pool": "sum", "default": "none"},
    "zip": {"kind": "hashed", "of": "user", "buckets": 7},
    "row": {"kind": "numeric", "of": "context", "scale": "none"},
    "price": {"kind": "numeric", "of": "item"},
    "income": {"kind": "numeric", "of": "user", "scale": "log", "default": 0.0, "dim": 2},
    "constant": {"kind": "numeric", "of": "item"},
    "nothing": {"kind": "numeric", "of": "item"},
    "age": {"kind": "bucketized", "of": "user", "buckets": 4},
    "score": {"kind": "bucketized", "of": "item", "buckets": 5, "default": 0.5},
    "void": {"kind": "bucketized", "of": "item", "buckets": 3},
    "hour": {"kind": "time", "part": "hour"},
    "weekday": {"kind": "time", "part": "weekday"},
    "tenure": {"kind": "time", "part": "age", "of": "user", "since": "joined"},
    "city_age": {"kind": "crossed", "cross": ["city", "age"], "buckets": 13},
    "recent": {"kind": "sequence", "feature": "item", "length": 4, "dim": 3},
    "zips": {"kind": "sequence", "feature": "zip", "length": 2, "events": "positive", "pool": "sum"},
    "zip_hour": {"kind": "crossed", "cross": ["zip", "hour"], "buckets": 5},
}


@dataclass(frozen=True)
class Sample:
    """Raw rows, and what the training path made of them."""

    table: dict[str, Feature]
    columns: dict[str, RawColumn]
    rows: list[dict[str, list]]  # a row is column -> values, [] where missing; the column `row` is its index
    transform_output: Any
    files: str

    @property
    def features(self):
        from transforms.transformed import transformed_features

        return transformed_features(self.table, self.transform_output.vocabulary_size_by_name, ("user", "item"))

    @property
    def table_json(self) -> str:
        return json.dumps({name: f.model_dump(mode="json", by_alias=True) for name, f in self.table.items()})


def make_rows(count: int, seed: int) -> list[dict[str, list]]:
    """Return rows with missing, non-ASCII, negative, huge and odd values, and a label the item explains."""
    rng = random.Random(seed)

    def maybe(value, share=0.8):
        return [value] if rng.random() < share else []

    rows = []
    for index in range(count):
        item = min(int(rng.expovariate(0.2)), 25)
        tags = rng.sample(["café", "日本", "007", "a b", "x", f"rare{index}"], rng.randrange(4))
        presplit = rng.random() < 0.3
        rows.append(
            {
                "user": [rng.choice(["007", "7", "Ünal", "👤", "u-1", "u-2", f"once{index}"])],
                "item": [f"{item:04d}"],
                "city": maybe(rng.choice(["Bern", "Zürich", "São Paulo", "東京", " "])),
                "never": [],
                "tags": tags if presplit else maybe("|".join(tags) or "|"),
                "words": maybe(rng.choice(["one", "one, two", ", , three", "four,five, ", "ß"])),
                "zip": maybe(rng.choice(["00501", "501", "8001"])),
                "recent": [f"{min(int(rng.expovariate(0.2)), 30):04d}" for _ in range(rng.choice([0, 0, 1, 3, 6]))],
                "zips": [rng.choice(["00501", "501", "é"]) for _ in range(rng.choice([0, 2]))],
                "row": [float(index)],
                "price": maybe(rng.choice([-5.0, 0.0, 1.5, 99.0, 3e5, float("nan")])),
                "income": maybe(rng.choice([-3e38, -10.0, 0.0, 5e4, 3e38, 12.0])),
                "constant": maybe(4.25),
                "nothing": [],
                "age": maybe(float(rng.choice([1, 18, 25, 33, 33, 33, 60, 99]))),
                "score": maybe(rng.choice([-1e30, -2.0, 0.25, 0.5, 0.75, 1e30, float("nan")])),
                "void": [],
                "t": [rng.choice([-1, 0, 3600 * 23, 10**9, 4 * 10**9]) + rng.randrange(10 * DAY)],
                "joined": maybe(rng.choice([-(2**62), 0, 10**9 - DAY, 9 * 10**9])),
                "label": [float(rng.random() < (0.9 if item % 2 else 0.1))],
            }
        )
    return rows


@pytest.fixture(scope="session")
def sample(tmp_path_factory) -> Sample:
    """400 rows through Beam's in-memory runner and TFT, as the pipeline does it."""
    import apache_beam as beam
    import tensorflow as tf
    import tensorflow_transform as tft
    import tensorflow_transform.beam as tft_beam
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner
    from pydantic import TypeAdapter

    from configs.features import LABEL
    from transforms.preprocessing import preprocessing_fn
    from transforms.raw import raw_feature_spec

    folder = tmp_path_factory.mktemp("sample")
    table = TypeAdapter(dict[str, Feature]).validate_python(TABLE)
    columns = raw_columns(table, "t")
    rows = make_rows(400, seed=1)
    unsaved = Sample(table, columns, rows, None, "")
    spec = {**raw_feature_spec(columns.values()), LABEL: tf.io.VarLenFeature(tf.float32)}
    metadata = tft.DatasetMetadata.from_feature_spec(spec)
    config = {"features": unsaved.table_json, "time": "t"}
    with beam.Pipeline(runner=FnApiRunner()) as pipeline, tft_beam.Context(str(folder / "tmp")):
        raw = pipeline | beam.Create(rows, reshuffle=False)
        (transformed, transformed_metadata), graph = (raw, metadata) | tft_beam.AnalyzeAndTransformDataset(
            lambda inputs: preprocessing_fn(inputs, config), output_record_batches=True
        )
        _ = graph | tft_beam.WriteTransformFn(str(folder / "graph"))
        _ = (
            transformed
            | beam.FlatMap(_encode, beam.pvalue.AsSingleton(transformed_metadata.deferred_metadata))
            | beam.io.WriteToTFRecord(str(folder / "examples"), file_name_suffix=".gz")
        )
    return Sample(table, columns, rows, tft.TFTransformOutput(str(folder / "graph")), str(folder / "examples*.gz"))


def _encode(batch, metadata):
    from tfx_bsl.coders.example_coder import RecordBatchToExamplesEncoder

    return RecordBatchToExamplesEncoder(metadata.schema).encode(batch[0])


def named(sample: Sample, rows: list[dict[str, list]]) -> dict[str, Any]:
    """Return rows as the named columns of a request; several values are joined by their separator."""
    import tensorflow as tf

    dtypes = {"string": tf.string, "float": tf.float32, "int64": tf.int64}
    columns = {}
    for c in sample.columns.values():
        if c.length is not None:
            width = max(1, *(len(row[c.name]) for row in rows))
            columns[c.name] = tf.constant([row[c.name] + [""] * (width - len(row[c.name])) for row in rows])
            continue
        values = [c.separator.join(row[c.name]) if c.separator else next(iter(row[c.name]), c.default) for row in rows]
        columns[c.name] = tf.constant(values, dtypes[c.type])
    return columns


def serialized(sample: Sample, rows: list[dict[str, list]]) -> list[bytes]:
    """Return rows as serialized Examples."""
    import tensorflow as tf

    encoded = []
    for row in rows:
        example = tf.train.Example()
        for c in sample.columns.values():
            feature = example.features.feature[c.name]
            if c.type == "string":
                feature.bytes_list.value.extend(value.encode() for value in row[c.name])
            elif c.type == "float":
                feature.float_list.value.extend(row[c.name])
            else:
                feature.int64_list.value.extend(row[c.name])
        encoded.append(example.SerializeToString())
    return encoded


def missing(value) -> bool:
    """Tell the marks of missing values."""
    return value in ("", MISSING_TIME) or (isinstance(value, float) and math.isnan(value))


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config):
    """End as `recsys` ends: protobuf's messages that outlive their module crash the interpreter at its own end."""
    status = getattr(config, "ended", None)
    if status is not None:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def pytest_sessionfinish(session, exitstatus):
    session.config.ended = int(exitstatus)
