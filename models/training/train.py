"""Training: transformed examples in, an exported model and its curves out."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft
import tf_keras as keras

from configs.model import Auto
from models.base import ClosedForm
from models.registry import implementation
from models.training.context import WorkerContext
from models.training.history import HISTORY_FILE
from models.training.job import Job, Task
from models.training.selection import train_best
from models.training.work import fit_closed_form, work
from models.training.workers import ProgressLine, Role, roles, run_workers

JOB_FILE = "job.json"


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
    history as JSON go to `log_folder`. `report` receives what to say while it goes on, a `ProgressLine`, and `log` what
    worker processes print. The model appears in `model_folder` by one rename, when it is whole.
    """
    graph = os.path.dirname(os.path.normpath(transform_output.transform_savedmodel_dir))
    job = Job(task, graph, train_files, eval_files, model_folder, log_folder)
    tf.io.gfile.makedirs(log_folder)
    if not isinstance(task.model, Auto):
        return _train_one(job, report, log)
    if _in_cluster():
        raise ValueError("model auto: trains on one machine; name the model to train in a cluster")
    return train_best(job, lambda member: _train_one(member, report, log), report)


def _train_one(job: Job, report: Callable[[str], None], log: Callable[[str, str], None]) -> dict[str, Any]:
    task, log_folder = job.task, job.log_folder
    keras.utils.set_random_seed(task.training.seed)
    if issubclass(implementation(type(task.model)), ClosedForm):
        return fit_closed_form(job)
    if task.training.chosen_strategy == "none" and not _in_cluster():
        work(job, WorkerContext(), lambda line, step, resumed=None, passing=False: report(ProgressLine(line, passing)))
    else:
        run_job(job, report, log, os.environ.get("TF_CONFIG"))
    history = Path(log_folder) / HISTORY_FILE
    return json.loads(history.read_text()) if history.exists() else {}  # none where this machine's worker is no chief


def _in_cluster() -> bool:
    """Return whether TF_CONFIG names other machines to train with."""
    cluster = json.loads(os.environ.get("TF_CONFIG") or "{}").get("cluster", {})
    return sum(map(len, cluster.values())) > 1


def run_job(job: Job, report: Callable[[str], None], log: Callable[[str, str], None], given: str | None = None) -> None:
    """Run a job in worker processes of its own; one that was broken off goes on from its last checkpoint.

    In a cluster `given` is the TF_CONFIG that says what this machine is, and one process is run; else all of them.
    """
    config, folder = job.task.training, Path(job.log_folder)
    text, states = job.to_json(), folder / "state"
    # Named by the job: machines of a cluster agree on the folder, and a changed job meets no checkpoint of the other.
    state = states / hashlib.sha256(text.encode()).hexdigest()[:16]
    state.mkdir(parents=True, exist_ok=True)
    job_file, beside = folder / JOB_FILE, folder / f".{JOB_FILE}.{uuid.uuid4().hex}"
    beside.write_text(text)
    os.replace(beside, job_file)
    if given:
        mine = json.loads(given)["task"]
        members = [Role(mine["type"], mine["index"])]
        threads = config.threads
    else:
        members = roles(config.chosen_strategy, config.workers, config.parameter_servers)
        threads = config.threads or max(1, (os.cpu_count() or 1) // config.workers)
    command = [sys.executable, "-m", "models.training.worker", str(job_file), str(state), str(threads or 0)]
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
        shutil.rmtree(states, ignore_errors=True)
