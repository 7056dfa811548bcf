"""The family of models against slow references, and each of them eager, traced, exported and loaded."""

import shutil

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from configs.model import DCN, DIEN, DIN, FM, SVD, DeepFM, Fallback, SVDpp, TwoTower, WideDeep
from models.base import Retriever
from models.dien import next_event_loss
from models.export.saved_model import export
from models.layers.deep import Dice, Dropout
from models.registry import build_model
from models.training.examples import Examples, examples
from serving.client import connect
from tests.conftest import named, serialized
from tests.models.test_models import field_rows
from tests.serving.conftest import ServerFactory
from transforms.transformed import PADDING, TransformedFeature

DEEP = {"embedding_dim": 4, "hidden": [8, 4], "dropout": 0.1}
CONFIGS = {
    "svd": SVD(type="svd", embedding_dim=4, l2=0.01, id_dropout=0.1),
    "svdpp": SVDpp(type="svdpp", embedding_dim=4, l2=0.01),
    "wide_deep": WideDeep(type="wide_deep", **DEEP),
    "dcn_v2": DCN(type="dcn_v2", **DEEP),
    "din": DIN(type="din", attention=[5, 3], **DEEP),
    "dien": DIEN(type="dien", activation="prelu", **DEEP),
    "two_tower": TwoTower(type="two_tower", output_dim=3, top_k=5, **DEEP),
}
FALLBACK = Fallback(
    type="fallback",
    known=DeepFM(type="deepfm", **{**DEEP, "dropout": 0.0}),
    content=FM(type="fm", embedding_dim=4),
    share=0.3,
)
SEQUENCES = {"recent", "zips"}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.fixture(scope="module")
def batch(sample):
    return next(iter(examples([sample.files], sample.features, len(sample.rows))))


def known(features):
    return [f for f in features if f.name != "row"]  # counts up to 400: sums would have no digits left


def randomized(config, features, inputs, rows=24):
    """Return a model with weights from a wide normal distribution, and the rows it is asked about."""
    inputs = {f.name: inputs[f.name][:rows] for f in features}
    model = build_model(config, features)
    model(inputs)
    rng = np.random.default_rng(1)
    for weight in model.weights:
        drawn = rng.normal(scale=0.3, size=weight.shape)
        weight.assign(np.abs(drawn) + 0.1 if "variance" in weight.name else drawn)
    return model, inputs


def dense(layer, x):
    return x @ layer.kernel.numpy().astype(np.float64) + (layer.bias.numpy() if layer.use_bias else 0)


def activated(layer, x):
    if isinstance(layer, Dice):
        normal = layer._normalized
        p = sigmoid((x - normal.moving_mean.numpy()) / np.sqrt(normal.moving_variance.numpy() + normal.epsilon))
        return p * x + (1 - p) * layer._alpha.numpy() * x
    if isinstance(layer, keras.layers.PReLU):
        return np.maximum(x, 0) + layer.alpha.numpy() * np.minimum(x, 0)
    return np.maximum(x, 0)


def through(layers, x):
    """Return what a stack of layers makes of x, without dropout."""
    for layer in layers:
        if isinstance(layer, keras.layers.Flatten):
            x = x.reshape(len(x), -1)
        elif isinstance(layer, keras.layers.Dense):
            x = dense(layer, x)
            x = np.maximum(x, 0) if layer.activation is keras.activations.relu else x
        elif not isinstance(layer, Dropout):
            x = activated(layer, x)
    return x


def table_rows(embedding, feature, ids):
    table = embedding._tables[feature].numpy().astype(np.float64)
    rows = np.array([table[i] for i in ids if i != PADDING]).reshape(-1, table.shape[1])
    return rows @ embedding._projections[feature].numpy() if feature in embedding._projections else rows


def biases_and_factors(model, features, inputs):
    ids = [next(f for f in features if f.name == name) for name in ("user", "item")]
    biases = model._biases._bias.numpy() + field_rows(model._biases._weights, ids, inputs, 1).sum(axis=(1, 2))
    return biases, field_rows(model._factors, ids, inputs, 4)


def svd(model, features, inputs):
    biases, factors = biases_and_factors(model, features, inputs)
    return biases + np.array([user @ item for user, item in factors])


def svdpp(model, features, inputs):
    biases, factors = biases_and_factors(model, features, inputs)
    logits = []
    for row, (user, item) in enumerate(factors):
        for name in SEQUENCES:
            of = table_rows(model._implicit, name, inputs[name].numpy()[row])
            user = user + sum(of, np.zeros(4)) / np.sqrt(max(len(of), 1))
        logits.append(biases[row] + user @ item)
    return np.array(logits)


