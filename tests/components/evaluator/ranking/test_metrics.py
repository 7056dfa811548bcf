"""Ranking metrics against their definitions, counted by hand and by a slow reference."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.evaluator.ranking.metrics import (
    Popularity,
    coverage,
    mean_and_error,
    metric_title,
    names,
    overlap,
    ranking_metrics,
)

EVEN = Popularity.of(np.ones(10, int))


def test_one_user_by_hand():
    """Places 2 and 4 of five are hits, one held-out item is not shown and one is no candidate."""
    lists = np.array([[7, 3, 1, 5, 0]])
    found = ranking_metrics(np.zeros(4, int), np.array([3, 5, 9, -1]), lists, [2, 5], EVEN)
    assert found["recall@5"] == 2 / 4
    assert found["recall@2"] == 1 / 4
    ideal = sum(1 / math.log2(p + 1) for p in (1, 2, 3, 4))
    assert found["ndcg@5"] == pytest.approx((1 / math.log2(3) + 1 / math.log2(5)) / ideal)
    assert found["ndcg@2"] == pytest.approx((1 / math.log2(3)) / (1 + 1 / math.log2(3)))
    assert (found["hit_rate@2"], found["mrr@2"]) == (1, 0.5)
    assert found["coverage@2"] == 2 / 10
    assert (found["ranked_users"], found["held_out"], found["reachable"]) == (1, 4, 0.75)


def test_users_count_alike_and_a_miss_is_zero():
    lists = np.array([[0, 1], [2, 3], [-1, -1]])
    users, items = np.array([0, 1, 1, 1, 2]), np.array([0, 4, 5, 6, 0])
    found = ranking_metrics(users, items, lists, [2], EVEN)
    for metric in ("recall@2", "ndcg@2", "hit_rate@2", "mrr@2"):
        assert found[metric] == pytest.approx(1 / 3), metric
    assert found["coverage@2"] == 0.4


def test_novelty_in_bits_and_the_share_of_popular_items():
    popularity = Popularity.of(np.array([8, 4, 2, 1, 1]))
    lists = np.array([[0, 1], [3, 4], [2, -1]])
    found = ranking_metrics(np.arange(3), np.array([0, 0, 0]), lists, [2], popularity)
    assert found["novelty@2"] == pytest.approx(((1 + 2) / 2 + 4 + 3) / 3)
    assert found["popular_share@2"] == pytest.approx((0.5 + 0 + 0) / 3)  # a fifth of five items: the first


def reference(users, items, lists, k):
    """The definitions, one user at a time."""
    rows = []
    for user in range(len(lists)):
        relevant = [i for u, i in zip(users, items, strict=True) if u == user]
        shown = [i for i in lists[user][:k] if i >= 0]
        hits = [i in relevant for i in shown]
        dcg = sum(hit / math.log2(place + 2) for place, hit in enumerate(hits))
        ideal = sum(1 / math.log2(place + 2) for place in range(min(k, len(relevant))))
        first = next((1 / (place + 1) for place, hit in enumerate(hits) if hit), 0.0)
        rows.append((sum(hits) / len(relevant), dcg / ideal, float(any(hits)), first))
    return np.mean(rows, axis=0)


@settings(max_examples=80)
@given(st.data())
def test_many_users_as_the_slow_reference_has_them(data):
    draw = np.random.default_rng(data.draw(st.integers(0, 1000)))
    users_count, items_count = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 12))
    k = data.draw(st.integers(1, 6))
    width = max(k, 1)
    lists = np.full((users_count, width), -1)
    for row in lists:
        shown = draw.permutation(items_count)[: draw.integers(0, min(items_count, width) + 1)]
        row[: len(shown)] = shown
    users, items = [], []
    for user in range(users_count):
        held = draw.permutation(items_count)[: draw.integers(1, items_count + 1)]
        held = [*held, -1] if draw.random() < 0.3 else held
        users += [user] * len(held)
        items += list(held)
    found = ranking_metrics(np.array(users), np.array(items), lists, [k], Popularity.of(np.ones(items_count, int)))
    assert [found[f"{m}@{k}"] for m in ("recall", "ndcg", "hit_rate", "mrr")] == pytest.approx(
        reference(users, items, lists, k)
    )


def test_the_shared_part_of_two_lists():
    lists = np.array([[0, 1, 2], [3, 4, 5], [-1, -1, -1]])
    others = np.array([[2, 1, 0], [3, 9, 8], [1, 2, 3]])
    np.testing.assert_allclose(overlap(lists, others, 3), [1, 1 / 3, 0])
    np.testing.assert_allclose(overlap(lists, others, 2), [0.5, 0.5, 0])


def test_who_lacks_a_value_is_left_out_of_the_mean():
    mean, error, count = mean_and_error(np.array([1.0, 3.0, np.nan]))
    assert (mean, count) == (2.0, 2)
    assert error == pytest.approx(math.sqrt(2) / math.sqrt(2))
    assert mean_and_error(np.array([np.nan]))[2] == 0
    assert coverage(np.full((2, 2), -1), 2, 5) == 0


def test_names_have_a_k():
    assert names([100, 10])[:2] == ["ndcg@10", "recall@10"]
    assert [metric_title(name) for name in names([100, 10])[:2]] == ["NDCG@10", "Recall@10"]
    assert "coverage@100" not in names([100, 10])
