"""The best of a family: chosen on eval, the plainer of equals, within a budget."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from configs.model import FM, LR, Auto, ItemMean, Training
from models.training.calibration import calibrating_shift, logloss
from models.training.job import Job, Task
from models.training.selection import auc_gain, train_best
from models.training.train import train
from tests.conftest import named


def auc(labels, scores):
    pairs = scores[labels == 1][:, None] - scores[labels == 0][None]
    return ((pairs > 0) + 0.5 * (pairs == 0)).mean()


def test_the_gain_in_auc_and_its_error_are_those_of_repeated_draws():
    random = np.random.default_rng(1)

    def drawn():
        labels = (random.random(300) < 0.3).astype(np.float32)
        signal = labels + random.normal(size=300)
        return labels, (signal + random.normal(size=300)).round(1), signal.round(1)

    labels, one, other = drawn()
    gain, error = auc_gain(labels, one, other)
    assert gain == pytest.approx(auc(labels, other) - auc(labels, one))
    gains = [auc_gain(*drawn())[0] for _ in range(400)]
    assert error == pytest.approx(np.std(gains), rel=0.25)
    assert auc_gain(np.zeros(9), np.arange(9.0), np.arange(9.0)) == (0.0, float("inf"))


def test_the_calibrating_shift_needs_evidence():
    random = np.random.default_rng(2)
    logits = random.normal(-3, 1, 20_000)
    labels = (random.random(20_000) < 1 / (1 + np.exp(-(logits + 0.3)))).astype(np.float32)
    shift = calibrating_shift(labels, logits)
    assert shift == pytest.approx(0.3, abs=0.1)
    assert logloss(labels, logits + shift) < logloss(labels, logits)
    few = calibrating_shift(labels[:200], logits[:200])
    assert abs(few) < 0.1
    assert abs(calibrating_shift(np.zeros(50), np.full(50, -2.0))) < 0.1


def fitted(sample, folder, model, **training):
    lines: list[str] = []
    task = Task(model, Training(batch=64, epochs=2, seed=1, **training), sample.table_json, sample.columns,
                ("user", "item"))  # fmt: skip
    files = [sample.files]
    history = train(
        task, sample.transform_output, files, files, str(folder / "model"), str(folder / "logs"), report=lines.append
    )
    return history, lines


def test_auto_exports_the_best_of_its_family(sample, tmp_path):
    family = [ItemMean(type="item_mean"), LR(type="lr", without=["row"]), FM(type="fm", embedding_dim=4)]
    history, lines = fitted(sample, tmp_path, Auto(type="auto", family=family))
    assert json.loads((tmp_path / "logs" / "training.json").read_text()) == history
    assert [t["model"] for t in history["tried"]] == ["item_mean", "lr", "fm"]
    best = next(t for t in history["tried"] if t["model"] == history["model"]["type"])
    assert best["eval_auc"] == history["eval_auc"] >= history["tried"][0]["eval_auc"]
    assert lines[-1] == f"chosen: {history['model']['type']}, of 3 tried"
    signatures = tf.saved_model.load(str(tmp_path / "model")).signatures
    assert signatures["serving_default"](**named(sample, sample.rows[:5]))["score"].shape == (5,)
    assert {path.name for path in tmp_path.iterdir()} == {"model", "logs"}


def tried_by(family, folder, scores, seconds=0.0, budget="10m"):
    """Return the history of choosing among models that score the eval examples so, each after some seconds."""
    labels = np.tile([1.0, 0.0, 0.0], 400).astype(np.float32)

    def train_one(job):
        time.sleep(seconds)
        index = len(order)
        order.append(job.task.model.type)
        np.savez(job.keep_scores, labels=labels, logits=scores(labels)[index])
        (Path(job.model_folder) / "saved").mkdir(parents=True)
        return {"model": job.task.model.model_dump(mode="json"), "eval_auc": 0.5, "eval_logloss": 0.6}

    order: list[str] = []
    task = Task(Auto(type="auto", family=family, budget=budget), Training(), "{}", {}, ("user", "item"))
    (folder / "logs").mkdir(parents=True)
    return train_best(Job(task, "", [], [], str(folder / "model"), str(folder / "logs")), train_one), order


def test_of_equals_the_plainer_is_chosen_and_better_only_where_it_is_more_than_chance(tmp_path):
    random = np.random.default_rng(1)
    family = [ItemMean(type="item_mean"), ItemMean(type="item_mean", prior=9.0), LR(type="lr"), FM(type="fm")]

    def scores(labels):
        base = labels + random.normal(size=len(labels))
        return [base, base, base + 0.01 * random.normal(size=len(labels)), base + 0.7 * labels]

    assert tried_by(family[:3], tmp_path / "alike", scores)[0]["model"]["prior"] == 10.0
    history, order = tried_by(family, tmp_path / "better", scores)
    assert history["model"]["type"] == "fm"
    assert order == [t["model"] for t in history["tried"]]
    assert (tmp_path / "better" / "model" / "saved").is_dir()


def test_what_ranks_better_but_predicts_worse_is_not_chosen(tmp_path):
    random = np.random.default_rng(1)
    family = [ItemMean(type="item_mean"), LR(type="lr")]

    def scores(labels):
        plain = labels - 1.0 + random.normal(size=len(labels))
        return [plain, plain + 0.5 * labels + 3.0]

    assert tried_by(family, tmp_path, scores)[0]["model"]["type"] == "item_mean"


def test_what_does_not_fit_the_budget_is_left_out_and_the_first_is_always_tried(tmp_path):
    family = [ItemMean(type="item_mean"), LR(type="lr"), FM(type="fm")]
    history, order = tried_by(family, tmp_path, lambda labels: [labels] * 3, seconds=0.6, budget="1s")
    assert order == ["item_mean"]
    assert [each["model"] for each in history["left_out"]] == ["lr", "fm"]
    assert "of 1s were left" in history["left_out"][0]["why"]
