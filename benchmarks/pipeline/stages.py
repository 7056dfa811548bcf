"""One stage of the data path in a process of its own, by a stock component or by ours: what it took."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import apache_beam as beam
import tensorflow_data_validation as tfdv
from apache_beam.options.pipeline_options import PipelineOptions
from tfx.components.statistics_gen import executor as stock_statistics
from tfx.components.transform import executor as stock_transform
from tfx.types import standard_artifacts

from benchmarks import evaluator, ingest
from components.beam import pipeline_arguments
from components.evaluator import component as our_evaluator
from components.ingest.splitting import SPLITS
from components.statistics import StatisticsExecutor
from components.transform.component import TransformExecutor

STAGES = ("ingest", "statistics", "transform", "evaluate")
WHO = ("ours", "stock")
SLICES = [["user_activity"], ["item_popularity"]]
FEATURES = {
    "user": {"kind": "vocabulary", "of": "user"},
    "item": {"kind": "vocabulary", "of": "item"},
    "price": {"kind": "numeric", "of": "item"},
    "hour": {"kind": "time", "part": "hour"},
}
FILES = ["--direct_num_workers=4", "--direct_running_mode=in_memory"]  # as the pipeline has it: at least four files
ARGUMENTS = {"ours": pipeline_arguments("FnApiRunner", []), "stock": [ingest.RUNNER]}


def examples_in(folder: Path) -> standard_artifacts.Examples:
    """Return what our ingest has written: both sides of the later stages read the same examples."""
    examples = standard_artifacts.Examples()
    examples.uri, examples.split_names = str(folder / "ingest" / "ours"), json.dumps(list(SPLITS))
    examples.set_string_custom_property("payload_format", "FORMAT_TF_EXAMPLE")
    return examples


def artifact(type_, path: Path):
    made = type_()
    made.uri = str(path)
    return made


def run_ingest(folder: Path, who: str) -> None:
    run = {"ours": ingest.run_ours, "stock": ingest.run_stock}[who]
    run(str(folder / "logs"), folder / "ingest" / who)


def run_statistics(folder: Path, who: str) -> None:
    cls = {"ours": StatisticsExecutor, "stock": stock_statistics.Executor}[who]
    statistics = artifact(standard_artifacts.ExampleStatistics, folder / "statistics" / who)
    context = cls.Context(beam_pipeline_args=ARGUMENTS[who], tmp_dir=str(folder / "temporary"))
    cls(context).Do({"examples": [examples_in(folder)]}, {"statistics": [statistics]}, {})


def run_transform(folder: Path, who: str) -> None:
    cls = {"ours": TransformExecutor, "stock": stock_transform.Executor}[who]
    output = folder / "transform" / who
    outputs = {
        "transform_graph": [artifact(standard_artifacts.TransformGraph, output / "graph")],
        "transformed_examples": [artifact(standard_artifacts.Examples, output / "examples")],
    }
    if who == "stock":  # as TFX has it where nothing is said
        outputs["updated_analyzer_cache"] = [artifact(standard_artifacts.TransformCache, output / "cache")]
    schema = artifact(standard_artifacts.Schema, folder / "schema")
    context = cls.Context(beam_pipeline_args=[*ARGUMENTS[who], *FILES], tmp_dir=str(folder / "temporary"))
    cls(context).Do(
        {"examples": [examples_in(folder)], "schema": [schema]},
        outputs,
        {
            "preprocessing_fn": "transforms.preprocessing.preprocessing_fn",
            "custom_config": json.dumps({"features": json.dumps(FEATURES), "time": "time"}),
            "disable_statistics": 1,
        },
    )


def run_evaluate(folder: Path, who: str) -> None:
    evaluate = {"ours": our_evaluator.evaluate, "stock": evaluator.evaluate_stock}[who]
    models = {name: str(folder / "models" / name) for name in evaluator.MODELS}
    files = [str(path) for path in sorted((folder / "ingest" / "ours" / "Split-test").glob("*.gz"))]
    with beam.Pipeline(options=PipelineOptions([ingest.RUNNER])) as root:
        evaluate(root, files, models, "user", SLICES, str(folder / "evaluate" / who))


RUN: dict[str, Callable[[Path, str], None]] = {
    "ingest": run_ingest,
    "statistics": run_statistics,
    "transform": run_transform,
    "evaluate": run_evaluate,
}


def main(stage: str, folder: Path, who: str) -> None:
    """Run one stage and print seconds, seconds of CPU and the process's peak memory in bytes as JSON."""
    (folder / stage).mkdir(exist_ok=True)
    tfdv.StatsOptions()  # what is imported late is not part of the stage
    wall, cpu = time.perf_counter(), time.process_time()
    RUN[stage](folder, who)
    took = {"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    print(json.dumps({**took, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10}), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
