"""Every model: its formula against NumPy, its training, and its four exported signatures."""

import json

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import logit
from tensorflow.core.protobuf import saved_model_pb2

from configs.model import FM, LR, DeepFM, ItemMean, Training
from models.layers.attribution import shapley
from models.layers.hide_ids import HideIds
from models.registry import build_model
from models.training.examples import examples
from models.training.history import HISTORY_FILE
from models.training.job import Task
from models.training.train import train
from tests.conftest import named, serialized
from transforms.transformed import PADDING, TransformedFeature

CONFIGS = {
    "lr": LR(type="lr"),
    "fm": FM(type="fm", embedding_dim=4, l2=0.01),
    "deepfm": DeepFM(type="deepfm", embedding_dim=4, hidden=[8, 4], id_dropout=0.3),
    "item_mean": ItemMean(type="item_mean", prior=3.0),
}
SIGNATURES = {"serving_default", "rank", "serve_examples", "transform_features"}


def task(sample, name, **training) -> Task:
    training = {"batch": 32, "epochs": 2, "learning_rate": 0.01, "seed": 3} | training
    return Task(CONFIGS[name], Training(**training), sample.table_json, sample.columns, ("user", "item"))


@pytest.fixture(scope="module")
def run(sample, tmp_path_factory):
    """Train and export once a model: (history, folder)."""
    runs = {}

    def run(name):
        if name not in runs:
            folder = tmp_path_factory.mktemp(name)
            files = [sample.files]
            history = train(
                task(sample, name), sample.transform_output, files, files, str(folder / "model"), str(folder / "logs")
            )
            runs[name] = history, folder
        return runs[name]

    return run


@pytest.fixture(scope="module")
def batch(sample):
    return next(iter(examples([sample.files], sample.features, len(sample.rows))))


def field_rows(layer, features, inputs, dim):
    """Return the embeddings [batch, fields, dim] one row and one value at a time."""
    fields = np.zeros([len(inputs[features[0].name]), len(features), dim])
    for f, feature in enumerate(features):
        table = layer._tables[feature.name].numpy().astype(np.float64)
        for row, value in enumerate(inputs[feature.name].numpy()):
            if not feature.size:
                vector = value * table[0]
            elif feature.multivalued:
                vectors = [table[i] for i in value if i != PADDING]
                vector = sum(vectors, np.zeros(table.shape[1]))
                vector = vector / (max(len(vectors), 1) if feature.pool == "mean" else 1)
            else:
                vector = table[value]
            if feature.name in layer._projections:
                vector = vector @ layer._projections[feature.name].numpy()
            fields[row, f] = vector
    return fields


@pytest.mark.parametrize("name", ["lr", "fm", "deepfm"])
def test_logits_follow_the_formula(sample, batch, name):
    features = [f for f in sample.features if f.name != "row"]
    inputs = {f.name: batch[0][f.name][:40] for f in features}
    tf.keras.utils.set_random_seed(1)
    model = build_model(CONFIGS[name], features)
    model(inputs)
    rng = np.random.default_rng(1)
    for weight in model.weights:
        weight.assign(rng.normal(scale=0.3, size=weight.shape))
    first = model._first_order
    expected = first._bias.numpy() + field_rows(first._weights, features, inputs, 1).sum(axis=(1, 2))
    if name != "lr":
        fields = field_rows(model._embedding, features, inputs, 4)
        for i in range(len(features)):
            for j in range(i):
                expected = expected + (fields[:, i] * fields[:, j]).sum(axis=1)
    if name == "deepfm":
        hidden = fields.reshape(len(fields), -1)
        *layers, last = [layer for layer in model._deep.layers if layer.weights]
        for layer in layers:
            hidden = np.maximum(hidden @ layer.kernel.numpy() + layer.bias.numpy(), 0)
        expected = expected + (hidden @ last.kernel.numpy())[:, 0]
    np.testing.assert_allclose(model(inputs, training=False).numpy(), expected, rtol=1e-5, atol=1e-5)


