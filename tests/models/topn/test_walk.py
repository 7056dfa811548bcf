"""Each model that ranks all items: it learns, and answers alike eager, traced, exported and loaded."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from configs.model import (
    BPR,
    EASE,
    IALS,
    SLIST,
    BERT4Rec,
    Drawn,
    GRU4Rec,
    ItemKNN,
    LightGCN,
    MultVAE,
    Negatives,
    NeuMF,
    SASRec,
    Training,
    YouTube,
)  # fmt: skip
from models.base import ClosedForm, OwnBatches, VectorRetriever
from models.export.saved_model import export
from models.registry import build_model
from models.training.context import WorkerContext
from models.training.examples import Examples, examples
from models.training.steps import Steps
from models.training.train import train
from tests.conftest import named, serialized
from tests.models.training.jobs import make_job, run, write_examples

SMALL = {"dim": 4, "top_k": 7}
CONFIGS = {
    "item_knn": ItemKNN(type="item_knn", top_k=7),
    "ease": EASE(type="ease", l2=1.0, top_k=7),
    "slist": SLIST(type="slist", l2=1.0, top_k=7),
    "ials": IALS(type="ials", **SMALL),
    "bpr": BPR(type="bpr", negatives=Drawn(by="hard", pool=8), **SMALL),
    "neumf": NeuMF(type="neumf", hidden=[8, 4], **SMALL),
    "lightgcn": LightGCN(type="lightgcn", layers=2, **SMALL),
    "mult_vae": MultVAE(type="mult_vae", hidden=8, latent=4, top_k=7),
    "youtube": YouTube(type="youtube", embedding_dim=4, hidden=[8, 4], top_k=7),
    "gru4rec": GRU4Rec(type="gru4rec", hidden=8, negatives=Negatives(by="mixed", count=20), **SMALL),
    "sasrec": SASRec(type="sasrec", heads=2, **SMALL),
    "bert4rec": BERT4Rec(type="bert4rec", masked=0.4, **SMALL),
}
USED = ("user", "item", "price", "age", "zip", "recent")


def learn(config, features, files):
    """Return a model of its own training's last step, and its mean losses before and after."""
    keras.utils.set_random_seed(1)

    def build():
        model = build_model(config, features)
        model.prepare(examples([files], features, 100))
        return model

    source = Examples([files], features)
    sample = next(iter(source.batches(2, 1)))
    steps = Steps(build, Training(batch=50, learning_rate=0.02), sample, WorkerContext())
    model = steps.model
    rows = model.training_source(source)
    (whole,) = rows.batches(rows.count, 1)

    def loss():
        keras.utils.set_random_seed(2)  # what is hidden, drawn or dropped is the same before and after
        return float(tf.reduce_mean(model.example_losses(*whole, tf.zeros_like(whole[1]))))

    before, epochs = loss(), 15
    batches = iter(rows.batches(50, rows.steps(50), epochs, seed=1))
    steps.run(batches, tf.constant(epochs * rows.steps(50)))
    after = loss()
    model.index(examples([files], features, 100))
    return model, before, after


@pytest.mark.parametrize("name", list(CONFIGS))
def test_it_learns_and_answers_alike_eager_traced_exported_and_loaded(sample, tmp_path, name):
    features, config = [f for f in sample.features if f.name in USED], CONFIGS[name]
    fresh = build_model(config, features)
    if isinstance(fresh, ClosedForm):
        model = fresh
        model.adapt(examples([sample.files], features, 100))
    else:
        assert isinstance(fresh, OwnBatches)
        model, before, after = learn(config, features, sample.files)
        assert after < before
    export(model, sample.transform_output, sample.columns, features, str(tmp_path))
    rows = sample.rows[:30]
    batch = next(iter(examples([sample.files], features, 30)))[0]
    loaded = tf.saved_model.load(str(tmp_path)).signatures
    inputs = loaded["transform_features"](**named(sample, rows))
    inputs = {f.name: inputs[f.name] for f in features}
    eager = tf.sigmoid(model(inputs)).numpy()
    columns = named(sample, rows)
    answers = {
        "traced": tf.sigmoid(tf.function(model)(inputs)),
        "serving_default": loaded["serving_default"](**columns)["score"],
        "rank": loaded["rank"](**columns)["scores"],
        "serve_examples": loaded["serve_examples"](inputs=tf.constant(serialized(sample, rows)))["outputs"],
    }
    for how, answer in answers.items():
        np.testing.assert_allclose(answer.numpy(), eager, rtol=1e-4, atol=1e-5, err_msg=how)
    scores = model.catalogue_scores(batch).numpy()
    np.testing.assert_allclose(tf.function(model.catalogue_scores)(batch).numpy(), scores, rtol=1e-4, atol=1e-5)
    assert scores.shape == (30, model.catalogue_size)
    for row, item in enumerate(batch["item"].numpy()):
        if 1 <= item <= model.catalogue_size:
            assert model(batch)[row].numpy() == pytest.approx(scores[row, item - 1], rel=1e-3, abs=1e-5)
    if isinstance(model, VectorRetriever):
        product = tf.matmul(model.user_vectors(batch), model.item_vectors, transpose_b=True).numpy()
        np.testing.assert_allclose(product, scores, rtol=1e-4, atol=1e-5)
    of_users = {c.name for c in sample.columns.values() if c.of != "item"}
    found = loaded["retrieve"](**{n: c for n, c in columns.items() if n in of_users})
    best = np.sort(tf.sigmoid(model.catalogue_scores(inputs)).numpy(), axis=1)[:, ::-1][:, :7]
    np.testing.assert_allclose(found["scores"].numpy(), best, rtol=1e-4, atol=1e-5)


def test_training_keeps_the_epoch_that_ranks_best(sample, tmp_path):
    write_examples(sample, tmp_path / "examples", [400])
    job = make_job(sample, tmp_path, tmp_path / "examples", CONFIGS["bpr"], epochs=3)
    history = train(
        job.task, sample.transform_output, job.train_files, job.eval_files, job.model_folder, job.log_folder
    )
    ranked = [epoch["eval_ndcg_at_10"] for epoch in history["epochs"]]
    assert history["best_epoch"] == 1 + int(np.argmax(ranked))
    assert set(tf.saved_model.load(job.model_folder).signatures) >= {"serving_default", "retrieve"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lightgcn", "sasrec"])
def test_two_workers_train_it_together(sample, tmp_path, name):
    write_examples(sample, tmp_path / "examples", [200, 200])
    job = make_job(sample, tmp_path, tmp_path / "examples", CONFIGS[name], workers=2, batch=20)
    history, _ = run(job)
    assert len(history["workers"]) == 2
    assert np.isfinite([epoch["eval_ndcg_at_10"] for epoch in history["epochs"]]).all()
    assert "retrieve" in tf.saved_model.load(job.model_folder).signatures
