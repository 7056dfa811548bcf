"""The history of a training: its evaluations, what it came to, and what its tables cost."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from models.layers.embedding import table_layers
from models.training.examples import EVAL_BATCH, examples
from models.training.job import Job
from models.training.optimizers import rows_seen
from models.training.steps import Steps
from transforms.transformed import PADDING, TransformedFeature

HISTORY_FILE = "training.json"
_IF_KNOWN = ("eval_ndcg_at_10", "eval_one_label")


def history_of(job: Job, epochs: list[dict[str, Any]], best_at: int, seconds: float) -> dict[str, Any]:
    """Return the history of a training whose best evaluation is the one at that place."""
    best = epochs[best_at]
    return {
        "model": job.task.model.model_dump(mode="json"),
        "seed": job.task.training.seed,
        **({"weight": {"column": job.task.weight, "used": job.task.weighted}} if job.task.weight else {}),
        "epochs": epochs,
        "seconds": round(seconds, 3),
        "best_epoch": best["epoch"],
        **{key: best[key] for key in ("eval_auc", "eval_logloss", *_IF_KNOWN) if key in best},
    }


def eval_figures(history: Mapping[str, Any]) -> str:
    """Return in words what an evaluation, or a whole history, measured on the eval split; empty where nothing.

    Of examples with one label there are no AUC and LogLoss to speak of.
    """
    said = [f"NDCG@10 {history['eval_ndcg_at_10']:.4f}"] if "eval_ndcg_at_10" in history else []
    if not history.get("eval_one_label"):
        said += [f"AUC {history['eval_auc']:.4f}", f"LogLoss {history['eval_logloss']:.4f}"]
    return f"eval {', '.join(said)}" if said else ""


def table_costs(steps: Steps, features: list[TransformedFeature], job: Job) -> list[dict[str, Any]]:
    """Return what each embedding table costs, how full it is, and how often eval ids had no row of their own."""
    oov = _oov_rates(job, features)
    costs: dict[str, dict[str, Any]] = {}
    for layer in table_layers(steps.model):
        for f in features:
            table = layer.tables.get(f.name)
            if table is None or not f.size or f.table in layer.tables:
                continue
            dim = table.variable.shape[1]
            row = costs.setdefault(
                f.name,
                {"feature": f.name, "rows": table.rows, "dim": 0, "bytes": 0, "fill": 0.0, "oov_rate": oov[f.name]},
            )
            row["dim"] = max(row["dim"], dim)
            row["bytes"] += table.rows * dim * 4
            row["fill"] = max(
                row["fill"], rows_seen(steps.table_optimizer, table.variable, table.start, table.rows) / table.rows
            )
    return list(costs.values())


def _oov_rates(job: Job, features: list[TransformedFeature]) -> dict[str, float]:
    cold, looked_up = dict.fromkeys((f.name for f in features), 0), dict.fromkeys((f.name for f in features), 0)
    for inputs, _ in examples(job.eval_files, features, EVAL_BATCH):
        for f in features:
            ids = inputs[f.name].numpy()
            looked_up[f.name] += int((ids != PADDING).sum())
            if f.oov:
                cold[f.name] += int(((ids >= f.oov[0]) & (ids < f.oov[1])).sum())
    return {name: round(cold[name] / max(n, 1), 6) for name, n in looked_up.items()}


def write_history(job: Job, history: Mapping[str, Any]) -> None:
    """Write it beside the logs."""
    with tf.io.gfile.GFile(os.path.join(job.log_folder, HISTORY_FILE), "w") as stream:
        json.dump(history, stream, indent=1)