def wide_deep(model, features, inputs):
    wide = model._wide._bias.numpy() + field_rows(model._wide._weights, features, inputs, 1).sum(axis=(1, 2))
    plain = [f for f in features if f.name not in ("city_age", "zip_hour")]
    return wide + through(model._deep.layers, field_rows(model._embedding, plain, inputs, 4))[:, 0]


def dcn_v2(model, features, inputs):
    fields = field_rows(model._embedding, features, inputs, 4)
    first = crossed = fields.reshape(len(fields), -1)
    for cross in model._crosses:
        weights = np.linalg.multi_dot([np.eye(first.shape[1]), *(k.numpy().astype(np.float64) for k in cross._kernels)])
        crossed = np.array([a * (x @ weights + cross._bias.numpy()) + x for a, x in zip(first, crossed, strict=True)])
    if model._stacked:
        return through(model._deep.layers, crossed)[:, 0]
    return (through(model._deep.layers, first) + dense(model._linear, crossed))[:, 0]


def with_interests(model, features, inputs, interest):
    """Return the logits of a deep network over fields and what `interest(sequence's place, events, item)` says."""
    plain = [f for f in features if f.name not in SEQUENCES]
    fields = field_rows(model._embedding, plain, inputs, 4)
    places = {f.name: place for place, f in enumerate(plain)}
    found = []
    for row in range(len(fields)):
        interests = []
        for place, sequence in enumerate(f for f in features if f.name in SEQUENCES):
            of = sequence.sequence_of
            events = table_rows(model._embedding, of, inputs[sequence.name].numpy()[row])
            interests.append(interest(place, events, fields[row, places[of]]))
        found.append(np.concatenate([fields[row], interests]))
    return through(model._deep.layers, np.array(found))[:, 0]


def din(model, features, inputs):
    def interest(place, events, item):
        unit, total = model._units[place], np.zeros(4)
        for event in events:
            x = np.concatenate([event, item, event - item, event * item])
            for layer in unit._hidden:
                x = dense(layer, x) if isinstance(layer, keras.layers.Dense) else activated(layer, x)[0]
            total = total + dense(unit._weight, x) * event
        return total

    return with_interests(model, features, inputs, interest)


def dien(model, features, inputs):
    def interest(place, events, item):
        gru, evolution = model._extractors[place].cell, model._evolutions[place]
        kernel, recurrent = gru.kernel.numpy().astype(np.float64), gru.recurrent_kernel.numpy()
        of_input, of_state = gru.bias.numpy()
        state, states = np.zeros(4), []
        for event in events:
            x, h = event @ kernel + of_input, state @ recurrent + of_state
            update, reset = sigmoid(x[:4] + h[:4]), sigmoid(x[4:8] + h[4:8])
            state = update * state + (1 - update) * np.tanh(x[8:] + reset * h[8:])
            states.append(state)
        if not states:
            return np.zeros(4)
        scores = np.array([s @ dense(evolution._project, item) for s in states])
        weights = np.exp(scores) / np.exp(scores).sum()
        cell = evolution._evolve.cell
        kernel, recurrent, bias = (w.numpy().astype(np.float64) for w in (cell._kernel, cell._recurrent, cell._bias))
        evolved = np.zeros(4)
        for state, weight in zip(states, weights, strict=True):
            x, h = state @ kernel + bias, evolved @ recurrent
            update, reset = weight * sigmoid(x[:4] + h[:4]), sigmoid(x[4:8] + h[4:8])
            evolved = (1 - update) * evolved + update * np.tanh(x[8:] + reset * h[8:])
        return evolved

    return with_interests(model, features, inputs, interest)


def two_tower(model, features, inputs):
    sides = ([f for f in features if f.of != "item" and f.name != "zip_hour"], [f for f in features if f.of == "item"])
    user, item = (
        through(tower._layers, field_rows(tower._embedding, side, inputs, 4))
        for tower, side in zip((model._user_tower, model._item_tower), sides, strict=True)
    )
    return (user[:, :-1] * item[:, :-1]).sum(axis=1) + user[:, -1] + item[:, -1] + model._bias.numpy()


