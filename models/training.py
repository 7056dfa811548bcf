"""Training: transformed examples in, an exported model and its curves out."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
import tf_keras as keras
from pydantic import TypeAdapter

from configs.features import RawColumn
from configs.model import Model, Training
from models.curves import Curves
from models.examples import Batch, Examples, Share, dealt_by_file, examples, files_of
from models.export import export
from models.layers import table_layers
from models.loop import EVAL_BATCH, Keeper, Place, Record, Report, Steps, fit, workers_said
from models.optimizers import rows_seen
from models.projection import write_projection
from models.registry import build_model
from models.tally import Tally, figures
from models.workers import Role, roles, run_workers
from transforms.preprocessing import read_features
from transforms.transformed import PADDING, TransformedFeature, transformed_features

__all__ = ["HISTORY_FILE", "Job", "Task", "examples", "train"]

HISTORY_FILE = "training.json"
JOB_FILE = "job.json"
_MODEL: TypeAdapter[Model] = TypeAdapter(Model)


@dataclass(frozen=True)
class Task:
    """All that training one model needs to know, from the config."""

    model: Model
    training: Training
    features: str  # the feature table as JSON
    columns: dict[str, RawColumn]
    id_columns: tuple[str, str]


@dataclass(frozen=True)
class Job:
    """A task with its inputs and outputs: what a worker process is told."""

    task: Task
    transform_graph: str
    train_files: list[str]
    eval_files: list[str]
    model_folder: str
    log_folder: str

    def to_json(self) -> str:
        """Return it as JSON."""
        task = asdict(self.task) | {
            "model": self.task.model.model_dump(mode="json"),
            "training": self.task.training.model_dump(mode="json", exclude_unset=True),
        }
        return json.dumps({**self.__dict__, "task": task}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Read it again."""
        told = json.loads(text)
        task = told.pop("task")
        return cls(
            Task(
                _MODEL.validate_python(task["model"]),
                Training.model_validate(task["training"]),
                task["features"],
                {name: RawColumn(**column) for name, column in task["columns"].items()},
                tuple(task["id_columns"]),
            ),
            **told,
        )

    @property
    def transform_output(self) -> tft.TFTransformOutput:
        """The transform graph."""
        return tft.TFTransformOutput(self.transform_graph)

    @property
    def features(self) -> list[TransformedFeature]:
        """What the model receives."""
        sizes = self.transform_output.vocabulary_size_by_name
        return transformed_features(read_features(self.task.features), sizes, self.task.id_columns)


def train(
    task: Task,
    transform_output: tft.TFTransformOutput,
    train_files: list[str],
    eval_files: list[str],
    model_folder: str,
    log_folder: str,
    report: Callable[[str], None] = lambda line: None,
    log: Callable[[str, str], None] = lambda worker, line: None,
) -> dict[str, Any]:
    """Train `task.model`, keep the epoch with the best eval AUC, export it, and return the history.

    `train_files` and `eval_files` are globs of gzipped TFRecords of transformed Examples. TensorBoard logs and the
    history as JSON go to `log_folder`. `report` receives what to say while it goes on, `log` what worker processes
    print. The model appears in `model_folder` by one rename, when it is whole.
    """
    graph = os.path.dirname(os.path.normpath(transform_output.transform_savedmodel_dir))
    job = Job(task, graph, train_files, eval_files, model_folder, log_folder)
    tf.io.gfile.makedirs(log_folder)
    keras.utils.set_random_seed(task.training.seed)
    if hasattr(build_model(task.model, job.features), "adapt"):
        return _count(job)
    if task.training.chosen_strategy == "none" and not _in_cluster():
        work(job, Place(), lambda line, step, resumed=None: report(line))
    else:
        run_job(job, report, log, os.environ.get("TF_CONFIG"))
    history = Path(log_folder) / HISTORY_FILE
    return json.loads(history.read_text()) if history.exists() else {}  # none where this machine's worker is no chief


def _in_cluster() -> bool:
    """Say whether TF_CONFIG names other machines to train with."""
    cluster = json.loads(os.environ.get("TF_CONFIG") or "{}").get("cluster", {})
    return sum(map(len, cluster.values())) > 1


