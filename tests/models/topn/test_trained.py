"""Models trained by steps, against slow references in NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from configs.model import BPR, BERT4Rec, Drawn, GRU4Rec, LightGCN, MultVAE, NeuMF, SASRec
from tests.models.topn.data import FEATURES, ITEMS, LENGTH, USERS, inputs, known, prepared
from transforms.transformed import PADDING


class Fixed:
    """A sampler that always draws the same columns."""

    def __init__(self, columns, usable):
        self.columns, self.usable = tf.constant(columns, tf.int64), tf.constant(usable)

    def draw(self, users, scores=None):
        return self.columns, self.usable


PAIRS = {"user": tf.constant([1, 2], tf.int64), "item": tf.constant([3, 4], tf.int64)}
DRAWN = Fixed([[5, 6], [7, 8]], [[True, True], [True, False]])


def losses_of_pairs(model):
    model.sampler = DRAWN
    return model.example_losses(PAIRS, tf.ones([2]), tf.zeros([2])).numpy()


def bpr_losses(users, items, ego_users, ego_items, l2):
    found = []
    for row, columns in enumerate(([5, 6], [7])):
        user, item = int(PAIRS["user"][row]), int(PAIRS["item"][row])
        terms = [np.log1p(np.exp(-(users[user] @ items[item] - users[user] @ items[j]))) for j in columns]
        squares = (ego_users[user] ** 2).sum() + (ego_items[item] ** 2).sum()
        squares += np.mean([(ego_items[j] ** 2).sum() for j in columns])
        found.append(np.mean(terms) + 0.5 * l2 * squares)
    return found


def test_bpr_compares_what_was_met_with_what_was_drawn():
    model = prepared(BPR(type="bpr", dim=3, l2=0.3, negatives=Drawn(count=2)))
    asked = {"user": tf.range(USERS + 2, dtype=tf.int64)}
    users, items = model.user_vectors(asked).numpy(), model.item_vectors.numpy()
    np.testing.assert_allclose(losses_of_pairs(model), bpr_losses(users, items, users, items, 0.3), rtol=1e-5)


def test_lightgcn_spreads_vectors_over_the_graph():
    model = prepared(LightGCN(type="lightgcn", dim=3, layers=2, l2=0.3, negatives=Drawn(count=2)))
    rows = np.zeros((USERS + 2, ITEMS))
    rows[known().users, known().items] = 1
    ego = model._vectors.numpy().astype(np.float64)
    users, items = ego[: USERS + 2], ego[USERS + 2 :]
    total, layer = [users.copy(), items.copy()], (users, items)
    for _ in range(2):
        after = np.zeros_like(users), np.zeros_like(items)
        for u, i in zip(*np.nonzero(rows), strict=True):
            weight = 1 / np.sqrt(rows[u].sum() * rows[:, i].sum())
            after[0][u] += weight * layer[1][i]
            after[1][i] += weight * layer[0][u]
        layer = after
        total = [t + a for t, a in zip(total, after, strict=True)]
    spread = [t / 3 for t in total]
    np.testing.assert_allclose(model.item_vectors.numpy(), spread[1], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.user_vectors(inputs(known())).numpy(), spread[0][1:-1], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(losses_of_pairs(model), bpr_losses(*spread, users, items, 0.3), rtol=1e-5)


def test_the_gradient_of_spreading_is_that_of_the_dense_product():
    graph = prepared(LightGCN(type="lightgcn", dim=3))._graph
    nodes = USERS + 2 + ITEMS
    dense = graph.product()(tf.eye(nodes))
    np.testing.assert_allclose(dense, tf.transpose(dense), atol=1e-6)
    vectors = tf.Variable(np.random.default_rng(1).normal(size=(nodes, 3)), dtype=tf.float32)
    with tf.GradientTape(persistent=True) as tape:
        sparse = tf.reduce_sum(tf.sin(graph.product()(vectors)))
        whole = tf.reduce_sum(tf.sin(tf.matmul(dense, vectors)))
    np.testing.assert_allclose(tape.gradient(sparse, vectors), tape.gradient(whole, vectors), rtol=1e-4, atol=1e-5)


def dense(layer, x):
    x = x @ layer.kernel.numpy().astype(np.float64)
    return x + layer.bias.numpy() if layer.use_bias else x


def test_neumf_is_a_product_and_a_network_fused():
    model = prepared(NeuMF(type="neumf", dim=2, hidden=[4, 3], negatives=Drawn(count=2)))
    everyone = inputs(known())
    users = model._vectors.look_up("user", everyone["user"][:, tf.newaxis]).numpy()[:, 0]
    items, scores = model._index.numpy(), model.catalogue_scores(everyone).numpy()
    for row in (0, 5):
        for item in (0, 8):
            u, i = users[row].astype(np.float64), items[item]
            deep = np.maximum(dense(model._first_of_user, u[2:]) + dense(model._first_of_item, i[2:]), 0)
            deep = np.maximum(dense(model._network[1], deep), 0)
            fused = dense(model._fused, np.concatenate([u[:2] * i[:2], deep]))
            assert scores[row, item] == pytest.approx(fused[0], rel=1e-4)


def test_mult_vae_reads_what_a_user_met_and_ranks_by_the_mean():
    model = prepared(MultVAE(type="mult_vae", hidden=5, latent=3, dropout=0.0))
    scores = model.catalogue_scores(inputs(known())).numpy()
    items = model.item_vectors.numpy()
    for row, sequence in enumerate(known().sequences):
        x = np.zeros(ITEMS)
        x[sequence] = 1 / np.sqrt(len(sequence))
        moments = dense(model._moments, np.tanh(dense(model._encoder, x)))
        hidden = np.tanh(dense(model._decoder, moments[:3]))
        np.testing.assert_allclose(scores[row], items[:, :-1] @ hidden + items[:, -1], rtol=1e-4, atol=1e-5)


def normal(layer, x):
    centred = x - x.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + layer.epsilon)
    return scaled * layer.gamma.numpy() + layer.beta.numpy()


def attended(encoder, vectors, places, causal):
    """Return the states of one user's events, [events, dim], head by head and event by event."""
    x = vectors * vectors.shape[1] ** 0.5 + encoder._places.embeddings.numpy()[places]
    for block in encoder._blocks:
        query, key, value = np.split(dense(block._project, normal(block._before[0], x)), 3, axis=1)
        seen = np.zeros_like(x)
        for head in range(block._heads):
            part = slice(head * block._width, (head + 1) * block._width)
            for at in range(len(x)):
                last = at + 1 if causal else len(x)
                scores = key[:last, part] @ query[at, part] / np.sqrt(block._width)
                weights = np.exp(scores - scores.max())
                seen[at, part] = weights / weights.sum() @ value[:last, part]
        x = x + dense(block._join, seen)
        first = dense(block._network[0], normal(block._before[1], x))
        first = np.maximum(first, 0) if causal else tf.nn.gelu(tf.constant(first)).numpy()
        x = x + dense(block._network[1], first)
    return normal(encoder._normalize, x)


