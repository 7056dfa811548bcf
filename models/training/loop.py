"""The training loop: the same steps for one process and for many in step, and what they measured."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from configs.model import Training
from models.base import OwnLoss, OwnValidation, TrainingSource
from models.training.context import WorkerContext
from models.training.history import eval_figures
from models.training.negatives import RANKED
from models.training.steps import Steps

_STEPS_A_CALL = 64
_MOST_STEPS_UNJUDGED = 200

Report = Callable[..., None]  # (line, step, resumed=None, passing=False): where training is, and went on from, in steps


@dataclass
class Record:
    """What training has come to: kept in checkpoints, and in the end the history."""

    epochs: list[dict[str, Any]] = field(default_factory=list)  # one for each evaluation, in an epoch or at its end
    workers: list[dict[str, float]] = field(default_factory=list)
    best: int = -1  # index into `epochs`
    since: int = 0  # from which index on patience counts
    cuts: int = 0  # of the step size
    seconds: float = 0.0
    finished: bool = False

    def to_json(self) -> str:
        """Return it as JSON."""
        return json.dumps(self.__dict__)

    @classmethod
    def from_json(cls, text: str) -> Record:
        """Read it again."""
        return cls(**json.loads(text))


@dataclass(frozen=True)
class Callbacks:
    """What happens beside the steps; every call is optional to answer."""

    epoch_ended: Callable[[dict[str, Any], list[dict[str, float]]], None] = lambda epoch, workers: None
    best_found: Callable[[int], None] = lambda epoch: None
    checkpoint: Callable[[Record], None] = lambda record: None
    report: Report = lambda line, step, resumed=None, passing=False: None


def fit(
    steps: Steps,
    training: TrainingSource,
    evaluate: Callable[[], dict[str, float]],
    config: Training,
    context: WorkerContext,
    callbacks: Callbacks,
    record: Record,
) -> Record:
    """Train from `steps.position` on until the eval metric has stopped gaining, after cuts of the step size too."""
    batch = context.share_of(config.batch)
    in_epoch = context.largest(training.steps(batch))
    in_part = _steps_between_evaluations(steps, config, in_epoch)
    position = int(steps.position.numpy())
    batches = iter(training.batches(batch, in_epoch, config.epochs, config.seed, first=position))
    while position < config.epochs * in_epoch and not record.finished:
        began, said = time.monotonic(), time.monotonic()
        epoch, at = divmod(position, in_epoch)
        ends = min((at // in_part + 1) * in_part, in_epoch)
        while at < ends:
            to_checkpoint = config.checkpoint_steps - position % config.checkpoint_steps
            taken = min(_STEPS_A_CALL, ends - at, to_checkpoint)
            steps.run(batches, tf.constant(taken))
            at, position = at + taken, position + taken
            steps.position.assign(position)
            if position % config.checkpoint_steps == 0 and at < ends:
                callbacks.checkpoint(record)
            if time.monotonic() - said > 1.0:
                said = time.monotonic()
                callbacks.report(f"epoch {epoch + 1}, step {at:,} of {in_epoch:,}", position, passing=True)
        seconds = time.monotonic() - began
        workers = _of_workers(context, seconds, *steps.measured())
        end_evaluation(record, workers, steps, evaluate(), began, config, context, callbacks, position, in_epoch)
    return record


def _steps_between_evaluations(steps: Steps, config: Training, in_epoch: int) -> int:
    if config.evaluate_steps:
        return min(config.evaluate_steps, in_epoch)
    if isinstance(steps.model, OwnValidation):  # a ranking of the catalogue may take as long as an epoch
        return in_epoch
    return -(-in_epoch // -(-in_epoch // _MOST_STEPS_UNJUDGED))


def end_evaluation(
    record: Record,
    workers: list[dict[str, float]],
    steps: Steps,
    held_out: Mapping[str, float],
    began: float,
    config: Training,
    context: WorkerContext,
    callbacks: Callbacks,
    position: int,
    in_epoch: int,
) -> None:
    """Record an evaluation, find out whether it is the best and the last one, and report it."""
    totals = record.workers or [dict.fromkeys(worker, 0.0) for worker in workers]
    record.workers = [{k: t[k] + w[k] for k in t} for t, w in zip(totals, workers, strict=True)]
    seconds = time.monotonic() - began
    record.seconds += seconds
    record.epochs.append(
        {
            "evaluation": len(record.epochs) + 1,
            "epoch": position // in_epoch if position % in_epoch == 0 else round(position / in_epoch, 2),
            "seconds": round(seconds, 3),
            "examples": round(sum(worker["examples"] for worker in workers)),
        }
        | {f"train_{name}": value for name, value in steps.trained().items()}
        | {f"eval_{name}": value for name, value in held_out.items()}
    )
    at = len(record.epochs) - 1
    if record.best < 0 or _better(steps, config, held_out, record.epochs[record.best]):
        record.best = record.since = at
        callbacks.best_found(at)
    if at - record.since > config.patience:
        record.finished = record.cuts >= config.decays
        if not record.finished:
            record.cuts, record.since = record.cuts + 1, at
            steps.cut_step_size()
    record.finished |= position >= config.epochs * in_epoch
    if config.budget_seconds is not None:  # as the slowest sees it, so that all workers stop at once
        record.finished |= context.largest(round(record.seconds)) >= config.budget_seconds
    callbacks.epoch_ended(record.epochs[-1], workers)
    callbacks.checkpoint(record)
    callbacks.report(_summary(record.epochs[-1]), position)


def _better(steps: Steps, config: Training, held_out: Mapping[str, float], best: Mapping[str, float]) -> bool:
    if isinstance(steps.model, OwnValidation):
        return held_out[steps.model.monitor] > best[f"eval_{steps.model.monitor}"]
    if config.negatives and not isinstance(steps.model, OwnLoss):  # of positives alone there is no AUC
        return held_out[RANKED] > best[f"eval_{RANKED}"]
    if config.monitor == "logloss":
        return held_out["logloss"] < best["eval_logloss"]
    return held_out["auc"] > best["eval_auc"]


def _of_workers(context: WorkerContext, seconds: float, examples: int, waited: float) -> list[dict[str, float]]:
    own = np.zeros([context.count, 3])
    own[context.index] = seconds, examples, waited
    keys = ("seconds", "examples", "waited")
    return [dict(zip(keys, map(float, row), strict=True)) for row in context.total(own)]


def worker_figures(totals: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """Return each worker's seconds of training, examples a second, and share of time spent waiting for data."""
    return [
        {
            "index": index,
            "seconds": round(t["seconds"], 3),
            "examples_per_second": round(t["examples"] / max(t["seconds"], 1e-9)),
            "waiting_share": round(min(t["waited"] / max(t["seconds"], 1e-9), 1.0), 4),
        }
        for index, t in enumerate(totals)
    ]


def _summary(epoch: Mapping[str, Any]) -> str:
    trained = [] if epoch.get("train_one_label") else [f"train AUC {epoch['train_auc']:.4f}"]
    said = [*filter(None, [eval_figures(epoch)]), *trained, f"{epoch['seconds']:.1f} s"]
    return f"epoch {epoch['epoch']}: {', '.join(said)}"
