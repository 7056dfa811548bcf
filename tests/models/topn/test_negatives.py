"""Negatives: what is drawn, how often, and that the correction makes the sampled softmax the whole one."""

import numpy as np
import pytest
import tensorflow as tf

from configs.model import Drawn, Negatives
from models.topn.interactions import Interactions
from models.topn.negatives import Sampler
from tests.models.topn.data import ITEMS, known


@pytest.mark.parametrize("by", ["uniform", "popularity", "hard"])
def test_no_users_own_positive_is_ever_used(by):
    events = known()
    sampler = Sampler(Drawn(by=by, count=4, pool=6), events)
    users = np.repeat(events.owners, 50)
    columns, usable = sampler.draw(tf.constant(users), lambda c: tf.zeros(tf.shape(c)))
    own = {(u, i) for u, i in zip(events.users.tolist(), events.items.tolist(), strict=True)}
    columns, usable = columns.numpy(), usable.numpy()
    assert columns.min() >= 0
    assert columns.max() < ITEMS
    for row, user in enumerate(users):
        for column, used in zip(columns[row], usable[row], strict=True):
            assert not used or (user, column) not in own
    assert usable.mean() > 0.8


def test_popularity_draws_by_count_to_a_power_and_knows_how_often():
    counts = np.array([1, 4, 9, 16])
    items = np.repeat(np.arange(4), counts)
    events = Interactions(np.ones(len(items), int), items, np.ones(len(items)), 3, 4)
    sampler = Sampler(Drawn(by="popularity", alpha=0.5, count=1), events)
    drawn = sampler._any(tf.constant([20_000, 1])).numpy()
    shares = np.bincount(drawn[:, 0], minlength=4) / len(drawn)
    np.testing.assert_allclose(shares, np.array([1, 2, 3, 4]) / 10, atol=0.02)
    np.testing.assert_allclose(
        np.exp(tf.gather(sampler._log_q, tf.range(4)).numpy()), np.array([1, 2, 3, 4]) / 10, rtol=1e-5
    )


def test_hard_negatives_are_those_that_the_model_scores_highest():
    events = known()
    sampler = Sampler(Drawn(by="hard", count=1, pool=64), events)
    columns, usable = sampler.draw(tf.constant(events.owners), lambda c: tf.cast(c, tf.float32))
    for owner, column, used in zip(events.owners, columns.numpy()[:, 0], usable.numpy()[:, 0], strict=True):
        own = events.items[events.users == owner]
        assert used
        assert column == max(set(range(ITEMS)) - set(own.tolist()))


def test_a_user_that_met_every_item_has_no_negatives():
    everything = np.arange(ITEMS)
    events = Interactions(np.ones(ITEMS, int), everything, np.ones(ITEMS), 3, ITEMS)
    _, usable = Sampler(Drawn(count=3), events).draw(tf.ones([5], tf.int64))
    assert not usable.numpy().any()


def softmax_of(config, rows=6000):
    """Return the mean gradient on items' biases of the sampled softmax, and that of the softmax over all items."""
    counts = np.array([8, 4, 2, 1, 1])
    items = np.repeat(np.arange(5), counts)
    # Each event is of a user of its own, who has met nothing else.
    events = Interactions(np.arange(len(items)), items, np.ones(len(items)), 20, 5)
    sampler = Sampler(config, events)
    rng = np.random.default_rng(1)
    at = rng.integers(0, len(items), rows)
    biases = tf.Variable([0.5, -0.3, 0.2, 0.0, -0.4])
    queries = tf.ones([rows, 1])
    with tf.GradientTape() as tape:
        loss = sampler.softmax(
            tf.constant(at), tf.constant(items[at]), queries, lambda c: tf.gather(biases, c)[..., tf.newaxis]
        )
        mean = tf.reduce_mean(loss)
    with tf.GradientTape() as other:
        logits = tf.tile(biases[tf.newaxis], [rows, 1])
        whole = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(items[at], logits))
    return (tf.convert_to_tensor(g).numpy() for g in (tape.gradient(mean, biases), other.gradient(whole, biases)))


@pytest.mark.parametrize(
    "config",
    [
        Negatives(by="uniform", count=200),
        Negatives(by="popularity", alpha=0.75, count=200),
        Negatives(by="in_batch"),
        Negatives(by="mixed", count=500),
    ],
    ids=lambda c: c.by,
)
def test_the_correction_makes_the_sampled_softmax_that_over_all_items(config):
    """Without it popular items, which are drawn more often, would be pushed down by as much."""
    sampled, whole = softmax_of(config, rows=1500)
    np.testing.assert_allclose(sampled, whole, atol=0.03)


def test_other_positives_of_the_same_user_are_left_out_of_a_batch():
    events = Interactions(np.array([1, 1, 2]), np.array([0, 1, 2]), np.ones(3), 4, 3)
    sampler = Sampler(Negatives(by="in_batch"), events)
    vectors = tf.constant([[1.0], [9.0], [2.0]])
    losses = sampler.softmax(
        tf.constant([1, 1, 2], tf.int64),
        tf.constant([0, 1, 2], tf.int64),
        tf.ones([3, 1]),
        lambda c: tf.gather(vectors, c),
    )
    # The first row knows items 0 and 2 alone: item 1, which its user met too, would have made the loss about 8.
    assert float(losses[0]) == pytest.approx(np.log(1 + np.exp(2.0 - 1.0)), rel=1e-4)


def test_a_pool_must_hold_more_than_is_chosen():
    with pytest.raises(ValueError, match="too small to choose the hardest 5"):
        Drawn(by="hard", count=5, pool=4)
