"""Training as it is by default: from the base rate, with a prior on each row, until it stops gaining."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from sklearn.linear_model import LogisticRegression

from configs.model import LR, DeepFM, Training
from models.registry import build_model
from models.training.context import WorkerContext
from models.training.loop import Callbacks, Record, fit
from models.training.priors import start_from_counts
from models.training.steps import Steps
from transforms.transformed import TransformedFeature

USER = TransformedFeature("user", "user", 60, oov=(58, 60), hideable=True)
ITEM = TransformedFeature("item", "item", 30, oov=(28, 30), hideable=True)
FEATURES = [USER, ITEM]


class Rows:
    """Examples in memory whose ids decide the label's odds."""

    def __init__(self, count: int, rate: float, seed: int = 1):
        random = np.random.default_rng(seed)
        self.ids = np.stack([np.minimum(random.exponential(12, count), 57), random.integers(1, 28, count)]).astype(int)
        effects = np.random.default_rng(9).normal(size=[2, 60])
        logits = np.log(rate / (1 - rate)) + effects[0, self.ids[0]] + effects[1, self.ids[1]]
        self.labels = (random.random(count) < 1 / (1 + np.exp(-logits))).astype(np.float32)
        self.count = count

    def steps(self, batch):
        return -(-self.count // batch)

    def batches(self, batch, steps, epochs=1, seed=None, first=0):
        inputs = {"user": self.ids[0].astype(np.int64), "item": self.ids[1].astype(np.int64)}
        data = tf.data.Dataset.from_tensor_slices((inputs, self.labels))
        data = data if seed is None else data.shuffle(self.count, seed=seed)
        return data.batch(batch).repeat(epochs)


def trained(config, rows, held_out, **training):
    """Return the model of the best evaluation, the record, and the lines reported."""
    keras.utils.set_random_seed(1)
    settings = Training(batch=256, **training)
    model = build_model(config, FEATURES)
    steps = Steps(lambda: model, settings, next(iter(rows.batches(2, 1))), WorkerContext())
    start_from_counts(model, rows, WorkerContext())
    started = model.output_biases[0].numpy()
    best: list = []

    def keep(_):
        best[:] = [w.numpy() for w in model.weights]

    record = Record()
    evaluate = lambda: steps.evaluate(held_out.batches(5000, 1))  # noqa: E731
    fit(steps, rows, evaluate, settings, WorkerContext(), Callbacks(best_found=keep), record)
    for weight, value in zip(model.weights, best, strict=True):
        weight.assign(value)
    return model, record, started


def one_hot(rows):
    return np.concatenate([np.eye(60)[rows.ids[0]], np.eye(30)[rows.ids[1]]], axis=1)


def test_logistic_regression_comes_to_where_scikit_learns_does():
    rows, held_out = Rows(4000, 0.2), Rows(2000, 0.2, seed=2)
    model, record, _ = trained(LR(type="lr"), rows, held_out, monitor="logloss")
    peer = LogisticRegression(max_iter=1000).fit(one_hot(rows), rows.labels)
    ours = model(next(iter(held_out.batches(2000, 1)))[0]).numpy()
    theirs = peer.decision_function(one_hot(held_out))
    assert record.finished
    assert np.corrcoef(ours, theirs)[0, 1] > 0.98
    assert np.abs(ours - theirs).mean() < 0.15


@pytest.mark.parametrize("config", [LR(type="lr"), DeepFM(type="deepfm", hidden=[8])])
def test_few_positives_do_not_blow_predictions_up(config):
    rows, held_out = Rows(6000, 0.003), Rows(6000, 0.003, seed=2)
    model, _, started = trained(config, rows, held_out)
    assert started == pytest.approx(np.log(rows.labels.mean() / (1 - rows.labels.mean())), abs=0.1)
    predicted = tf.sigmoid(model(next(iter(held_out.batches(6000, 1)))[0])).numpy()
    assert 0.5 < predicted.mean() / held_out.labels.mean() < 2.0
    assert predicted.max() < 0.5


def test_the_step_size_is_cut_before_training_stops_and_long_epochs_are_evaluated_in_parts():
    rows, held_out = Rows(4000, 0.2), Rows(1000, 0.2, seed=2)
    _, record, _ = trained(LR(type="lr"), rows, held_out, evaluate_steps=5, patience=0, learning_rate=0.2)
    assert record.cuts == 1
    assert record.finished
    assert [e["epoch"] for e in record.epochs[:4]] == [0.31, 0.62, 0.94, 1]
    assert record.best < len(record.epochs) - 1


def test_a_budget_ends_training_at_an_evaluation():
    rows = Rows(2000, 0.2)
    _, record, _ = trained(LR(type="lr"), rows, rows, budget="1s", epochs=10_000, patience=10_000)
    assert record.finished
    assert 1 <= len(record.epochs) < 10_000