def test_item_mean_counts_and_smooths(sample, batch, run):
    _, folder = run("item_mean")
    served = tf.saved_model.load(str(folder / "model")).signatures["serve_examples"]
    scores = served(inputs=tf.constant(serialized(sample, sample.rows)))["outputs"].numpy()
    items, labels = batch[0]["item"].numpy(), batch[1].numpy()
    means = [((labels[items == item].sum() + 3.0 * labels.mean()) / ((items == item).sum() + 3.0)) for item in items]
    shift = logit(scores) - logit(np.array(means))  # one for all: it sets the mean of the predictions right
    np.testing.assert_allclose(shift, shift[0], atol=1e-4)
    assert abs(shift[0]) < 0.1


@pytest.mark.parametrize("name", list(CONFIGS))
def test_training_learns_and_keeps_the_best_epoch(sample, batch, run, name):
    history, folder = run(name)
    assert json.loads((folder / "logs" / HISTORY_FILE).read_text()) == history
    best = max(epoch["eval_auc"] for epoch in history["epochs"])
    assert history["eval_auc"] == best > 0.6
    scores = (
        tf.saved_model.load(str(folder / "model"))
        .signatures["serve_examples"](inputs=tf.constant(serialized(sample, sample.rows)))["outputs"]
        .numpy()
    )
    exported = tf.keras.metrics.AUC(num_thresholds=2000)
    exported.update_state(batch[1], scores)
    assert float(exported.result()) == pytest.approx(best, abs=2e-3)


@pytest.mark.parametrize("name", list(CONFIGS))
def test_all_signatures_agree_after_export_and_load(sample, run, batch, name):
    _, folder = run(name)
    signatures = tf.saved_model.load(str(folder / "model")).signatures
    assert set(signatures) == SIGNATURES
    rows = sample.rows[:50]
    columns = named(sample, rows)
    score = signatures["serving_default"](**columns)["score"].numpy()
    by_example = signatures["serve_examples"](inputs=tf.constant(serialized(sample, rows)))
    np.testing.assert_allclose(by_example["outputs"].numpy(), score, rtol=1e-5)
    np.testing.assert_array_equal(by_example["scores"].numpy()[:, 0], by_example["outputs"].numpy())
    np.testing.assert_allclose(signatures["rank"](**columns)["scores"].numpy(), score, rtol=1e-5)
    transformed = signatures["transform_features"](**columns)
    for feature in sample.features:
        found, expected = transformed[feature.name].numpy(), batch[0][feature.name].numpy()[:50]
        if feature.multivalued:
            expected = expected[:, : found.shape[1]]
        np.testing.assert_array_equal(found, expected, err_msg=feature.name)
    assert ((score > 0) & (score < 1)).all()


def test_rank_repeats_the_user_for_each_item(sample, run):
    _, folder = run("deepfm")
    signatures = tf.saved_model.load(str(folder / "model")).signatures
    rows = [{**sample.rows[i], **{c.name: sample.rows[0][c.name] for c in sample.columns.values() if c.of != "item"}}
            for i in range(9)]  # fmt: skip
    whole = named(sample, rows)
    once = {c.name: whole[c.name] if c.of == "item" else whole[c.name][:1] for c in sample.columns.values()}
    scores = signatures["rank"](**once)["scores"].numpy()
    assert scores.shape == (9,)
    np.testing.assert_allclose(scores, signatures["serving_default"](**whole)["score"].numpy(), rtol=1e-5)


def test_missing_columns_take_their_defaults_in_all_signatures(sample, run):
    """As TensorFlow Serving does it: what a request leaves out comes from the signature's `defaults`."""
    _, folder = run("deepfm")
    saved = saved_model_pb2.SavedModel.FromString((folder / "model" / "saved_model.pb").read_bytes())
    signatures = tf.saved_model.load(str(folder / "model")).signatures
    given = {"user": ["007"], "item": ["0001", "0002"], "t": [10**9]}  # the time, else it is the clock's
    dtypes = {name: tf.string if name != "t" else tf.int64 for name in given}
    outputs = {}
    for name in ("serving_default", "rank", "transform_features"):
        defaults = saved.meta_graphs[0].signature_def[name].defaults
        assert set(defaults) == set(sample.columns)
        columns = {column: tf.constant(tf.make_ndarray(proto)) for column, proto in defaults.items()}
        columns |= {column: tf.constant(values, dtypes[column]) for column, values in given.items()}
        outputs[name] = signatures[name](**columns)
    rows = [
        {name: [] for name in sample.columns} | {"user": ["007"], "item": [item], "t": [10**9]}
        for item in given["item"]
    ]
    expected = signatures["serve_examples"](inputs=tf.constant(serialized(sample, rows)))["outputs"].numpy()
    np.testing.assert_allclose(outputs["serving_default"]["score"].numpy(), expected, rtol=1e-5)
    np.testing.assert_allclose(outputs["rank"]["scores"].numpy(), expected, rtol=1e-5)
    city = outputs["transform_features"]["city"].numpy()
    words = [word.decode() for word in sample.transform_output.vocabulary_by_name("city")]
    assert city.tolist() == [1 + words.index("Zürich")] * 2


