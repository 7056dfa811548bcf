"""DeepFM and the baselines on MovieLens-100K, three seeds, split by each user's own time and by time.

Runs the pipeline of `configs/movielens.yaml` up to Transform for each split (nothing again where that is cached),
trains each model on the transformed examples with the config's values, and scores the raw test split with the exported
model. Prints a table, and as its last line one JSON object.
"""

import json
import logging
import statistics
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import tensorflow as tf
import tensorflow_transform as tft
from tfx.orchestration.local.local_dag_runner import LocalDagRunner
from tfx.orchestration.pipeline import RunOptions

from components.trainer import feature_table
from configs import Config, load_config
from configs.features import LABEL
from models.training import Task, train
from pipeline.graph import create_pipeline

CONFIG = Path(__file__).parents[1] / "configs/movielens.yaml"
SEEDS = (1, 2, 3)
SPLITS = ("user_time", "time")


def transform(split: str) -> tuple[Config, Path]:
    """Return the config of a split and the folder of the artifacts up to Transform."""
    config = load_config(CONFIG, [f"data.split.by={split}", f"runs.folder=../runs/bench-movielens/{split}"])
    LocalDagRunner().run(create_pipeline(config), run_options=RunOptions(to_nodes=["Transform"]))
    return config, Path(config.runs_folder) / "artifacts"


def newest(output: Path) -> Path:
    """Return the latest execution's artifact."""
    return max((path for path in output.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))


def test_figures(config: Config, name: str, seed: int, artifacts: Path) -> dict[str, float]:
    """Train one model and return its eval AUC, test AUC, test LogLoss and seconds."""
    task = Task(
        model=config.model if name == "deepfm" else config.baselines[name],
        training=config.training.model_copy(update={"seed": seed}),
        features=feature_table(config),
        columns=config.raw_columns,
        id_columns=(config.data.user, config.data.item),
    )
    graph = tft.TFTransformOutput(str(newest(artifacts / "Transform/transform_graph")))
    transformed = newest(artifacts / "Transform/transformed_examples")
    with tempfile.TemporaryDirectory() as folder:
        history = train(
            task,
            graph,
            [f"{transformed}/Split-train/*.gz"],
            [f"{transformed}/Split-eval/*.gz"],
            f"{folder}/model",
            f"{folder}/logs",
        )
        serve = tf.saved_model.load(f"{folder}/model").signatures["serve_examples"]
        labels, scores = [], []
        raw = newest(artifacts / "Ingest/examples") / "Split-test"
        files = sorted(str(path) for path in raw.glob("*.gz"))
        for batch in tf.data.TFRecordDataset(files, "GZIP").batch(8192):
            labels.append(tf.io.parse_example(batch, {LABEL: tf.io.FixedLenFeature([], tf.float32)})[LABEL].numpy())
            scores.append(serve(inputs=batch)["outputs"].numpy().astype(np.float64))
    label, score = np.concatenate(labels), np.concatenate(scores)
    return {
        "eval_auc": history["eval_auc"],
        "auc": auc(label, score),
        "logloss": float(-np.mean(np.where(label > 0, np.log(score), np.log1p(-score)))),
        "seconds": history["seconds"],
    }


def auc(label: np.ndarray, score: np.ndarray) -> float:
    """Return the exact area under the ROC curve, from ranks (Mann and Whitney 1947); ties count half."""
    positives = label > 0
    n, ranks = positives.sum(), pd.Series(score).rank().to_numpy()
    return float((ranks[positives].sum() - n * (n + 1) / 2) / (n * (len(label) - n)))


def main() -> None:
    """Print the table and the JSON line."""
    logging.disable(logging.WARNING)
    result: dict[str, float] = {}
    columns = ("eval AUC", "test AUC", "lowest", "highest", "LogLoss", "seconds")
    print(f"{'split':10} {'model':10}" + "".join(f"{column:>9}" for column in columns))
    for split in SPLITS:
        config, artifacts = transform(split)
        for name in ("item_mean", "lr", "fm", "deepfm"):
            seeds = SEEDS if name != "item_mean" else SEEDS[:1]  # counted, not drawn
            runs = [test_figures(config, name, seed, artifacts) for seed in seeds]
            mean = {figure: statistics.mean(run[figure] for run in runs) for figure in runs[0]}
            aucs = [run["auc"] for run in runs]
            figures = [mean["eval_auc"], mean["auc"], min(aucs), max(aucs), mean["logloss"]]
            print(
                f"{split:10} {name:10}" + "".join(f"{x:9.4f}" for x in figures) + f"{mean['seconds']:9.1f}", flush=True
            )
            result[f"{name}_{split}_auc"] = round(mean["auc"], 4)
            result[f"{name}_{split}_logloss"] = round(mean["logloss"], 4)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