def run_job(job: Job, report: Callable[[str], None], log: Callable[[str, str], None], given: str | None = None) -> None:
    """Run a job in worker processes of its own; one that was broken off goes on from its last checkpoint.

    In a cluster `given` is the TF_CONFIG that says what this machine is, and one process is run; else all of them.
    """
    config, folder = job.task.training, Path(job.log_folder)
    told, state = folder / JOB_FILE, folder / "state"
    if not given and not (told.exists() and told.read_text() == job.to_json()):
        shutil.rmtree(state, ignore_errors=True)
    state.mkdir(parents=True, exist_ok=True)
    beside = folder / f".{JOB_FILE}.{socket.gethostname()}.{os.getpid()}"
    beside.write_text(job.to_json())
    os.replace(beside, told)
    if given:
        mine = json.loads(given)["task"]
        members = [Role(mine["type"], mine["index"])]
        threads = config.threads
    else:
        members = roles(config.chosen_strategy, config.workers, config.parameter_servers)
        threads = config.threads or max(1, (os.cpu_count() or 1) // config.workers)
    command = [sys.executable, "-m", "models.worker", str(told), str(state), str(threads or 0)]
    run_workers(
        command,
        members,
        f"{folder}/workers",
        config.restarts,
        report,
        log,
        tf_config=(lambda role: given) if given else None,
    )
    if members[0].leads:
        shutil.rmtree(state, ignore_errors=True)


def work(job: Job, place: Place, report: Report, state: str | None = None) -> None:
    """Do one process's part of a job; the chief exports. `state` is the folder of checkpoints to go on from."""
    config, features = job.task.training, job.features
    # Every process has dropout of its own; weights start as the chief's.
    keras.utils.set_random_seed(config.seed + place.index)
    share = Share(place.index, place.count)
    if place.chief and not dealt_by_file(files_of(job.train_files), share):
        report(f"fewer files than the {place.count} workers: records are dealt out one by one", 0)
    training = Examples(job.train_files, features, share, config.cache_mib)
    evaluation = Examples(job.eval_files, features, share, config.cache_mib)
    sample = next(iter(examples(job.eval_files, features, 2)))
    started = time.monotonic()
    steps = Steps(lambda: build_model(job.task.model, features), config, sample, place)
    keeping = Keeping(job, steps, place, report, state)
    fit(steps, training, evaluation, config, place, keeping.keeper, keeping.record)
    if place.chief:
        finish(job, steps, keeping, sample, time.monotonic() - started)
    place.total(np.zeros(1))  # none leaves before the chief is done


def finish(job: Job, steps: Steps, keeping: Keeping, sample: Batch, seconds: float) -> None:
    """Export the best epoch's model and write the history."""
    features, record = job.features, keeping.record
    history = _history(job, record.epochs, seconds) | {
        "parameters": int(sum(w.shape.num_elements() for w in steps.model.weights)),
        "tables": _tables(steps, features, job),
        "workers": workers_said(record.workers),
    }
    # A fresh model, free of the strategy: what is exported knows nothing of how it was trained.
    model = build_model(job.task.model, features)
    model(sample[0], training=False)
    tf.train.Checkpoint(model=model).read(keeping.best(record)).expect_partial()
    for layer in table_layers(model):
        layer.settle()
    write_projection(model, job.transform_output, features, f"{job.log_folder}/projection")
    if hasattr(model, "index"):
        model.index(examples(job.train_files, features, EVAL_BATCH))
    _export(job, model, features)
    _write_history(job, history)
    keeping.remove_best()


class Keeping:
    """What training writes down as it goes: the best epoch's weights, curves, and where it stands, to go on from.

    What counts is what the chief writes. Without a `state` folder nothing is kept to go on from.
    """

    def __init__(self, job: Job, steps: Steps, place: Place, report: Report, state: str | None):
        self._steps = steps
        self._folder = Path(state or job.log_folder)
        # Reading moving means and the like adds them up over workers: then all must save when the chief does.
        together = any(v.synchronization == tf.VariableSynchronization.ON_READ for v in steps.model.variables)
        if not place.chief:
            self._folder = self._folder / f".worker-{place.index}"
        self._told = tf.Variable(Record().to_json(), dtype=tf.string, trainable=False)
        self._manager = None
        if state:
            kept = tf.train.Checkpoint(
                model=steps.model,
                tables=steps.table_optimizer,
                dense=steps.dense_optimizer,
                position=steps.position,
                record=self._told,
            )
            self._manager = tf.train.CheckpointManager(kept, str(self._folder), max_to_keep=2)
            if newest := tf.train.latest_checkpoint(state):
                kept.restore(newest).assert_existing_objects_matched()
            if place.chief:
                at = int(steps.position.numpy())
                report(f"going on from step {at:,}" if at else "workers are ready", at, at)
        self.record = Record.from_json(self._told.numpy().decode())
        self.keeper = Keeper(report=report)
        if place.chief:
            curves = Curves(job.log_folder)
            self.keeper = Keeper(curves.add, self._keep_best, self._save, report)
        elif together:
            self.keeper = Keeper(best_found=self._keep_best, checkpoint=self._save)

    def best(self, record: Record) -> str:
        """Return where the best epoch's weights are."""
        return f"{self._folder}/best-{record.epochs[record.best]['epoch']}"

    def remove_best(self, but: str = "") -> None:
        """Remove the weights of epochs that were the best once."""
        for path in self._folder.glob("best-*"):
            if not but or not path.name.startswith(f"{Path(but).name}."):
                path.unlink()

    def _keep_best(self, epoch: int) -> None:
        tf.train.Checkpoint(model=self._steps.model).write(f"{self._folder}/best-{epoch}")

    def _save(self, record: Record) -> None:
        if self._manager:
            self._told.assign(record.to_json())
            self._manager.save()
        if record.epochs:  # only now: what an earlier checkpoint says is the best must stay as long as that one is used
            self.remove_best(but=self.best(record))


def _count(job: Job) -> dict[str, Any]:
    """Take one pass over the examples for a model that is counted, not trained."""
    features, config = job.features, job.task.training
    started = time.monotonic()
    model = build_model(job.task.model, features)
    model.adapt(examples(job.train_files, features, config.batch, config.seed))
    tally = Tally()
    for inputs, labels in examples(job.eval_files, features, EVAL_BATCH):
        tally.add(labels, model(inputs, training=False))
    epoch = {"epoch": 1} | {f"eval_{name}": value for name, value in figures(tally.take()).items()}
    history = _history(job, [epoch], time.monotonic() - started)
    history["parameters"] = int(sum(w.shape.num_elements() for w in model.weights))
    _export(job, model, features)
    _write_history(job, history)
    return history


def _history(job: Job, epochs: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    best = max(epochs, key=lambda epoch: epoch["eval_auc"])
    return {
        "model": job.task.model.model_dump(mode="json"),
        "seed": job.task.training.seed,
        "epochs": epochs,
        "seconds": round(seconds, 3),
        "best_epoch": best["epoch"],
        "eval_auc": best["eval_auc"],
        "eval_logloss": best["eval_logloss"],
    }


def _tables(steps: Steps, features: list[TransformedFeature], job: Job) -> list[dict[str, Any]]:
    """Return what each embedding table costs, how full it is, and how often eval ids had no row of their own."""
    oov = _oov_rates(job, features)
    said: dict[str, dict[str, Any]] = {}
    for layer in table_layers(steps.model):
        for f in features:
            table = layer.tables.get(f.name)
            if table is None or not f.size or f.table in layer.tables:
                continue
            dim = table.variable.shape[1]
            row = said.setdefault(
                f.name,
                {"feature": f.name, "rows": table.rows, "dim": 0, "bytes": 0, "fill": 0.0, "oov_rate": oov[f.name]},
            )
            row["dim"] = max(row["dim"], dim)
            row["bytes"] += table.rows * dim * 4
            row["fill"] = max(
                row["fill"], rows_seen(steps.table_optimizer, table.variable, table.start, table.rows) / table.rows
            )
    return list(said.values())


def _oov_rates(job: Job, features: list[TransformedFeature]) -> dict[str, float]:
    cold, looked_up = dict.fromkeys((f.name for f in features), 0), dict.fromkeys((f.name for f in features), 0)
    for inputs, _ in examples(job.eval_files, features, EVAL_BATCH):
        for f in features:
            ids = inputs[f.name].numpy()
            looked_up[f.name] += int((ids != PADDING).sum())
            if f.oov:
                cold[f.name] += int(((ids >= f.oov[0]) & (ids < f.oov[1])).sum())
    return {name: round(cold[name] / max(n, 1), 6) for name, n in looked_up.items()}


def _export(job: Job, model: keras.Model, features: list[TransformedFeature]) -> None:
    """Write the model beside its place, then rename it there: whoever looks meets a whole one or none."""
    target = Path(job.model_folder)
    beside = target.with_name(f".{target.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    export(model, job.transform_output, job.task.columns, features, str(beside))
    shutil.rmtree(target, ignore_errors=True)
    os.rename(beside, target)


def _write_history(job: Job, history: Mapping[str, Any]) -> None:
    with tf.io.gfile.GFile(os.path.join(job.log_folder, HISTORY_FILE), "w") as stream:
        json.dump(history, stream, indent=1)
