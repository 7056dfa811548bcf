"""Negatives for models that learn from labels: whose they are, and that scores stay probabilities."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from configs.model import SVD, SampledNegatives, Training
from models.registry import build_model
from models.topn.rows import TrainingRows
from models.training.context import WorkerContext
from models.training.negatives import DRAWN, WithNegatives
from models.training.steps import Steps
from transforms.transformed import TransformedFeature

USERS, ITEMS = 60, 40
FEATURES = [
    TransformedFeature("user", "user", USERS + 2, oov=(USERS + 1, USERS + 2), hideable=True),
    TransformedFeature("item", "item", ITEMS + 2, oov=(ITEMS + 1, ITEMS + 2), hideable=True),
    TransformedFeature("genre", "item", 5),
    TransformedFeature("age", "user", 0),
]


def logs() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return who met what [users, items], some users and items far oftener, and the rows of the pairs that met."""
    rng = np.random.default_rng(1)
    chances = np.outer(np.linspace(0.05, 0.9, USERS), np.linspace(0.05, 0.9, ITEMS))
    met = rng.random((USERS, ITEMS)) < chances
    users, items = np.nonzero(met)
    return met, {
        "user": users + 1,
        "item": items + 1,
        "genre": items % 5,
        "age": users.astype(np.float32),
    }


def drawn(config, rows):
    source = TrainingRows(rows)
    return WithNegatives(source, source.batches(4096, 1), FEATURES, config)


def test_each_positive_is_followed_by_items_that_its_user_did_not_meet_with_their_own_features():
    met, rows = logs()
    source = drawn(SampledNegatives(count=3), rows)
    inputs, labels = next(iter(source.batches(100, 1)))
    inputs, labels = {name: x.numpy() for name, x in inputs.items()}, labels.numpy()
    assert (labels[:100] == 1).all()
    assert (labels[100:] == 0).all()
    assert 250 < len(labels) - 100 <= 300
    negative = labels == 0
    assert not met[inputs["user"][negative] - 1, inputs["item"][negative] - 1].any()
    np.testing.assert_array_equal(inputs["genre"], (inputs["item"] - 1) % 5)
    np.testing.assert_array_equal(inputs["age"], inputs["user"] - 1)
    left = 1 - met.sum(axis=1)[inputs["user"] - 1] / ITEMS
    often = 3 * met.sum(axis=1)[inputs["user"] - 1] / ITEMS / left
    np.testing.assert_allclose(inputs[DRAWN], np.log(often), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("by", ["uniform", "popularity"])
def test_scores_are_probabilities_of_all_pairs_whatever_is_drawn(by):
    met, rows = logs()
    source = drawn(SampledNegatives(count=4, by=by), rows)
    keras.utils.set_random_seed(1)
    features = FEATURES[:2]
    first = ({f.name: tf.constant(rows[f.name][:2]) for f in features}, tf.ones([2]))
    config = Training(batch=200, learning_rate=0.03)
    steps = Steps(lambda: build_model(SVD(type="svd", embedding_dim=2), features), config, first, WorkerContext())
    in_epoch, epochs = source.steps(200), 60
    steps.run(iter(source.batches(200, in_epoch, epochs, seed=1)), tf.constant(epochs * in_epoch))
    everyone = np.indices((USERS, ITEMS)).reshape(2, -1) + 1
    asked = {"user": tf.constant(everyone[0]), "item": tf.constant(everyone[1])}
    scores = tf.sigmoid(steps.model(asked)).numpy().reshape(USERS, ITEMS)
    # Uncorrected, every part would be near 1 in 5. Users of little activity have three positives each and come last.
    parts = [(np.s_[:, :], 0.1), (np.s_[40:], 0.1), (np.s_[:, :13], 0.25), (np.s_[:, 27:], 0.1), (np.s_[:20], 0.4)]
    for part, within in parts:
        assert scores[part].mean() == pytest.approx(met[part].mean(), rel=within)


def test_a_cross_of_user_and_item_is_refused():
    _, rows = logs()
    source = TrainingRows(rows)
    features = [*FEATURES, TransformedFeature("age_genre", "context", 9, crossed=True)]
    with pytest.raises(ValueError, match="does not go with the crossed feature age_genre"):
        WithNegatives(source, source.batches(4096, 1), features, SampledNegatives())