@pytest.mark.parametrize(
    ("config", "reference"),
    [
        *((CONFIGS[name], globals()[name]) for name in CONFIGS),
        (DCN(type="dcn_v2", rank=2, cross_layers=3, structure="stacked", **DEEP), dcn_v2),
        (DIN(type="din", activation="prelu", **DEEP), din),
    ],
    ids=[*CONFIGS, "dcn_v2 stacked, of low rank", "din with prelu"],
)
def test_logits_follow_the_formula(sample, batch, config, reference):
    features = known(sample.features)
    model, inputs = randomized(config, features, batch[0])
    expected = reference(model, features, inputs)
    assert np.std(expected) > 0.02
    np.testing.assert_allclose(model(inputs, training=False).numpy(), expected, rtol=1e-5, atol=1e-5)


def test_a_users_past_does_not_change_the_logits_of_models_that_do_not_see_it(sample, batch):
    features = known(sample.features)
    config = FM(type="fm", embedding_dim=4, without=["recent", "zips"])
    model, inputs = randomized(config, features, batch[0])
    other = {**inputs, "recent": inputs["recent"][::-1], "zips": inputs["zips"][::-1]}
    np.testing.assert_array_equal(model(inputs).numpy(), model(other).numpy())


def test_the_auxiliary_loss_compares_each_state_with_the_next_event():
    rng = np.random.default_rng(1)
    states, events, others = rng.normal(size=(3, 2, 4, 3))
    given = np.array([[True, True, True, False], [True, False, False, False]])
    terms = [
        -np.log(sigmoid(states[0, t] @ events[0, t + 1])) - np.log(1 - sigmoid(states[0, t] @ others[0, t + 1]))
        for t in (0, 1)
    ]
    assert float(next_event_loss(*map(tf.constant, (states, events, others, given)))) == pytest.approx(np.mean(terms))
    none = tf.zeros([2, 4], tf.bool)
    assert float(next_event_loss(*map(tf.constant, (states, events, others)), none)) == 0.0


@pytest.fixture(scope="module")
def trained(sample, tmp_path_factory):
    """Train and export a model once: (model, features, losses by epoch, folder)."""
    made = {}
    used = ("user", "item", "tags", "price", "age", "zip", "city_age", "recent", "zips")

    def train(name):
        if name not in made:
            keras.utils.set_random_seed(1)
            features = [f for f in sample.features if f.name in used]
            model = build_model(FALLBACK if name == "fallback" else CONFIGS[name], features)
            loss = keras.losses.BinaryCrossentropy(from_logits=True)
            model.compile(keras.optimizers.Adam(0.02), loss, run_eagerly=True)
            source = Examples([sample.files], features)  # in memory, where the order is the same whatever Beam wrote
            data = source.batches(64, source.steps(64), seed=1)
            losses = model.fit(data, epochs=4, verbose=0).history["loss"]
            if isinstance(model, Retriever):
                model.index(data)
            folder = str(tmp_path_factory.mktemp(name))
            export(model, sample.transform_output, sample.columns, features, folder)
            made[name] = model, features, losses, folder
        return made[name]

    return train


@pytest.mark.parametrize("name", [*CONFIGS, "fallback"])
def test_it_learns_and_answers_alike_eager_traced_exported_and_loaded(sample, batch, trained, name):
    model, features, losses, folder = trained(name)
    assert losses[-1] < losses[0]
    inputs = {f.name: batch[0][f.name][:50] for f in features}
    eager = tf.sigmoid(model(inputs)).numpy()
    assert keras.metrics.AUC()(batch[1][:50], eager) > 0.6
    assert keras.metrics.AUC(from_logits=True)(batch[1], model(batch[0])) > 0.6
    signatures = tf.saved_model.load(folder).signatures
    rows = sample.rows[:50]
    columns = named(sample, rows)
    answers = {
        "traced": tf.sigmoid(tf.function(model)(inputs)),
        "serving_default": signatures["serving_default"](**columns)["score"],
        "rank": signatures["rank"](**columns)["scores"],
        "serve_examples": signatures["serve_examples"](inputs=tf.constant(serialized(sample, rows)))["outputs"],
        "transform_features": tf.sigmoid(model(signatures["transform_features"](**columns))),
    }
    for how, answer in answers.items():
        np.testing.assert_allclose(answer.numpy(), eager, rtol=1e-4, atol=1e-5, err_msg=how)


