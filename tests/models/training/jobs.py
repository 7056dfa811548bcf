"""Small trainings in worker processes, on examples of their own."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from configs.model import FM, Training
from models.training.job import Job, Task
from models.training.train import run_job

KEY = "row"  # a numeric feature that tells examples apart


def write_examples(sample, folder: Path, per_file: list[int], copies: int = 1) -> list[bytes]:
    """Deal the sample's transformed examples, `copies` times over, out to files of the given sizes."""
    files = tf.io.gfile.glob(sample.files)
    records = [r for f in sorted(files) for r in tf.data.TFRecordDataset(f, "GZIP").as_numpy_iterator()] * copies
    folder.mkdir(parents=True, exist_ok=True)
    start = 0
    for index, size in enumerate(per_file):
        with tf.io.TFRecordWriter(f"{folder}/part-{index:05d}.gz", "GZIP") as writer:
            for record in records[start : start + size]:
                writer.write(record)
        start += size
    return records[:start]


def make_job(sample, folder: Path, examples: Path, model=None, **training: Any) -> Job:
    """Return a training on the files in `examples`."""
    told = {"batch": 100, "epochs": 2, "patience": 9, "learning_rate": 0.05, "seed": 1} | training
    model = model or FM(type="fm", embedding_dim=4)
    graph = os.path.dirname(os.path.normpath(sample.transform_output.transform_savedmodel_dir))
    task = Task(model, Training.model_validate(told), sample.table_json, sample.columns, ("user", "item"))
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    return Job(task, graph, [f"{examples}/*.gz"], [f"{examples}/*.gz"], str(folder / "model"), str(folder / "logs"))


@dataclass
class Killer:
    """Kills workers of a job, in turn, each once training has gone as far as told."""

    turns: list[tuple[int, Callable[[str], bool]]]  # (index of worker, after which line)
    job: Job
    lines: list[str] = field(default_factory=list)
    killed: list[int] = field(default_factory=list)

    def heard(self, line: str) -> None:
        self.lines.append(line)
        if self.turns and self.turns[0][1](line):
            index, _ = self.turns.pop(0)
            self.killed.append(kill_worker(self.job, index))


def worker_processes(job: Job) -> dict[int, int]:
    """Return the process ids of a job's running workers by their index."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes().split(b"\0")
            if b"models.training.worker" in command and f"{job.log_folder}/job.json".encode() in command:
                told = next(v for v in (entry / "environ").read_bytes().split(b"\0") if v.startswith(b"TF_CONFIG="))
                found[json.loads(told[10:])["task"]["index"]] = int(entry.name)
        except (OSError, StopIteration):
            continue
    return found


def kill_worker(job: Job, index: int) -> int:
    """Kill -9 a worker of a job and return its process id."""
    process = worker_processes(job)[index]
    os.kill(process, signal.SIGKILL)
    return process


def kill_at_random(job: Job, stop: threading.Event, random: np.random.Generator, kills: list[int]) -> None:
    """Kill chief and other worker in turn at random moments until told to stop."""
    while not stop.wait(random.uniform(2.0, 25.0)):
        running = worker_processes(job)
        if len(running) == 2:
            index = len(kills) % 2
            os.kill(running[index], signal.SIGKILL)
            kills.append(index)
            time.sleep(0.5)


def run(job: Job, heard: Callable[[str], None] = lambda line: None) -> tuple[dict[str, Any], list[str]]:
    """Run a job and return its history and the lines that it said and its workers printed."""
    lines: list[str] = []

    def report(line: str) -> None:
        lines.append(line)
        heard(line)

    run_job(job, report, lambda worker, line: lines.append(f"{worker}: {line}"))
    return json.loads(Path(job.log_folder, "training.json").read_text()), lines
