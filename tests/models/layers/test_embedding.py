"""Tables: what they look up, that a step touches no other row, and vectors for cold ids."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from configs.model import FM, DeepFM, Fallback, Tables, Training
from models.layers.embedding import FieldEmbedding
from models.layers.hide_ids import HideIds
from models.layers.rows import put_rows, rows_of, rows_once
from models.registry import build_model
from models.training.context import WorkerContext
from models.training.optimizers import LazyAdam, RowwiseAdagrad, rows_seen
from models.training.steps import Steps
from transforms.transformed import PADDING, TransformedFeature

USER = TransformedFeature("user", "user", 1000, oov=(990, 1000), hideable=True)
ITEM = TransformedFeature("item", "item", 500, oov=(495, 500), hideable=True)
TAGS = TransformedFeature("tags", "item", 20, multivalued=True)


def batch(seed: int, size: int = 32, tags: int = 3):
    random = np.random.default_rng(seed)
    features = {
        "user": tf.constant(random.integers(0, 200, size)),
        "item": tf.constant(random.integers(0, 100, size)),
        "tags": tf.constant(random.integers(-1, 20, [size, tags])),
    }
    return features, tf.constant(random.integers(0, 2, size).astype(np.float32))


def looked_up(seed: int) -> dict[str, set[int]]:
    return {name: set(ids.numpy().ravel()) - {PADDING} for name, ids in batch(seed)[0].items()}


@pytest.mark.parametrize("optimizer", ["adam", "adagrad", "rowwise_adagrad"])
def test_a_step_touches_the_rows_it_looked_up_and_no_other(optimizer):
    """With L2 on: what was not in the batch costs nothing and stays, bit for bit, moments and all."""
    tf.keras.utils.set_random_seed(1)
    config = Training(tables=Tables(optimizer=optimizer, learning_rate=0.1))
    model = DeepFM(type="deepfm", embedding_dim=4, hidden=[8], l2=0.1)
    steps = Steps(lambda: build_model(model, [USER, ITEM, TAGS]), config, batch(0), WorkerContext())
    (layer,) = [layer for layer in steps.model.submodules if isinstance(layer, FieldEmbedding) and layer._dim == 4]
    (rows,) = {t.variable.ref(): t.variable for t in layer.tables.values()}.values()
    slots = [v for v in steps.table_optimizer.variables() if v.shape[:1] == rows.shape[:1]]
    before, before_slots = rows.numpy(), [v.numpy() for v in slots]
    data = tf.data.Dataset.from_tensors(batch(3)).repeat()
    # Gradients begin so small that a sum of squares which starts at 0.1 does not show the first ones.
    steps.run(iter(data), tf.constant(60))
    touched = {layer.tables[name].start + i for name, ids in looked_up(3).items() for i in ids}
    changed = np.any(rows.numpy() != before, axis=1)
    assert set(np.flatnonzero(changed)) == touched
    for old, new in zip(before_slots, slots, strict=True):
        assert set(np.flatnonzero(np.any(new.numpy() != old, axis=1))) <= touched
    for name, ids in looked_up(3).items():
        table = layer.tables[name]
        assert rows_seen(steps.table_optimizer, table.variable, table.start, table.rows) == len(ids)


def test_lazy_adam_is_adam_on_rows_that_every_step_looks_up():
    table = tf.Variable(np.random.default_rng(1).normal(size=[6, 3]).astype(np.float32))
    other = tf.Variable(table.numpy())
    lazy, dense = LazyAdam(0.05), keras.optimizers.legacy.Adam(0.05)
    for step in range(5):
        values = np.random.default_rng(step).normal(size=[6, 3]).astype(np.float32)
        lazy.apply_gradients([(tf.IndexedSlices(values, tf.range(6), table.shape), table)])
        dense.apply_gradients([(tf.constant(values), other)])
    np.testing.assert_allclose(table.numpy(), other.numpy(), rtol=1e-5)


def test_rowwise_adagrad_follows_its_formula():
    rng = np.random.default_rng(2)
    table = tf.Variable(rng.normal(size=[5, 4]).astype(np.float32))
    expected, accumulator = table.numpy().astype(np.float64), np.full(5, 0.1)
    optimizer = RowwiseAdagrad(0.3)
    for _ in range(3):
        ids, values = rng.integers(0, 5, 7), rng.normal(size=[7, 4]).astype(np.float32)
        (once,) = rows_once([tf.IndexedSlices(values, ids, table.shape)])
        optimizer.apply_gradients([(once, table)])
        for row in set(ids):
            gradient = values[ids == row].sum(axis=0)
            accumulator[row] += np.mean(gradient**2)
            expected[row] -= 0.3 * gradient / (np.sqrt(accumulator[row]) + 1e-7)
    np.testing.assert_allclose(table.numpy(), expected, rtol=1e-4)


def test_a_strategy_reads_and_writes_the_rows_asked_for_and_not_the_table():
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        table = tf.Variable(np.arange(12, dtype=np.float32).reshape(6, 2))
    assert isinstance(table, tf.distribute.DistributedValues)

    @tf.function
    def negate(ids):
        strategy.run(lambda: put_rows(table, ids, -rows_of(table, ids)))

    ids = tf.constant([4, 1], tf.int64)
    negate(ids)
    np.testing.assert_array_equal(table.numpy()[:, 1], [1, -3, 5, 7, -9, 11])
    assert "ReadVariableOp" not in {op.type for op in negate.get_concrete_function(ids).graph.get_operations()}
    np.testing.assert_array_equal(rows_of(table, ids).numpy(), [[-8, -9], [-2, -3]])


def test_tables_looked_up_with_the_same_ids_share_one_search():
    """Whether in one tensor or in two that a graph computes alike; others, and eager ones, are apart."""
    rng = np.random.default_rng(3)
    ids, values = rng.integers(0, 9, 30), [rng.normal(size=[30, dim]).astype(np.float32) for dim in (1, 4, 2, 3)]

    @tf.function
    def once(ids):
        asked = [ids + 2, ids + 2, ids + 3, ids + tf.random.uniform([30], 0, 2, tf.int64)]
        found = rows_once([tf.IndexedSlices(v, i) for v, i in zip(values, asked, strict=True)])
        assert found[0].indices is found[1].indices
        assert len({id(f.indices) for f in found}) == 3
        return [(f.indices, f.values) for f in found]

    for (rows, added), given, start in zip(once(tf.constant(ids)), values[:3], (2, 2, 3), strict=False):
        assert sorted(rows.numpy()) == sorted(set(ids + start))
        for row, total in zip(rows.numpy(), added.numpy(), strict=True):
            np.testing.assert_allclose(total, given[ids + start == row].sum(axis=0), rtol=1e-4, atol=1e-5)


def embed(features, inputs, dim=4, **how):
    tf.keras.utils.set_random_seed(1)
    layer = FieldEmbedding(features, dim, **how)
    return layer, layer({name: tf.constant(value) for name, value in inputs.items()}).numpy()


def test_quotient_and_remainder_make_a_vector_of_two_rows():
    f = TransformedFeature("user", "user", 1000, quotient_remainder=30)
    ids = np.array([0, 29, 30, 999, 31])
    layer, vectors = embed([f], {"user": ids})
    rows = layer.tables["user"].numpy()
    assert len(rows) == f.rows == 34 + 30
    np.testing.assert_allclose(vectors[:, 0], rows[ids // 30] * (1 + rows[34 + ids % 30]), rtol=1e-6)
    assert len({tuple(v) for v in embed([f], {"user": np.arange(1000)})[1][:, 0].round(9)}) == 1000


def test_shared_tables_are_one_table():
    liked = TransformedFeature("liked", "user", 500, multivalued=True, table="item")
    layer, vectors = embed([ITEM, liked], {"item": np.array([7, 8]), "liked": np.array([[7, PADDING], [7, 8]])})
    assert layer.tables["liked"] == layer.tables["item"]
    assert layer.tables["item"].variable.shape[0] == 1 + 500
    np.testing.assert_allclose(vectors[0, 1], vectors[0, 0])
    np.testing.assert_allclose(vectors[1, 1], (vectors[0, 0] + vectors[1, 0]) / 2, rtol=1e-6)


def test_cold_ids_have_the_vector_that_was_asked_for():
    inputs = {"item": np.array([3, 497, 499]), "tags": np.array([[1, 2], [1, PADDING], [4, 5]])}
    zero = TransformedFeature("item", "item", 500, oov=(495, 500), hideable=True, cold="zero")
    _, vectors = embed([zero, TAGS], inputs)
    assert (vectors[1:, 0] == 0).all()
    assert (vectors[0, 0] != 0).any()
    mean = TransformedFeature("item", "item", 500, oov=(495, 500), hideable=True, cold="mean")
    layer, _ = embed([mean, TAGS], inputs)
    layer.settle()
    rows = layer.tables["item"].numpy()
    np.testing.assert_allclose(rows[495:], np.tile(rows[1:495].mean(axis=0), [5, 1]), rtol=1e-4)
    content = TransformedFeature("item", "item", 500, oov=(495, 500), hideable=True, cold="content")
    layer, vectors = embed([content, TAGS], inputs)
    projection = layer._contents["item"].numpy()
    np.testing.assert_allclose(vectors[1:, 0], vectors[1:, 1] @ projection, rtol=1e-4)
    np.testing.assert_allclose(vectors[0, 0], layer.tables["item"].numpy()[3], rtol=1e-6)


def test_content_learns_what_an_unknown_item_is_like():
    """Items of odd tags are liked; an item never seen is judged by its tag, since known ids were hidden in training."""
    item = TransformedFeature("item", "item", 500, oov=(495, 500), hideable=True, cold="content")
    random = np.random.default_rng(1)
    items = random.integers(1, 400, 4000)
    features = {"item": items, "tags": (items % 10)[:, None]}
    labels = (items % 2).astype(np.float32)
    tf.keras.utils.set_random_seed(1)
    config = Training(learning_rate=0.02)
    model = FM(type="fm", embedding_dim=4, id_dropout=0.3)
    data = tf.data.Dataset.from_tensor_slices((features, labels)).batch(200).repeat()
    steps = Steps(lambda: build_model(model, [item, TAGS]), config, next(iter(data)), WorkerContext())
    steps.run(iter(data), tf.constant(200))
    unknown = {"item": tf.constant([497, 497], tf.int64), "tags": tf.constant([[3], [4]], tf.int64)}
    liked, not_liked = steps.model(unknown, training=False).numpy()
    assert liked > 1 > -1 > not_liked


def test_an_id_hashed_twice_is_hidden_whole():
    twice = TransformedFeature("user", "user", 50, multivalued=True, oov=(0, 1), hideable=True)
    tf.keras.utils.set_random_seed(1)
    ids = HideIds([twice], 0.5)({"user": tf.ones([1000, 2], tf.int64)}, training=True)["user"].numpy()
    assert set(map(tuple, ids)) == {(0, 0), (1, 1)}
    assert 0.4 < (ids[:, 0] == 0).mean() < 0.6


CROSS = TransformedFeature("user_tag", "context", 90, crossed=True, ids=("user",))
RECENT = TransformedFeature("recent", "user", 500, multivalued=True, oov=(495, 500), sequence_of="item", length=4,
                            ids=("item",))  # fmt: skip


def test_what_gives_a_hidden_id_away_is_hidden_with_it():
    tf.keras.utils.set_random_seed(3)
    rows = 4000
    known = {
        "user": tf.fill([rows], tf.constant(7, tf.int64)),
        "item": tf.fill([rows], tf.constant(8, tf.int64)),
        "user_tag": tf.fill([rows], tf.constant(89, tf.int64)),
        "recent": tf.tile(tf.constant([[8, 9, 10, PADDING]], tf.int64), [rows, 1]),
    }
    hidden = {k: v.numpy() for k, v in HideIds([USER, ITEM, CROSS, RECENT], 0.25)(known, training=True).items()}
    unknown = hidden["user"] >= 990
    assert unknown.mean() == pytest.approx(0.25, abs=0.03)
    assert set(hidden["user_tag"][~unknown]) == {89}
    assert (hidden["user_tag"][unknown] == 89).mean() < 0.1
    events = hidden["recent"][:, :3]
    assert (events >= 495).mean() == pytest.approx(0.25, abs=0.03)
    assert set(hidden["recent"][:, 3]) == {PADDING}
    alone = HideIds([CROSS], 0.25)({"user_tag": known["user_tag"]}, training=True)["user_tag"].numpy()
    assert (alone != 89).mean() == pytest.approx(0.25, abs=0.03), "also where the id itself is left out of the model"


def test_a_content_model_is_built_without_anything_that_gives_an_id_away():
    features = [USER, ITEM, TAGS, CROSS, RECENT]
    config = Fallback.model_validate({"type": "fallback", "known": {"type": "fm"}, "content": {"type": "fm"}})
    model = build_model(config, features)
    inputs = {f.name: tf.zeros([2, 4] if f.multivalued else [2], tf.int64) for f in features}
    model(inputs)
    tables = {name for layer in model._content.submodules if isinstance(layer, FieldEmbedding) for name in layer.tables}
    assert tables == {"tags"}


def test_the_penalty_is_on_a_number_s_vector_and_not_on_the_number():
    number = TransformedFeature("price", "item", 0)
    penalties = []
    for value in (1.0, 100.0):
        tf.keras.utils.set_random_seed(5)
        layer = FieldEmbedding([number], 4, l2=0.1)
        layer({"price": tf.fill([8], value)})
        penalties.append(float(layer.losses[0]))
    assert penalties[0] > 0
    assert penalties[1] == pytest.approx(penalties[0])
