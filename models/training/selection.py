"""The best of a family of models: trained from plain to rich, chosen on the eval examples."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from configs.model import Auto, Model
from models.base import MissingFeatureError
from models.training.calibration import logloss
from models.training.history import eval_figures, write_history
from models.training.job import Job

_CERTAINTY = 0.5  # standard errors that a richer model must gain in AUC over a plainer one
_LEAST_GAIN = 0.0005  # of AUC, however certain


@dataclass(frozen=True)
class Tried:
    """One model of the family."""

    job: Job
    history: dict[str, Any]
    labels: np.ndarray
    logits: np.ndarray
    seconds: float

    @property
    def name(self) -> str:
        """Its type."""
        return self.job.task.model.type


def train_best(
    job: Job, train_one: Callable[[Job], dict[str, Any]], report: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Train the family that `job.task.model` names, export the best, and return its history.

    The history has `tried`: each model's eval AUC, LogLoss and seconds, and `left_out`: why others were not tried.
    Raises MissingFeatureError where the features lack what every model of the family needs.
    """
    family = job.task.model
    assert isinstance(family, Auto)
    folder = Path(job.log_folder) / "family"
    began = time.monotonic()
    tried: list[Tried] = []
    left_out: list[dict[str, str]] = []
    budget = family.budget_seconds
    for number, model in enumerate(family.family):
        left = budget - (time.monotonic() - began)
        # The next one is richer than the last: it takes at least as long.
        if tried and left < max(t.seconds for t in tried):
            left_out.append({"model": model.type, "why": f"{max(left, 0):.0f} s of {family.budget} were left"})
            report(f"{model.type}: left out, {left_out[-1]['why']}")
            continue
        try:
            tried.append(_try(_job_of(model, job, folder / f"{number}-{model.type}", left), train_one))
        except MissingFeatureError as error:
            left_out.append({"model": model.type, "why": str(error)})
            report(f"{model.type}: left out, {error}")
            continue
        report(f"{model.type}: {eval_figures(tried[-1].history)}, {tried[-1].seconds:.0f} s")
    if not tried:
        raise MissingFeatureError("; ".join(each["why"] for each in left_out))
    best = choose(tried)
    report(f"chosen: {best.name}, of {len(tried)} tried")
    history = best.history | {
        "tried": [
            {
                "model": t.name,
                "eval_auc": t.history["eval_auc"],
                "eval_logloss": t.history["eval_logloss"],
                "seconds": round(t.seconds, 3),
            }
            for t in tried
        ],
        "left_out": left_out,
        "seconds": round(time.monotonic() - began, 3),
    }
    _keep(best, job, folder)
    write_history(job, history)
    return history


def choose(tried: list[Tried]) -> Tried:
    """Return the best on eval, going from plain to rich.

    A richer model must gain more in AUC than chance gives, and lose nothing in LogLoss, which gates look at too: what
    ranks better by chance seldom predicts better as well.
    """
    best = tried[0]
    for other in tried[1:]:
        gain, error = auc_gain(best.labels, best.logits, other.logits)
        loses = logloss(other.labels, other.logits) > logloss(best.labels, best.logits)
        if gain > max(_LEAST_GAIN, _CERTAINTY * error) and not loses:
            best = other
    return best


def auc_gain(labels: np.ndarray, one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Return by how much the AUC of `other` is above that of `one`, and the standard error of that.

    All are [n]; examples are taken as independent (DeLong et al. 1988). Zero and infinite where there is one class.
    """
    positive = labels > 0.5
    m, n = int(positive.sum()), int((~positive).sum())
    if m < 2 or n < 2:
        return 0.0, float("inf")
    wins = [_placements(positive, scores) for scores in (one, other)]
    of_positives, of_negatives = (wins[1][i] - wins[0][i] for i in (0, 1))
    error = np.sqrt(of_positives.var(ddof=1) / m + of_negatives.var(ddof=1) / n)
    return float(of_positives.mean()), float(error)


def _placements(positive: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return of each positive the share of negatives below it, and of each negative that of positives above it."""
    ranks = _ranks(scores)
    m, n = int(positive.sum()), int((~positive).sum())
    below = (ranks[positive] - _ranks(scores[positive])) / n
    above = 1.0 - (ranks[~positive] - _ranks(scores[~positive])) / m
    return below, above


def _ranks(scores: np.ndarray) -> np.ndarray:
    """Return ranks from 1 up, equal scores having the mean of theirs."""
    _, at, counts = np.unique(scores, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[at]


def _job_of(model: Model, job: Job, folder: Path, seconds: float) -> Job:
    family, training = job.task.model, job.task.training
    own = model.model_copy(update={"without": [*dict.fromkeys([*model.without, *family.without])]})
    if training.budget_seconds is None or seconds < training.budget_seconds:
        training = training.model_copy(update={"budget": f"{max(int(seconds), 1)}s"})
    return replace(
        job,
        task=replace(job.task, model=own, training=training),
        model_folder=str(folder / "model"),
        log_folder=str(folder / "logs"),
        keep_scores=str(folder / "eval.npz"),
    )


def _try(job: Job, train_one: Callable[[Job], dict[str, Any]]) -> Tried:
    began = time.monotonic()
    Path(job.log_folder).mkdir(parents=True, exist_ok=True)
    history = train_one(job)
    with np.load(job.keep_scores) as kept:
        return Tried(job, history, kept["labels"], kept["logits"], time.monotonic() - began)


def _keep(best: Tried, job: Job, folder: Path) -> None:
    """Put the best model and its logs where those of a single model are."""
    shutil.rmtree(job.model_folder, ignore_errors=True)
    shutil.move(best.job.model_folder, job.model_folder)
    shutil.copytree(best.job.log_folder, job.log_folder, dirs_exist_ok=True)
    shutil.rmtree(folder)
