"""The indexes against numpy's full sort."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from models.layers import index
from models.layers.index import ExactIndex, InvertedIndex, best, in_blocks, k_means, nearest, with_norm


def sorted_best(scores, k):
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, axis=1), order


@settings(max_examples=60)
@given(
    n=st.integers(1, 400),
    rows=st.integers(1, 3),
    k=st.integers(1, 450),
    values=st.integers(1, 1000),
    seed=st.integers(0, 9),
)
def test_the_best_are_those_of_a_full_sort_and_of_equal_ones_the_first(n, rows, k, values, seed):
    # Few values: most scores are equal to others.
    scores = np.random.default_rng(seed).integers(-values, values, (rows, n)).astype(np.float32)
    found, places = best(tf.constant(scores), k)
    expected, order = sorted_best(scores, k)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(places, order)


@pytest.mark.parametrize("n", [1, 63, 64, 65, 5000])
@pytest.mark.parametrize("k", [1, 10, 100])
def test_the_exact_index_finds_the_largest_products(n, k):
    draw = np.random.default_rng(n)
    vectors = -np.abs(draw.standard_normal((n, 8))).astype(np.float32)  # all products negative: below what fills up
    query = np.abs(draw.standard_normal((5, 8))).astype(np.float32)
    scores, places = tf.function(ExactIndex(vectors).search)(tf.constant(query), tf.constant(k))
    expected, order = sorted_best(query @ vectors.T, k)
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    np.testing.assert_array_equal(places, order)


def test_a_batch_too_large_at_once_is_searched_in_blocks(monkeypatch):
    draw = np.random.default_rng(1)
    vectors, query = draw.standard_normal((300, 4)).astype(np.float32), draw.standard_normal((7, 4)).astype(np.float32)
    monkeypatch.setattr(index, "_SCORES_AT_ONCE", 600)
    scores, places = tf.function(ExactIndex(vectors).search)(tf.constant(query), 5)
    expected, order = sorted_best(query @ vectors.T, 5)
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    np.testing.assert_array_equal(places, order)


def clustered(n, dim, clusters, seed=0):
    draw = np.random.default_rng(seed)
    centres = draw.standard_normal((clusters, dim)) * 2
    return (centres[draw.integers(clusters, size=n)] + draw.standard_normal((n, dim))).astype(np.float32)


def test_inverted_lists_find_most_of_the_best_and_all_of_them_with_every_list():
    vectors = clustered(4000, 8, 20)
    query = clustered(20, 8, 20)
    _, order = sorted_best(query @ vectors.T, 10)
    some = tf.function(InvertedIndex(vectors, lists=64, probes=8).search)
    scores, places = some(tf.constant(query), tf.constant(10))
    assert np.mean([len(set(a) & set(b)) for a, b in zip(places.numpy(), order, strict=True)]) >= 9
    np.testing.assert_allclose(scores, np.take_along_axis(query @ vectors.T, places.numpy(), axis=1), rtol=1e-4)
    _, every = InvertedIndex(vectors, lists=64, probes=64).search(tf.constant(query), 10)
    assert all(set(a) == set(b) for a, b in zip(every.numpy(), order, strict=True))


def test_inverted_lists_give_as_many_as_asked_for_while_there_are_any():
    vectors = clustered(50, 3, 5)
    found = InvertedIndex(vectors, lists=25, probes=1)
    for k, expected in ((1, 1), (20, 20), (50, 50), (80, 50)):
        _, places = found.search(tf.constant(vectors[:3]), k)
        assert places.shape == [3, expected]
        assert all(len(set(row)) == expected for row in places.numpy())


def test_one_vector_is_an_index():
    for made in (ExactIndex(np.ones((1, 2), np.float32)), InvertedIndex(np.ones((1, 2), np.float32))):
        scores, places = made.search(tf.constant([[1.0, 2.0]]), 10)
        assert (scores.numpy().tolist(), places.numpy().tolist()) == ([[3.0]], [[0]])


def test_the_nearest_lengthened_vector_has_the_largest_product():
    draw = np.random.default_rng(3)
    vectors, query = draw.standard_normal((200, 5)), draw.standard_normal((30, 5))
    lengthened = np.append(query, np.zeros((30, 1)), axis=1)
    distance = np.square(with_norm(vectors)[np.newaxis] - lengthened[:, np.newaxis]).sum(axis=2)
    np.testing.assert_array_equal(distance.argmin(axis=1), (query @ vectors.T).argmax(axis=1))


def test_centroids_settle_where_the_vectors_are():
    vectors = np.repeat(np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]], np.float32), 100, axis=0)
    vectors += np.random.default_rng(0).standard_normal(vectors.shape).astype(np.float32) * 0.1
    centroids = k_means(vectors, 12, seed=1)
    distance = np.sqrt(np.square(vectors - centroids[nearest(vectors, centroids)]).sum(axis=1))
    assert distance.mean() < 0.2


def test_blocks_join_what_they_give():
    def double(x):
        return x * 2, tf.reduce_sum(x, axis=1)

    values = tf.reshape(tf.range(21), [7, 3])
    specs = [tf.TensorSpec([None, 3], tf.int32), tf.TensorSpec([None], tf.int32)]
    for rows in (2, 7, 100):
        doubled, sums = tf.function(lambda v, r=rows: in_blocks(double, [v], r, specs))(values)
        np.testing.assert_array_equal(doubled, values.numpy() * 2)
        np.testing.assert_array_equal(sums, values.numpy().sum(axis=1))