def test_retrieval_finds_the_items_that_score_best(sample, batch, trained):
    """The exact search against the score of every item; the approximate one against the exact."""
    *_, folder = trained("two_tower")
    signatures = tf.saved_model.load(folder).signatures
    of_users = {c.name for c in sample.columns.values() if c.of != "item"}
    users = sample.rows[:5]
    asked = {name: column for name, column in named(sample, users).items() if name in of_users}
    assert set(signatures["retrieve"].structured_input_signature[1]) == of_users
    items = [word.decode() for word in sample.transform_output.vocabulary_by_name("item")]
    found = signatures["retrieve"](**asked)
    approximate = signatures["retrieve_approximate"](**asked)["scores"].numpy()
    seen: dict[str, list] = {}
    for row in sample.rows:
        seen.setdefault(row["item"][0], []).append(row)
    for place, user in enumerate(users):
        # An item is in the index as some example had it, and scores there as it would beside this user.
        of_item = {c: None for c in sample.columns if c not in of_users}
        scores = found["scores"][place].numpy()
        assert (np.diff(scores) <= 1e-6).all()
        best = found["items"][place].numpy().astype(str)
        assert len(set(best)) == len(best) == 5
        for item, score in zip(best, scores, strict=True):
            pairs = [{**user, **{c: row[c] for c in of_item}} for row in seen[item]]
            possible = signatures["serving_default"](**named(sample, pairs))["score"].numpy()
            assert np.abs(possible - score).min() < 1e-5
        for item in set(items) - set(best):
            pairs = [{**user, **{c: row[c] for c in of_item}} for row in seen[item]]
            assert signatures["serving_default"](**named(sample, pairs))["score"].numpy().min() <= scores[-1] + 1e-6
    # By scores, not names: of items that score alike either may be found.
    hits = approximate >= found["scores"].numpy()[:, -1:] - 1e-6
    assert hits.mean() >= CONFIGS["two_tower"].recall_target


@pytest.mark.slow
def test_a_server_retrieves_over_grpc_and_rest(sample, trained, tmp_path):
    *_, folder = trained("two_tower")
    shutil.copytree(folder, tmp_path / "towers" / "1")
    asked = {
        c.name: [row[c.name] or [""] if c.length else next(iter(row[c.name]), c.default) for row in sample.rows[:1]]
        for c in sample.columns.values()
        if c.of == "user" and c.type == "string"
    }
    factory = ServerFactory(tmp_path)
    server = factory("--model_name=towers", f"--model_base_path={tmp_path / 'towers'}")
    try:
        for target in (f"grpc://{server.grpc_address}", f"http://{server.rest_address}"):
            with connect(target, "towers") as client:
                exact = client.predict(asked, signature="retrieve").outputs
                approximate = client.predict(asked, signature="retrieve_approximate").outputs
            assert exact["items"].shape == exact["scores"].shape == (1, 5)
            assert np.isin(approximate["items"], exact["items"]).mean() >= 0.8
            np.testing.assert_allclose(approximate["scores"], exact["scores"], atol=1e-4)
    finally:
        factory.stop()


def test_unknown_ids_are_left_to_the_content_model(sample, batch):
    features = known(sample.features)
    model, inputs = randomized(FALLBACK, features, batch[0], rows=120)
    content = model._content({f.name: inputs[f.name] for f in features if not f.hideable}).numpy()
    both = model._known(inputs).numpy()
    unknown = np.zeros(120, bool)
    for f in features:
        if f.hideable:
            ids = inputs[f.name].numpy()
            unknown |= (ids == 0) | ((ids >= f.oov[0]) & (ids < f.oov[1]))
    assert 0 < unknown.sum() < 120
    np.testing.assert_allclose(model(inputs).numpy(), np.where(unknown, content, both), rtol=1e-6)
    by_content = np.isclose(model(inputs, training=True).numpy(), content, rtol=1e-6)
    assert 0.15 < by_content.mean() < 0.45


@pytest.mark.parametrize(
    ("type_", "left_out", "said"),
    [
        ("svd", "user", "model svd: needs the user's id"),
        ("item_mean", "item", "model item_mean: needs the item's id"),
        ("din", "recent", "model din: needs a feature of kind sequence"),
        ("dien", "item", "model dien: needs the feature item, which the sequence recent is of"),
    ],
)
def test_a_model_says_which_feature_it_lacks(type_, left_out, said):
    from pydantic import TypeAdapter

    from configs.model import Model

    features = [
        TransformedFeature("user", "user", 9, oov=(8, 9), hideable=True),
        TransformedFeature("item", "item", 9, oov=(8, 9), hideable=True),
        TransformedFeature("recent", "user", 9, multivalued=True, sequence_of="item", length=3),
    ]
    config = TypeAdapter(Model).validate_python({"type": type_})
    with pytest.raises(ValueError, match=said):
        build_model(config, [f for f in features if f.name != left_out])
