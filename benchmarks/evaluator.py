"""Our metrics and slicing in TFMA against TFMA's own, on the same model, examples and slices, in one run.

make bench-evaluator
"""

from __future__ import annotations

import json
import math
import tempfile
import time

import apache_beam as beam
import numpy as np
import tensorflow as tf
import tensorflow_model_analysis as tfma
from apache_beam.options.pipeline_options import PipelineOptions
from tfx_bsl.public import tfxio

from components.evaluator import component
from configs.features import LABEL

ROWS = 10_000
MODELS = ("candidate", "baseline")
SLICES = [["gender"], ["genres"]]
RUNNER = "--runner=FnApiRunner"


class Scorer(tf.Module):
    """Answers with the score that each example carries: what is timed is the evaluation, not a model."""

    def __init__(self, shift: float, column: str):
        super().__init__()
        self._shift, self._column = shift, column

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def serve(self, examples):
        parsed = tf.io.parse_example(examples, {self._column: tf.io.FixedLenFeature([], tf.float32)})
        return {component.PREDICTION: tf.clip_by_value(parsed[self._column] + self._shift, 0.001, 0.999)}


def write_models(folder: str, column: str = "score") -> dict[str, str]:
    paths = {name: f"{folder}/{name}" for name in MODELS}
    for shift, path in enumerate(paths.values()):
        scorer = Scorer(0.05 * shift, column)
        tf.saved_model.save(scorer, path, signatures={"serve_examples": scorer.serve})
    return paths


def write_examples(path: str, rows: int) -> None:
    random = np.random.default_rng(1)
    genres = [f"genre {i}".encode() for i in range(18)]
    with tf.io.TFRecordWriter(path, "GZIP") as writer:
        for score in random.random(rows):
            text = {
                "user_id": [str(random.integers(900)).encode()],
                "gender": [random.choice([b"F", b"M"])],
                "genres": list(random.choice(genres, 2, replace=False)),
            }
            numbers = {"score": score, LABEL: float(random.random() < score)}
            features = {n: tf.train.Feature(bytes_list=tf.train.BytesList(value=v)) for n, v in text.items()} | {
                n: tf.train.Feature(float_list=tf.train.FloatList(value=[v])) for n, v in numbers.items()
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())


def evaluate_stock(
    root: beam.Pipeline, files: list[str], models: dict[str, str], user: str, slices: list[list[str]], output: str
) -> None:
    """Add TFMA with its default extractors and its own metrics; it has no GAUC, so it computes one metric less."""
    config = component.eval_config(list(models), user, slices)
    del config.metrics_specs[:]
    config.metrics_specs.extend(
        tfma.metrics.specs_from_metrics(
            [
                tfma.metrics.AUC(name="auc"),
                tfma.metrics.AUCPrecisionRecall(name="prauc"),
                tfma.metrics.BinaryCrossEntropy(name="logloss"),
                tfma.metrics.Calibration(name="calibration"),
                tfma.metrics.MeanLabel(name="mean_label"),
                tfma.metrics.MeanPrediction(name="mean_prediction"),
                tfma.metrics.ExampleCount(name="example_count"),
            ],
            model_names=list(models),
        )
    )
    shared = [tfma.default_eval_shared_model(p, model_name=n, eval_config=config) for n, p in models.items()]
    source = tfxio.TFExampleRecord(files, raw_record_column_name=tfma.ARROW_INPUT_COLUMN)
    _ = (
        root
        | source.BeamSource(batch_size=2048)
        | tfma.ExtractEvaluateAndWriteResults(eval_shared_model=shared, eval_config=config, output_path=output)
    )


def largest_differences(ours: str, stock: str, models: list[str]) -> tuple[dict[str, float], int]:
    """Return how far each metric is apart, at most, and over how many slices."""
    mine, _ = component.read_metrics(ours, models)
    theirs, _ = component.read_metrics(stock, models)
    differences: dict[str, float] = {}
    for model, slices in theirs.items():
        assert slices.keys() == mine[model].keys()
        for slice_, metrics in slices.items():
            for metric, value in metrics.items():
                own = mine[model][slice_].get(metric)
                if own is not None and not (math.isnan(value) and math.isnan(own)):
                    differences[metric] = max(differences.get(metric, 0.0), abs(value - own))
    return {metric: float(f"{d:.2g}") for metric, d in sorted(differences.items())}, len(theirs[models[0]])


def compare(folder: str, rows: int) -> dict[str, object]:
    """Run both over `rows` examples and return seconds, ratio and the largest difference of each metric."""
    models, examples = write_models(folder), f"{folder}/examples.gz"
    write_examples(examples, rows)
    seconds = {}
    for name in ("stock", "ours"):
        began = time.perf_counter()
        with beam.Pipeline(options=PipelineOptions([RUNNER])) as root:
            if name == "stock":
                evaluate_stock(root, [examples], models, "user_id", SLICES, f"{folder}/{name}")
            else:
                component.evaluate(root, [examples], models, "user_id", SLICES, f"{folder}/{name}")
        seconds[name] = round(time.perf_counter() - began, 1)
    differences, slices = largest_differences(f"{folder}/ours", f"{folder}/stock", list(models))
    return {
        "rows": rows,
        "models": len(models),
        "slices": slices,
        "stock_seconds": seconds["stock"],
        "our_seconds": seconds["ours"],
        "ratio": round(seconds["stock"] / seconds["ours"], 1),
        "largest_difference": differences,
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        print(json.dumps(compare(temporary, ROWS)))
