"""Our executor against TFDV on Beam, on rows with gaps, several values, lists and bytes that are no text."""

import json
import math
import random

import pytest
import tensorflow as tf
import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import statistics_pb2
from tfx.components.statistics_gen import executor as tfx_executor
from tfx.types import standard_artifacts

from components.statistics import StatisticsExecutor

SPLITS = ["eval", "train"]
TEXT = statistics_pb2.FeatureNameStatistics.STRING


def write_rows(path, count: int) -> None:
    rng = random.Random(count)
    path.parent.mkdir(parents=True)
    with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
        for index in range(count):
            example = tf.train.Example()
            feature = example.features.feature
            feature["user"].bytes_list.value.append(b"u%d" % min(int(rng.expovariate(0.02)), 1500))
            feature["tags"].bytes_list.value.extend(rng.sample([b"a", b"b", b"\xff\xfe", b""], rng.randrange(3)))
            feature["time"].int64_list.value.append(rng.randrange(10**9))
            if rng.random() < 0.9:
                feature["price"].float_list.value.append(rng.choice([0.0, -1.5, float("nan"), rng.random()]))
            if index == 0:
                feature["rare"].bytes_list.value.append(b"once")
            writer.write(example.SerializeToString())


def run(cls, folder, runner: str = "FnApiRunner", **properties) -> dict[str, statistics_pb2.DatasetFeatureStatistics]:
    examples, statistics = standard_artifacts.Examples(), standard_artifacts.ExampleStatistics()
    examples.uri, statistics.uri = str(folder / "examples"), str(folder / cls.__name__)
    examples.split_names, examples.span = json.dumps(SPLITS), 20260131
    examples.set_string_custom_property("payload_format", "FORMAT_TF_EXAMPLE")
    context = cls.Context(beam_pipeline_args=[f"--runner={runner}"], tmp_dir=str(folder / "temporary"))
    cls(context).Do({"examples": [examples]}, {"statistics": [statistics]}, properties)
    assert (json.loads(statistics.split_names), statistics.span) == (SPLITS, 20260131)
    read = {s: tfdv.load_stats_binary(f"{statistics.uri}/Split-{s}/FeatureStats.pb") for s in SPLITS}
    return {split: found.datasets[0] for split, found in read.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("statistics")
    for split, count in (("train", 3000), ("eval", 40)):
        write_rows(folder / "examples" / f"Split-{split}" / "a.gz", count)
    return folder


def test_statistics_are_those_of_tfdv_on_beam(folder):
    ours, theirs = run(StatisticsExecutor, folder), run(tfx_executor.Executor, folder)
    for split in SPLITS:
        assert ours[split].num_examples == theirs[split].num_examples
        expected = {f.path.step[0]: f for f in theirs[split].features}
        found = {f.path.step[0]: f for f in ours[split].features}
        assert found.keys() == expected.keys()
        for name, feature in expected.items():
            same(found[name], feature)


def same(found: statistics_pb2.FeatureNameStatistics, expected: statistics_pb2.FeatureNameStatistics) -> None:
    if expected.type == TEXT:
        assert found == expected
        return
    mine, theirs = found.num_stats, expected.num_stats
    assert mine.common_stats == theirs.common_stats
    for figure in ("min", "max", "num_zeros"):
        assert getattr(mine, figure) == getattr(theirs, figure)
    for figure in ("mean", "std_dev"):
        assert math.isclose(getattr(mine, figure), getattr(theirs, figure), rel_tol=1e-9)
    # Quantiles are sketches on both sides: a hundredth of the rows lies between them at most.
    assert len(mine.histograms) == len(theirs.histograms) == 2
    for one, other in zip(mine.histograms[0].buckets, theirs.histograms[0].buckets, strict=True):
        assert abs(one.sample_count - other.sample_count) <= 0.02 * mine.common_stats.num_non_missing + 1


def test_only_the_columns_that_are_asked_for_are_looked_at(folder):
    options = tfdv.StatsOptions(feature_allowlist=["price", "absent"]).to_json()
    found = run(StatisticsExecutor, folder, stats_options_json=options)
    assert [f.path.step[0] for f in found["train"].features] == ["price"]


@pytest.mark.parametrize(
    ("runner", "options"),
    [("BundleBasedDirectRunner", tfdv.StatsOptions()), ("FnApiRunner", tfdv.StatsOptions(num_top_values=1))],
)
def test_what_is_asked_for_beyond_that_is_done_by_tfdv_on_beam(folder, runner, options, monkeypatch):
    class OnBeamError(Exception):
        pass

    def on_beam(self, *args):
        raise OnBeamError

    monkeypatch.setattr(tfx_executor.Executor, "Do", on_beam)
    with pytest.raises(OnBeamError):
        run(StatisticsExecutor, folder, runner, stats_options_json=options.to_json())