def test_the_same_seed_gives_the_same_figures(sample, run, tmp_path):
    first, _ = run("deepfm")
    files = [sample.files]
    again = train(task(sample, "deepfm"), sample.transform_output, files, files, f"{tmp_path}/m", f"{tmp_path}/l")
    drop = lambda history: [{k: v for k, v in e.items() if k != "seconds"} for e in history["epochs"]]  # noqa: E731
    for one, other in zip(drop(first), drop(again), strict=True):
        assert one == pytest.approx(other, abs=1e-3)


def test_ids_are_hidden_in_training_only():
    user = TransformedFeature("user", "user", 10, oov=(7, 10), hideable=True)
    gender = TransformedFeature("gender", "user", 4, oov=(3, 4))
    layer = HideIds([user, gender], 0.25)
    inputs = {"user": tf.ones([20_000], tf.int64), "gender": tf.ones([20_000], tf.int64)}
    tf.keras.utils.set_random_seed(1)
    hidden = layer(inputs, training=True)
    ids = hidden["user"].numpy()
    assert set(ids) == {1, 7, 8, 9}
    assert np.mean(ids != 1) == pytest.approx(0.25, abs=0.02)
    assert (hidden["gender"].numpy() == 1).all()
    for training in (False, None):
        assert (layer(inputs, training=training)["user"].numpy() == 1).all()


@pytest.mark.parametrize("name", ["lr", "fm", "deepfm"])
def test_the_parts_of_the_served_model_add_up_to_its_logits(run, sample, name):
    _, folder = run(name)
    loaded = tf.saved_model.load(str(folder / "model"))
    columns = named(sample, sample.rows[:50])
    said = {key: value.numpy() for key, value in loaded.explain(**columns).items()}
    assert [n.decode() for n in said.pop("features")] == [f.name for f in sample.features]
    logits = said.pop("logit")
    assert set(said) == {"bias", "first_order"} | ({"pairs"} if name != "lr" else set()) | (
        {"deep", "deep_of_none"} if name == "deepfm" else set()
    )
    added = sum(part.reshape(50, -1).astype(np.float64).sum(axis=1) for part in said.values())
    np.testing.assert_allclose(added, logits, atol=2e-5)
    scores = loaded.signatures["serving_default"](**columns)["score"].numpy()
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), scores, atol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 5, 10, 13])
def test_shapley_values_share_out_what_fields_do_alone_and_together(count):
    random = np.random.default_rng(count)
    fields = tf.constant(random.normal(size=(3, count, 2)), tf.float32)
    alone = fields.numpy().sum(axis=2)

    def additive(masked):
        return 4.0 + tf.reduce_sum(masked, axis=[1, 2])

    parts, none = shapley(additive, fields)
    np.testing.assert_allclose(parts, alone, atol=1e-4)
    np.testing.assert_allclose(none, 4.0, atol=1e-6)

    def together(masked):  # the first two fields count only as a pair
        return tf.reduce_sum(masked[:, 0] * masked[:, min(1, count - 1)], axis=1)

    parts, none = shapley(together, fields)
    product = (fields[:, 0] * fields[:, min(1, count - 1)]).numpy().sum(axis=1)
    np.testing.assert_allclose(parts.numpy().sum(axis=1) + none, product, atol=1e-5)
    if 1 < count <= 10:
        np.testing.assert_allclose(parts[:, 0], product / 2, atol=1e-5)
        np.testing.assert_allclose(parts[:, 1], product / 2, atol=1e-5)
