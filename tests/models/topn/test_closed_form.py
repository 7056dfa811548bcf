"""ItemKNN, EASE, SLIST and iALS against slow references."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from configs.model import EASE, IALS, SLIST, ItemKNN
from models.base import MissingFeatureError
from models.registry import build_model
from models.topn.interactions import Interactions
from tests.models.topn.data import FEATURES, ITEMS, USERS, inputs, known
from transforms.transformed import TransformedFeature


def binary(interactions):
    rows = np.zeros((interactions.user_count, ITEMS))
    rows[interactions.users, interactions.items] = 1
    return rows


def fitted(config, interactions, features=FEATURES):
    model = build_model(config, features)
    model.fit_to(interactions)
    return model


def test_item_knn_is_the_cosine_of_nearest_neighbours():
    events = known()
    rows = binary(events)
    weights = np.zeros((ITEMS, ITEMS))
    for target in range(ITEMS):
        similar = {}
        for other in range(ITEMS):
            if other != target:
                common = rows[:, other] @ rows[:, target]
                similar[other] = common / (np.sqrt(rows[:, other].sum() * rows[:, target].sum()) + 2.0)
        for other in sorted(similar, key=similar.__getitem__)[-3:]:
            weights[other, target] = similar[other]
    model = fitted(ItemKNN(type="item_knn", neighbours=3, shrink=2.0), events)
    # Of equal neighbours either may be kept: what counts is how similar they are.
    np.testing.assert_allclose(np.sort(model._weights.numpy(), axis=0), np.sort(weights, axis=0), rtol=1e-5, atol=1e-6)
    whole = fitted(ItemKNN(type="item_knn", neighbours=ITEMS, shrink=2.0), events)
    np.testing.assert_allclose(
        whole.catalogue_scores(inputs(events)).numpy(), rows[1:-1] @ whole._weights.numpy(), rtol=1e-5, atol=1e-6
    )


def test_ease_is_a_ridge_regression_of_each_item_on_all_others():
    events = known()
    rows = binary(events)
    weights = np.zeros((ITEMS, ITEMS))
    for target in range(ITEMS):
        others = [i for i in range(ITEMS) if i != target]
        x = rows[:, others]
        weights[others, target] = np.linalg.solve(x.T @ x + 1.5 * np.eye(len(others)), x.T @ rows[:, target])
    model = fitted(EASE(type="ease", l2=1.5), events)
    np.testing.assert_allclose(model._weights.numpy(), weights, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        model.catalogue_scores(inputs(events)).numpy(), rows[1:-1] @ weights, rtol=1e-4, atol=1e-6
    )


def test_slist_is_a_ridge_regression_on_what_is_together_and_on_what_came_before():
    events, alpha, past, future, request = known(), 0.3, 2.0, 3.0, 4.0
    x, y, weight = [*binary(events)], [*binary(events)], [alpha] * events.user_count
    for sequence in events.sequences:
        for cut in range(1, len(sequence)):
            before, after = np.zeros(ITEMS), np.zeros(ITEMS)
            for at, item in enumerate(sequence):
                if at < cut:
                    before[item] = np.exp(-(cut - 1 - at) / past)
                else:
                    after[item] = np.exp(-(at - cut) / future)
            x.append(before)
            y.append(after)
            weight.append(1 - alpha)
    x, y, weight = np.array(x), np.array(y), np.array(weight)[:, np.newaxis]
    weights = np.zeros((ITEMS, ITEMS))
    for target in range(ITEMS):
        others = [i for i in range(ITEMS) if i != target]
        own = x[:, others]
        left = own.T @ (weight * own) + 1.5 * np.eye(len(others))
        weights[others, target] = np.linalg.solve(left, own.T @ (weight[:, 0] * y[:, target]))
    config = SLIST(type="slist", l2=1.5, alpha=alpha, past_decay=past, future_decay=future, request_decay=request)
    model = fitted(config, events)
    np.testing.assert_allclose(model._weights.numpy(), weights, rtol=2e-2, atol=2e-3)  # exp(-6) is left out
    asked = np.zeros((len(events.sequences), ITEMS))
    for row, sequence in enumerate(events.sequences):
        for at, item in enumerate(sequence):
            asked[row, item] = np.exp(-(len(sequence) - 1 - at) / request)
    expected = asked @ model._weights.numpy()
    np.testing.assert_allclose(model.catalogue_scores(inputs(events)).numpy(), expected, rtol=1e-4, atol=1e-6)


def test_ials_lowers_its_loss_and_a_request_gets_the_vector_that_training_would_solve():
    events = known()
    rows = binary(events)
    config = IALS(type="ials", dim=3, l2=0.05, unobserved=0.2, sweeps=1)

    def loss(model):
        users = model.user_vectors(inputs(events)).numpy().astype(np.float64)
        items = model.item_vectors.numpy().astype(np.float64)
        scores, met = users @ items.T, rows[1:-1]
        penalties = [
            (0.05 * (met.sum(axis=1 - axis) + 0.2 * met.shape[1 - axis]) * (v**2).sum(axis=1)).sum()
            for axis, v in enumerate((users, items))
        ]
        return (met * (scores - 1) ** 2).sum() + 0.2 * (scores**2).sum() + sum(penalties)

    losses = [loss(fitted(config.model_copy(update={"sweeps": n}), events)) for n in (1, 3, 10)]
    assert losses[0] > losses[1] > losses[2]
    model = fitted(config.model_copy(update={"sweeps": 200}), events)
    users = model.user_vectors(inputs(events)).numpy().astype(np.float64)
    for row, met in enumerate(rows[1:-1]):
        items = model.item_vectors.numpy().astype(np.float64)
        left = items.T @ np.diag(met + 0.2) @ items + 0.05 * (met.sum() + 0.2 * ITEMS) * np.eye(3)
        np.testing.assert_allclose(users[row], np.linalg.solve(left, items.T @ met), rtol=1e-3, atol=1e-5)
    # Nothing moves any more: the items' vectors are the best for the users'.
    import scipy.sparse

    again = model.solved(scipy.sparse.csr_matrix(rows[1:-1].T), users)
    np.testing.assert_allclose(again, model.item_vectors.numpy(), rtol=2e-2, atol=2e-3)


def test_without_a_sequence_the_past_is_the_training_splits():
    events = known()
    with_past = fitted(EASE(type="ease"), events)
    features = [f for f in FEATURES if f.name != "past"]
    without = fitted(EASE(type="ease"), events, features)
    asked = {name: x for name, x in inputs(events).items() if name != "past"}
    expected = with_past.catalogue_scores(inputs(events)).numpy()
    np.testing.assert_allclose(without.catalogue_scores(asked).numpy(), expected, rtol=1e-5, atol=1e-7)
    stranger = {"user": tf.zeros([1], tf.int64), "item": tf.ones([1], tf.int64)}
    np.testing.assert_array_equal(without.catalogue_scores(stranger).numpy(), 0.0)


def test_the_logit_of_a_row_is_the_score_of_its_item_and_0_of_an_unknown_one():
    events = known()
    model = fitted(EASE(type="ease"), events)
    asked = inputs(events) | {"item": tf.constant([1, ITEMS, 0, ITEMS + 1] * 3, tf.int64)}
    scores, logits = model.catalogue_scores(asked).numpy(), model(asked).numpy()
    for row, item in enumerate(asked["item"].numpy()):
        assert logits[row] == (scores[row, item - 1] if 1 <= item <= ITEMS else 0.0)


def test_more_items_than_memory_are_refused_with_what_to_do():
    features = [
        TransformedFeature("user", "user", 9, oov=(8, 9), hideable=True),
        TransformedFeature("item", "item", 300_002, oov=(300_001, 300_002), hideable=True),
    ]
    with pytest.raises(MissingFeatureError, match=r"model ease: keeps 300,000 by 300,000 .*max_gib: 4.*ials"):
        build_model(EASE(type="ease"), features)


@pytest.mark.parametrize(
    "config", [ItemKNN(type="item_knn"), EASE(type="ease"), SLIST(type="slist"), IALS(type="ials", dim=2)]
)
def test_one_user_with_one_event_and_one_who_has_seen_all(config):
    one = Interactions(np.array([1]), np.array([0]), np.ones(1), 14, ITEMS, [np.array([0])], np.array([1]))
    everything = np.arange(ITEMS)
    all_seen = Interactions(np.ones(ITEMS, int), everything, np.ones(ITEMS), 14, ITEMS, [everything], np.array([1]))
    for events in (one, all_seen):
        model = fitted(config, events)
        assert np.isfinite(model.catalogue_scores(inputs(events)).numpy()).all()
        ids, logits = model.retrieve(inputs(events))  # top_k is far above the number of items
        assert ids.shape == logits.shape == (1, ITEMS)


def test_no_positive_event_is_an_error():
    with pytest.raises(ValueError, match="needs a positive event of a known item"):
        Interactions(np.zeros(0, int), np.zeros(0, int), np.zeros(0), 3, ITEMS)


def test_slist_needs_the_order_of_events():
    with pytest.raises(MissingFeatureError, match="model slist: needs a feature of kind sequence of item"):
        build_model(SLIST(type="slist"), [f for f in FEATURES if f.name != "past"])


@pytest.mark.parametrize(("alpha", "epsilon"), [(0.5, None), (2.0, 3.0)])
def test_ials_with_weights_solves_for_their_confidence(alpha, epsilon):
    events = known()
    plays = np.random.default_rng(2).integers(1, 50, len(events.users)).astype(float)
    config = IALS(type="ials", dim=3, l2=0.05, unobserved=0.2, sweeps=1, alpha=alpha, epsilon=epsilon)
    tf.random.set_seed(7)
    model = build_model(config, FEATURES)
    model.fit_to(replace(events, weights=plays), weighted=True)
    confidence = np.zeros((USERS, ITEMS))
    for user, item, count in zip(events.users, events.items, plays, strict=True):
        confidence[user - 1, item] = 1 + alpha * (count if epsilon is None else np.log(1 + count / epsilon))

    def slowly(weights, others):
        found = np.zeros((len(weights), 3))
        for row, of in enumerate(weights):
            left = np.zeros((3, 3))
            for other, weight in zip(others, of, strict=True):
                left += (0.2 + weight) * np.outer(other, other)
            left += 0.05 * ((of > 0).sum() + 0.2 * len(others)) * np.eye(3)
            found[row] = np.linalg.solve(left, sum(w * o for w, o in zip(of, others, strict=True)))
        return found

    tf.random.set_seed(7)
    start = tf.random.normal([ITEMS, 3], stddev=0.1 / np.sqrt(3)).numpy()
    items = slowly(confidence.T, slowly(confidence, start))
    np.testing.assert_allclose(model.item_vectors.numpy(), items, rtol=1e-3, atol=1e-5)
    # A request's past says no weights: its items have the median confidence.
    asked = np.median(confidence[confidence > 0])
    users = slowly((confidence > 0) * asked, model.item_vectors.numpy().astype(np.float64))
    np.testing.assert_allclose(model.user_vectors(inputs(events)).numpy(), users, rtol=1e-3, atol=1e-5)
