"""Our executor against TFT on Beam: the same rows, vocabularies, graph and examples."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_transform.tf_metadata import schema_utils
from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
from tfx.types import artifact_utils, standard_artifacts
from tfx.utils import io_utils

from components.transform.component import TransformExecutor
from configs.features import LABEL
from transforms.raw import raw_feature_spec


def write_examples(path: Path, rows: list[dict[str, list]], types: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
        for row in rows:
            example = tf.train.Example()
            for name, type_ in types.items():
                values = example.features.feature[name]
                if type_ == "string":
                    values.bytes_list.value.extend(v.encode() for v in row[name])
                elif type_ == "float":
                    values.float_list.value.extend(row[name])
                else:
                    values.int64_list.value.extend(row[name])
            writer.write(example.SerializeToString())


def run(folder: Path, splits: list[str], schema: schema_pb2.Schema, runner: str, **properties) -> tuple[str, str]:
    """Run the executor on `folder`/raw and return the folders of the graph and of the transformed examples."""
    io_utils.write_pbtxt_file(str(folder / "schema" / "schema.pbtxt"), schema)
    artifacts = {}
    for name, type_, place in (
        ("examples", standard_artifacts.Examples, "raw"),
        ("schema", standard_artifacts.Schema, "schema"),
        ("transform_graph", standard_artifacts.TransformGraph, f"{runner}/graph"),
        ("transformed_examples", standard_artifacts.Examples, f"{runner}/examples"),
    ):
        artifacts[name] = type_()
        artifacts[name].uri = str(folder / place)
    artifacts["examples"].split_names = artifact_utils.encode_split_names(splits)
    artifacts["examples"].set_string_custom_property("payload_format", "FORMAT_TF_EXAMPLE")
    context = BaseBeamExecutor.Context(
        beam_pipeline_args=[f"--runner={runner}", "--direct_num_workers=3"], tmp_dir=str(folder / "temporary")
    )
    TransformExecutor(context).Do(
        {n: [artifacts[n]] for n in ("examples", "schema")},
        {n: [artifacts[n]] for n in ("transform_graph", "transformed_examples")},
        {"disable_statistics": 1, **properties},
    )
    assert set(artifact_utils.decode_split_names(artifacts["transformed_examples"].split_names)) == set(splits)
    return artifacts["transform_graph"].uri, artifacts["transformed_examples"].uri


def read(pattern: str) -> list[dict[str, list]]:
    """Return transformed rows, values by feature."""
    rows = []
    for record in tf.data.TFRecordDataset(sorted(tf.io.gfile.glob(pattern)), "GZIP").as_numpy_iterator():
        features = tf.train.Example.FromString(record).features.feature
        rows.append({n: list((f.int64_list or f.float_list).value or f.float_list.value) for n, f in features.items()})
    return rows


def vocabularies(graph: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(graph, "transform_fn", "assets").iterdir()}


@pytest.fixture(scope="module")
def ours(sample, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ours")
    types = {c.name: c.type for c in sample.columns.values()} | {LABEL: "float"}
    rows = [{**row, LABEL: row["label"]} for row in sample.rows]
    write_examples(folder / "raw" / "Split-train" / "a.gz", rows[:150], types)
    write_examples(folder / "raw" / "Split-train" / "b.gz", rows[150:], types)
    write_examples(folder / "raw" / "Split-eval" / "a.gz", rows[:7], types)
    spec = {**raw_feature_spec(sample.columns.values()), LABEL: tf.io.VarLenFeature(tf.float32)}
    return run(
        folder,
        ["train", "eval"],
        schema_utils.schema_from_feature_spec(spec),
        "FnApiRunner",
        preprocessing_fn="transforms.preprocessing.preprocessing_fn",
        custom_config=json.dumps({"features": sample.table_json, "time": "t"}),
    )


def test_the_graph_is_the_one_tft_exports_on_beam(ours, sample):
    graph, _ = ours
    theirs = sample.transform_output
    assert vocabularies(graph) == vocabularies(str(Path(theirs.transform_savedmodel_dir).parent))
    found = tft.TFTransformOutput(graph)
    assert found.transformed_metadata.schema == theirs.transformed_metadata.schema
    assert found.raw_metadata.schema.feature
    for name in vocabularies(graph):
        assert found.vocabulary_size_by_name(name) == theirs.vocabulary_size_by_name(name)


def test_examples_are_those_of_tft_on_beam(ours, sample):
    _, examples = ours
    theirs = {row["row"][0]: row for row in read(sample.files)}
    mine = read(f"{examples}/Split-train/*.gz")
    assert len(mine) == len(theirs) == len(sample.rows)
    for row in mine:
        expected = theirs[row["row"][0]]
        assert row.keys() == expected.keys()
        for name, values in row.items():
            np.testing.assert_allclose(values, expected[name], rtol=1e-6, atol=1e-6, err_msg=name)
            if sample.table.get(name) is None or sample.table[name].kind != "numeric":
                assert values == expected[name], name
    assert [row["row"] for row in read(f"{examples}/Split-eval/*.gz")] == [row["row"] for row in sample.rows[:7]]
    assert len(tf.io.gfile.glob(f"{examples}/Split-*/transformed_examples-0000?-of-00003.gz")) == 6


def by_number(inputs):
    """Ids of numbers, which only Beam counts."""
    return {"id": tft.compute_and_apply_vocabulary(inputs["number"], num_oov_buckets=1)}


@pytest.mark.slow
def test_an_analyzer_that_is_only_known_on_beam_runs_there(tmp_path):
    write_examples(
        tmp_path / "raw" / "Split-train" / "a.gz", [{"number": [n]} for n in (7, 3, 7, 9, 3, 7)], {"number": "int64"}
    )
    schema = schema_utils.schema_from_feature_spec({"number": tf.io.FixedLenFeature([], tf.int64)})
    graph, examples = run(tmp_path, ["train"], schema, "FnApiRunner", preprocessing_fn=f"{__name__}.by_number")
    assert list(vocabularies(graph).values()) == [b"7\n3\n9\n"]
    assert sorted(row["id"] for row in read(f"{examples}/Split-train/*.gz")) == [[0], [0], [0], [1], [1], [2]]
