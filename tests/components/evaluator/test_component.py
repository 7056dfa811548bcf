"""The evaluator end to end: real SavedModels and Examples, TFMA's files, a blessing and a refusal."""

import json

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import tensorflow_model_analysis as tfma
from tfx.types import artifact_utils, standard_artifacts

from components.artifacts import VERDICT, IngestReport
from components.evaluator import component
from components.evaluator.metrics import binary_metrics
from components.verdict import VERDICT_FILE
from configs import canonical_json
from configs.gates import Evaluation

ROWS = 400
GATES = [
    {"metric": "auc", "at_least": 0.7},
    {"metric": "auc", "beats": "noise", "by": 0.05},
    {"metric": "logloss", "not_below": "blessed"},
    {"metric": "auc", "at_least": 0.5, "each": ["gender"], "min_examples": 50},
]


class Scorer(tf.Module):
    def __init__(self, column: str):
        super().__init__()
        self._column = column

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def serve(self, examples):
        parsed = tf.io.parse_example(examples, {self._column: tf.io.FixedLenFeature([], tf.float32)})
        return {"scores": parsed[self._column][:, None], "outputs": parsed[self._column]}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Examples with a good and a random score, models that answer with them, and the table of what was written."""
    folder = tmp_path_factory.mktemp("evaluator")
    random = np.random.default_rng(3)
    good = random.random(ROWS).astype(np.float32)
    table = {
        "user": [f"u{i}".encode() for i in random.integers(0, 30, ROWS)],
        "gender": [[b"F"], [b"M"], []],
        "genres": [[b"a", b"b"], [b"b"], [], ["ü".encode()]],
        "good": good,
        "random": random.random(ROWS).astype(np.float32),
        "label": (random.random(ROWS) < good).astype(np.float32),
    }
    for name in ("gender", "genres"):
        table[name] = [table[name][i % len(table[name])] for i in range(ROWS)]
    (folder / "examples" / "Split-test").mkdir(parents=True)
    for shard in range(3):
        path = folder / "examples" / "Split-test" / f"data_tfrecord-{shard:05d}-of-00003.gz"
        with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
            for row in range(shard, ROWS, 3):
                example = tf.train.Example()
                example.features.feature["user"].bytes_list.value.append(table["user"][row])
                for name in ("gender", "genres"):
                    if table[name][row]:
                        example.features.feature[name].bytes_list.value.extend(table[name][row])
                for name in ("good", "random", "label"):
                    example.features.feature[name].float_list.value.append(table[name][row])
                writer.write(example.SerializeToString())
    for column in ("good", "random"):
        scorer = Scorer(column)
        tf.saved_model.save(
            scorer, str(folder / column / "Format-Serving"), signatures={"serve_examples": scorer.serve}
        )
    return folder, table


def execute(made, output, candidate, baselines, blessed=None, gates=GATES, split="alike"):
    folder, _ = made

    def model(name):
        artifact = standard_artifacts.Model()
        artifact.uri = str(folder / name)
        return [artifact]

    examples = standard_artifacts.Examples()
    examples.uri, examples.split_names = str(folder / "examples"), artifact_utils.encode_split_names(["test"])
    counts, earlier = IngestReport(), standard_artifacts.ModelBlessing()
    counts.uri = str(output)
    earlier.set_string_custom_property("split", split)
    result, blessing = standard_artifacts.ModelEvaluation(), standard_artifacts.ModelBlessing()
    for name, artifact in (("result", result), ("blessing", blessing)):
        artifact.uri = str(output / name)
        (output / name).mkdir()
    executor = component.EvaluatorExecutor(
        component.EvaluatorExecutor.Context(beam_pipeline_args=["--runner=FnApiRunner"], tmp_dir=str(output / "tmp"))
    )
    executor.Do(
        {
            "examples": [examples],
            "model": model(candidate),
            "report": [counts],
            **({"blessed_model": model(blessed), "blessed": [earlier]} if blessed else {}),
            **{f"baseline_{i}": model(path) for i, path in enumerate(baselines.values())},
        },
        {"evaluation_result": [result], "blessing": [blessing]},
        {
            "evaluation": canonical_json(
                Evaluation.model_validate({"slices": [["gender"], ["genres", "gender"]], "gates": gates})
            ),
            "user": "user",
            "baselines": json.dumps({name: {"type": "fm", "l2": 0.01} for name in baselines}),
            "split": json.dumps({"digest": "alike", "by": "time"}),
        },
    )
    return result, blessing, json.loads((output / "blessing" / VERDICT_FILE).read_text())


@pytest.fixture(scope="module")
def good(made, tmp_path_factory):
    return execute(made, tmp_path_factory.mktemp("good"), "good", {"noise": "random"}, blessed="good")


def test_a_good_model_is_blessed_and_the_verdict_says_why(good):
    _, blessing, verdict = good
    assert verdict["blessed"]
    assert blessing.get_int_custom_property(VERDICT) == 1
    assert blessing.get_string_custom_property("summary").startswith("blessed: 5 conditions hold; AUC 0.")
    assert [(j["slice"], j["passed"]) for j in verdict["judgements"]] == [
        ("all", True),
        ("all", True),
        ("all", True),
        ("gender=F", True),
        ("gender=M", True),
    ]
    assert all(j["why"] for j in verdict["judgements"])


def test_a_poor_model_is_refused_and_the_verdict_says_why(made, tmp_path):
    _, blessing, verdict = execute(made, tmp_path, "random", {"noise": "random"}, gates=GATES[:3])
    assert not verdict["blessed"]
    assert blessing.get_int_custom_property(VERDICT) == 0
    assert blessing.get_string_custom_property("summary").startswith("refused: 2 of 2 conditions fail; AUC 0.")
    absolute, relative, last = verdict["judgements"]
    assert "misses 0.7" in absolute["why"]
    assert "0.0000 better than noise's" in relative["why"]
    assert last["why"] == "not judged: no blessed model yet"


def test_one_model_alone_can_be_judged(made, tmp_path):
    _, _, verdict = execute(made, tmp_path, "good", {}, gates=GATES[:1])
    assert verdict["blessed"]
    assert [j["slice"] for j in verdict["judgements"]] == ["all"]
    assert verdict["metrics"]["candidate"]["auc"] > 0.7


def test_every_slice_of_every_model_has_the_metrics_of_its_rows(made, good):
    _, table = made
    result, _, _ = good
    models, columns = component.read_metrics(result.uri, ["candidate", "noise"])
    genders, genres = np.array([g[0] if g else b"" for g in table["gender"]]), table["genres"]
    expected = {"all": np.ones(ROWS, bool)}
    for gender in (b"F", b"M"):
        expected[f"gender={gender.decode()}"] = genders == gender
        for genre in (b"a", b"b", "ü".encode()):
            rows = np.array([genre in g for g in genres]) & (genders == gender)
            expected[f"gender={gender.decode()}, genres={genre.decode()}"] = rows
    assert models["candidate"].keys() == models["noise"].keys() == columns.keys() == expected.keys()
    users = np.unique(table["user"], return_inverse=True)[1]
    for model, column in (("candidate", "good"), ("noise", "random")):
        for name, rows in expected.items():
            assert models[model][name] == pytest.approx(
                binary_metrics(users[rows], table["label"][rows], table[column][rows]), nan_ok=True
            ), (model, name)


def test_tfma_returns_intervals_differences_and_curves(made, good):
    _, table = made
    result, _, _ = good
    users = pd.util.hash_array(np.array(table["user"], object), categorize=False)
    ours, theirs = (binary_metrics(users, table["label"], table[column]) for column in ("good", "random"))
    metrics = tfma.load_eval_result(result.uri, model_name="candidate").get_metrics_for_slice(())
    interval = metrics["auc"]["boundedValue"]
    assert interval["value"] == pytest.approx(ours["auc"])
    assert interval["lowerBound"] < ours["auc"] < interval["upperBound"]
    assert interval["upperBound"] - interval["lowerBound"] < 0.3
    assert "boundedValue" not in metrics["example_count"]
    assert "auc_diff" not in metrics, "the candidate is not compared with itself"
    other = tfma.load_eval_result(result.uri, model_name="noise").get_metrics_for_slice(())
    assert other["auc_diff"]["boundedValue"]["value"] == pytest.approx(ours["auc"] - theirs["auc"])
    assert other["auc_diff"]["boundedValue"]["lowerBound"] > 0
    same = tfma.load_eval_result(result.uri, model_name="blessed").get_metrics_for_slice(())
    assert same["auc_diff"]["boundedValue"] == {"value": 0.0, "lowerBound": 0.0, "upperBound": 0.0}
    for _, outputs in tfma.load_eval_result(result.uri, model_name="noise").plots:
        plot = outputs[""][""]
        assert plot["calibrationHistogramBuckets"]["buckets"]
        assert plot["confusionMatrixAtThresholds"]["matrices"]


def test_a_baseline_that_wins_is_named_with_how_to_serve_it(made, tmp_path):
    gate = {"metric": "auc", "not_below": "baselines", "by": 0.01}
    _, _, verdict = execute(made, tmp_path, "random", {"better": "good"}, blessed="good", gates=[gate], split="another")
    assert not verdict["blessed"]
    assert verdict["judgements"][0]["margin_interval"][1] < 0
    (note,) = verdict["notes"]
    assert note.startswith("The baseline better is better on the test split: AUC 0.")
    assert "--set 'model={type: fm, l2: 0.01}'" in note
    assert "blessed" not in verdict["metrics"], "it may have learnt from these rows"