def test_sasrec_attends_to_earlier_events_alike_in_training_and_at_a_request():
    model = prepared(SASRec(type="sasrec", dim=4, heads=2, blocks=2, dropout=0.0), spread=0.3)
    vectors = model.vectors.numpy().astype(np.float64)
    users = model.user_vectors(inputs(known())).numpy()
    losses = {}
    for row, sequence in enumerate(known().sequences):
        at = np.arange(LENGTH - len(sequence), LENGTH)
        states = attended(model._encoder, vectors[sequence, :4], at, causal=True)
        np.testing.assert_allclose(users[row], [*states[-1], 1.0], rtol=1e-4, atol=1e-4)
        if len(sequence) > 1:
            states = attended(model._encoder, vectors[sequence[:-1], :4], at[1:], causal=True)
            logits = states @ vectors[:, :4].T + vectors[:, 4]
            losses[row + 1] = sum(np.log(np.exp(o).sum()) - o[i] for o, i in zip(logits, sequence[1:], strict=True))
    rows = {name: tf.constant(column) for name, column in model.training_rows(known()).items()}
    found = model.example_losses(rows, None, None).numpy()
    for users_of_row, loss in zip(rows["user"].numpy(), found, strict=True):
        together = set(users_of_row.tolist()) - {0}
        assert loss == pytest.approx(sum(losses[u] for u in together), rel=1e-3)


def test_bert4rec_tells_a_hidden_event_after_the_newest():
    model = prepared(BERT4Rec(type="bert4rec", dim=4, heads=1, blocks=1, dropout=0.0), spread=0.3)
    vectors = model.vectors.numpy().astype(np.float64)
    users = model.user_vectors(inputs(known())).numpy()
    for row, sequence in enumerate(known().sequences):
        events = np.append(sequence, ITEMS)
        at = np.arange(LENGTH - len(events), LENGTH)
        states = attended(model._encoder, vectors[events, :4], at, causal=False)
        np.testing.assert_allclose(users[row], [*states[-1], 1.0], rtol=1e-4, atol=1e-4)


def test_gru4rec_reads_events_one_by_one():
    model = prepared(GRU4Rec(type="gru4rec", dim=3, hidden=4, dropout=0.0))
    vectors = model.vectors.numpy().astype(np.float64)
    users = model.user_vectors(inputs(known())).numpy()
    cell = model._layers[0].cell
    kernel, recurrent = cell.kernel.numpy().astype(np.float64), cell.recurrent_kernel.numpy()
    of_input, of_state = cell.bias.numpy()

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    for row, sequence in enumerate(known().sequences):
        state = np.zeros(4)
        for item in sequence:
            x, h = vectors[item, :3] @ kernel + of_input, state @ recurrent + of_state
            update, reset = sigmoid(x[:4] + h[:4]), sigmoid(x[4:8] + h[4:8])
            state = update * state + (1 - update) * np.tanh(x[8:] + reset * h[8:])
        np.testing.assert_allclose(users[row], [*dense(model._to_items, state), 1.0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "config",
    [
        SASRec(type="sasrec", dim=4, length=4),
        BERT4Rec(type="bert4rec", dim=4, length=4),
        GRU4Rec(type="gru4rec", dim=4, hidden=4, length=4),
    ],
    ids=lambda c: c.type,
)
def test_only_the_newest_events_count_and_without_any_the_biases_rank(config):
    model = prepared(config)
    newest = [3, 1, 2, 5]
    pasts = [newest, [7, 8, *newest], [PADDING, 9, *newest], []]
    rows = np.full((4, LENGTH), PADDING)
    for row, past in enumerate(pasts):
        rows[row, : len(past)] = past
    scores = model.catalogue_scores({"past": tf.constant(rows)}).numpy()
    np.testing.assert_allclose(scores[1], scores[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(scores[2], scores[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(scores[3], model.item_vectors.numpy()[:, -1], rtol=1e-6)
    assert model.catalogue_size == ITEMS
    assert FEATURES[2].length == LENGTH
