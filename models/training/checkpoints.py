"""Checkpoints: the best weights so far, and where training stands."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from models.training.context import WorkerContext
from models.training.curves import Curves
from models.training.job import Job
from models.training.loop import Callbacks, Record, Report
from models.training.steps import Steps


class CheckpointWriter:
    """What training writes as it goes: the best epoch's weights, curves, and where it stands, to go on from.

    What counts is what the chief writes. Without a `state` folder nothing is kept to go on from.
    """

    def __init__(self, job: Job, steps: Steps, context: WorkerContext, report: Report, state: str | None):
        self._steps = steps
        self._folder = Path(state or job.log_folder)
        # Reading moving means and the like adds them up over workers: then all must save when the chief does.
        together = any(v.synchronization == tf.VariableSynchronization.ON_READ for v in steps.model.variables)
        if not context.chief:
            self._folder = self._folder / f".worker-{context.index}"
        self._record = tf.Variable(Record().to_json(), dtype=tf.string, trainable=False)
        self._manager = None
        if state:
            kept = tf.train.Checkpoint(
                model=steps.model,
                tables=steps.table_optimizer,
                dense=steps.dense_optimizer,
                position=steps.position,
                record=self._record,
            )
            self._manager = tf.train.CheckpointManager(kept, str(self._folder), max_to_keep=2)
            if newest := tf.train.latest_checkpoint(state):
                kept.restore(newest).assert_existing_objects_matched()
            if context.chief:
                at = int(steps.position.numpy())
                report(f"going on from step {at:,}" if at else "workers are ready", at, at)
        self.record = Record.from_json(self._record.numpy().decode())
        self.callbacks = Callbacks(report=report)
        if context.chief:
            curves = Curves(job.log_folder)
            self.callbacks = Callbacks(curves.add, self._keep_best, self._save, report)
        elif together:
            self.callbacks = Callbacks(best_found=self._keep_best, checkpoint=self._save)

    def best(self, record: Record) -> str:
        """Return where the best epoch's weights are."""
        return f"{self._folder}/best-{record.best}"

    def remove_best(self, but: str = "") -> None:
        """Remove the weights of epochs that were the best once."""
        for path in self._folder.glob("best-*"):
            if not but or not path.name.startswith(f"{Path(but).name}."):
                path.unlink()

    def _keep_best(self, epoch: int) -> None:
        tf.train.Checkpoint(model=self._steps.model).write(f"{self._folder}/best-{epoch}")

    def _save(self, record: Record) -> None:
        if self._manager:
            self._record.assign(record.to_json())
            self._manager.save()
        if record.epochs:  # only now: what an earlier checkpoint says is the best must stay as long as that one is used
            self.remove_best(but=self.best(record))
