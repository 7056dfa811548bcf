"""The best items for users against a full sort in numpy, by retrieval, by a ranker, and by both."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.features import RawColumn
from models.layers.index import best
from models.recommend import best_items
from models.recommend.best_items import BestItems, Items

COUNT = 30
COLUMNS = {
    "user": RawColumn("user", "string", "user", None, ""),
    "hour": RawColumn("hour", "int64", "context", None, 7),
    "recent": RawColumn("recent", "string", "user", None, "", 3),
    "item": RawColumn("item", "string", "item", None, ""),
    "price": RawColumn("price", "float", "item", None, float("nan")),
}
PRICES = np.random.default_rng(0).permutation(COUNT).astype(float)
ITEMS = Items.in_fixed_order(
    [f"i{i:02d}" for i in range(COUNT)],
    {"item": [f"i{i:02d}" for i in range(COUNT)], "price": list(PRICES)},
    [1] * COUNT,
)


def number(text):
    return tf.strings.to_number(tf.strings.regex_replace(text, "^$|[a-zé]+", "0"))


def ranker(columns):
    """A score that needs the user's, the context's and both of the item's columns."""
    recent = tf.reduce_sum(number(columns["recent"]), axis=1)
    salted = tf.cast(tf.strings.to_hash_bucket_fast(columns["item"] + columns["user"], 1000), tf.float32)
    return salted + columns["price"] / 100 + recent + tf.cast(columns["hour"], tf.float32)


def retrieval(columns, k):
    """Finds the dear ones, for any user."""
    prices = tf.constant(np.array(list(ITEMS.columns["price"]), np.float32))
    return best(tf.repeat(prices[tf.newaxis], tf.shape(columns["user"])[0], axis=0), k)


def asked(users, **more):
    return {"user": tf.constant(users), "recent": tf.constant([["1", "2", ""]] * len(users)), **more}


def recommend(module, users, **more):
    found = tf.function(module.__call__, autograph=False)(**asked(users, **more))
    return found["items"].numpy().astype(str), found["scores"].numpy(), found["counts"].numpy()


def slow(user, among, k, exclude=()):
    """Score one by one and sort."""
    left = [i for i in among if i not in exclude]
    prices = dict(zip(ITEMS.ids, ITEMS.columns["price"], strict=True))
    columns = {
        "user": tf.constant([user] * len(left)),
        "recent": tf.constant([["1", "2", ""]] * len(left)),
        "hour": tf.constant([7] * len(left), tf.int64),
        "item": tf.constant(left),
        "price": tf.constant([prices[i] for i in left], tf.float32),
    }
    scores = ranker(columns).numpy()
    order = np.argsort(-scores, kind="stable")[:k]
    return [left[i] for i in order], scores[order]


def made(**parts):
    return BestItems(COLUMNS, ITEMS, **{"retrieval": None, "ranker": None, "candidates": 8, **parts})


def test_a_ranker_alone_scores_every_item(monkeypatch):
    monkeypatch.setattr(best_items, "PAIRS_AT_ONCE", 37)  # so that blocks end within users
    items, scores, counts = recommend(made(ranker=ranker), ["ann", "bob", "é"], k=tf.constant([4], tf.int64))
    for user, row, score in zip(["ann", "bob", "é"], items, scores, strict=True):
        expected, values = slow(user, list(ITEMS.ids), 4)
        assert row.tolist() == expected
        np.testing.assert_allclose(score, values)
    assert counts.tolist() == [4, 4, 4]


def test_the_ranker_orders_what_retrieval_finds():
    items, scores, _ = recommend(made(retrieval=retrieval, ranker=ranker), ["ann", "bob"], k=tf.constant([3], tf.int64))
    dear = list(ITEMS.ids[np.argsort(-ITEMS.columns["price"].astype(float))[:8]])
    for user, row, score in zip(["ann", "bob"], items, scores, strict=True):
        expected, values = slow(user, dear, 3)
        assert row.tolist() == expected
        np.testing.assert_allclose(score, values)


def test_what_is_left_out_makes_room_for_others():
    """Excluding the eight dearest, the candidates are the next eight."""
    order = ITEMS.ids[np.argsort(-ITEMS.columns["price"].astype(float))]
    module = made(retrieval=retrieval, ranker=ranker)
    exclude = tf.constant([[*order[:8], "unknown", "", order[0]]])
    items, *_ = recommend(module, ["ann"], k=tf.constant([8], tf.int64), exclude=exclude)
    assert set(items[0]) == set(order[8:16])
    alone, scores, _ = recommend(made(retrieval=retrieval), ["ann"], exclude=exclude)
    assert alone[0].tolist() == list(order[8:18])  # k is 10 where a request does not say
    assert (np.diff(scores[0]) < 0).all()


@settings(max_examples=25)
@given(st.data())
def test_users_may_ask_for_different_numbers_and_exclude_different_items(data):
    kind = data.draw(st.sampled_from(["ranker", "retrieval", "both"]))
    parts = {"ranker": ranker} if kind != "retrieval" else {}
    parts |= {"retrieval": retrieval, "candidates": 100} if kind != "ranker" else {}
    users = data.draw(st.lists(st.sampled_from(["ann", "bob", "cy"]), min_size=1, max_size=4))
    k = [data.draw(st.integers(1, 40)) for _ in users]
    exclude = [data.draw(st.lists(st.sampled_from([*ITEMS.ids, "?"]), max_size=35)) for _ in users]
    width = max(map(len, exclude)) or 1
    padded = tf.constant([[*row, *[""] * (width - len(row))] for row in exclude])
    items, scores, counts = recommend(made(**parts), users, k=tf.constant(k, tf.int64), exclude=padded)
    for row, user in enumerate(users):
        left = COUNT - len(set(exclude[row]) - {"?"})
        assert counts[row] == min(k[row], left)
        shown = items[row][: counts[row]].tolist()
        assert len(set(shown)) == len(shown)
        assert not set(shown) & set(exclude[row])
        assert not items[row][counts[row] :].any()
        assert not scores[row][counts[row] :].any()
        if kind != "retrieval":
            assert shown == slow(user, list(ITEMS.ids), k[row], exclude[row])[0]
    assert items.shape == scores.shape == (len(users), max(counts))


@pytest.mark.parametrize("k", [0, -3])
def test_a_k_below_one_is_refused(k):
    with pytest.raises(tf.errors.InvalidArgumentError, match="k: expected 1 or more"):
        recommend(made(ranker=ranker), ["ann"], k=tf.constant([k], tf.int64))


def test_one_item_and_nothing_left():
    one = Items.in_fixed_order(["only"], {"item": ["only"], "price": [1.0]}, [3])
    module = BestItems(COLUMNS, one, None, ranker, 5)
    items, _, counts = recommend(module, ["ann"], k=tf.constant([10], tf.int64))
    assert (items.tolist(), counts.tolist()) == ([["only"]], [1])
    items, scores, counts = recommend(module, ["ann"], exclude=tf.constant([["only"]]))
    assert (items.shape, scores.shape, counts.tolist()) == ((1, 0), (1, 0), [0])


def test_of_items_that_score_alike_no_order_that_means_something_decides():
    ids = [f"{i:03d}" for i in range(200)]
    first = Items.in_fixed_order(ids, {}, list(range(200, 0, -1)))
    again = Items.in_fixed_order(ids[::-1], {}, list(range(1, 201)))
    assert first.ids.tolist() == again.ids.tolist()  # whatever order they came in
    assert abs(np.corrcoef(np.arange(200), first.events)[0, 1]) < 0.2
