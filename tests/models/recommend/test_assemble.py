"""SavedModels and a catalogue as one SavedModel: what it recommends against scoring every item one by one.

The models are made by hand, of what training exports: what they score is known, and nothing has to be trained.
"""

import shutil

import numpy as np
import pytest
import tensorflow as tf

from configs.features import RawColumn
from configs.retrieval import Index, Retrieval
from models.recommend.assemble import assemble, best_items, recommender_of, traced
from models.recommend.best_items import Items
from serving.client import connect
from serving.server.status import ServingError
from tests.serving.conftest import ServerFactory
from transforms.raw import named_input_specs

COLUMNS = {
    "user": RawColumn("user", "string", "user", None, ""),
    "hour": RawColumn("hour", "int64", "context", None, 7),
    "item": RawColumn("item", "string", "item", None, ""),
    "price": RawColumn("price", "float", "item", None, float("nan")),
}
KNOWN = [f"i{i}" for i in range(12)]
IDS = [*KNOWN[1:], "new"]  # the catalogue: one item that the retriever knows is gone, one is new
PRICES = {name: float(place) for place, name in enumerate([*KNOWN, "new"])}
ITEMS = Items.in_fixed_order(IDS, {"item": IDS, "price": [PRICES[i] for i in IDS]}, [1] * len(IDS))
USERS = ["ann", "bob", "é"]
TWO = Retrieval.model_validate({"model": {"type": "two_tower"}, "candidates": 4})
K, NONE, HOUR = tf.constant([3], tf.int64), tf.constant([[""]]), tf.constant([7], tf.int64)


def salted(*texts):
    return tf.cast(tf.strings.to_hash_bucket_fast(tf.strings.join(texts, "/"), 997), tf.float32) / 1000


class Model(tf.Module):
    """Scores pairs by a hash of them and the price; knows the vector of a user by a hash, and of each item."""

    def __init__(self, kind):
        super().__init__()
        specs = named_input_specs(COLUMNS.values())
        of_users = named_input_specs(c for c in COLUMNS.values() if c.of != "item")
        self.names = tf.Variable(KNOWN)

        @tf.function(autograph=False)
        def serving_default(user, hour, item, price):
            return {"score": salted(user, item) + price / 1e5 + tf.cast(hour, tf.float32) / 1e6}

        @tf.function(autograph=False)
        def explain(item):
            return tf.strings.length(item)

        self.served = {"serving_default": serving_default.get_concrete_function(**specs)}
        explain.get_concrete_function(tf.TensorSpec([None], tf.string))
        self.explain = explain
        if kind == "ranker":
            return
        self.catalogue_names = tf.function(lambda: self.names.value(), input_signature=[])
        vectors = np.random.default_rng(1).standard_normal((len(KNOWN), 3)).astype(np.float32)
        vectors[4, 2] = -np.inf  # not to be shown
        self.item_vectors = tf.Variable(vectors)

        @tf.function(autograph=False)
        def user_vectors(user, hour):
            return tf.stack([salted(user, "a"), salted(user, "b"), tf.ones_like(salted(user))], axis=1)

        @tf.function(autograph=False)
        def catalogue_scores(user, hour):
            return tf.matmul(user_vectors(user, hour), self.item_vectors, transpose_b=True)

        function = user_vectors if kind == "vectors" else catalogue_scores
        function.get_concrete_function(**of_users)
        setattr(self, "user_vectors" if kind == "vectors" else "catalogue_scores", function)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folders = {}
    for kind in ("ranker", "vectors", "scores"):
        model = Model(kind)
        folders[kind] = str(tmp_path_factory.mktemp(kind))
        tf.saved_model.save(model, folders[kind], signatures=model.served)
    return folders


@pytest.fixture(scope="module")
def assembled(models, tmp_path_factory):
    """SavedModels by name, (loaded, folder of versions), each loaded from where it was moved to."""
    made = {}
    inverted = Retrieval.model_validate({**TWO.model_dump(), "index": {"type": "inverted", "lists": 3, "probes": 3}})
    for name, model, retrieval, stages in (
        ("ranker", "ranker", None, Retrieval()),
        ("vectors", "vectors", None, Retrieval()),
        ("scores", "scores", None, Retrieval()),
        ("both", "ranker", "vectors", TWO),
        ("inverted", "ranker", "vectors", inverted),
    ):
        folder = tmp_path_factory.mktemp(name)
        assemble(models[model], retrieval and models[retrieval], COLUMNS, ITEMS, stages, str(folder / "made"))
        shutil.move(folder / "made", folder / "1")
        made[name] = tf.saved_model.load(str(folder / "1")), folder
    return made


def ask(loaded, k=K, exclude=NONE, users=USERS):
    found = loaded.signatures["recommend"](user=tf.constant(users), hour=HOUR, k=k, exclude=exclude)
    return found["items"].numpy().astype(str).tolist(), found["scores"].numpy(), found["counts"].numpy().tolist()


def best_by_ranker(user, among, k):
    items = tf.constant(among)
    prices = tf.constant([PRICES[i] for i in among])
    scores = (salted(tf.repeat([user], len(among)), items) + prices / 1e5 + 7 / 1e6).numpy()
    order = np.argsort(-scores)[:k]
    return [among[i] for i in order], scores[order]


def best_by_product(user, k):
    vectors = Model("vectors").item_vectors.numpy()
    query = np.array([salted([user], ["a"]).numpy()[0], salted([user], ["b"]).numpy()[0], 1.0])
    products = dict(zip(KNOWN, vectors @ query, strict=True))
    shown = [i for i in KNOWN if i in IDS and np.isfinite(products[i])]
    order = sorted(shown, key=lambda i: -products[i])[:k]
    return order, [products[i] for i in order]


def test_a_ranker_alone_scores_every_item(assembled):
    items, scores, _ = ask(assembled["ranker"][0])
    for user, row, values in zip(USERS, items, scores, strict=True):
        expected, best = best_by_ranker(user, IDS, 3)
        assert row == expected
        np.testing.assert_allclose(values, best, rtol=1e-5)


@pytest.mark.parametrize("kind", ["vectors", "scores"])
def test_a_retriever_alone_finds_what_it_scores_best_of_the_items_it_knows(assembled, kind):
    items, scores, _ = ask(assembled[kind][0])
    for user, row, values in zip(USERS, items, scores, strict=True):
        expected, best = best_by_product(user, 3)
        assert row == expected
        np.testing.assert_allclose(values, best, rtol=1e-4)
    # i0 is gone from the catalogue, i4 is not to be shown and of the new one it knows nothing.
    assert ask(assembled[kind][0], k=tf.constant([99], tf.int64))[2] == [10, 10, 10]


@pytest.mark.parametrize("kind", ["both", "inverted"])
def test_the_ranker_orders_the_candidates_of_the_retriever(assembled, kind):
    loaded, _ = assembled[kind]
    items, scores, _ = ask(loaded)
    alone = loaded.candidates(user=tf.constant(USERS), hour=HOUR, k=tf.constant([4], tf.int64), exclude=NONE)["items"]
    for place, user in enumerate(USERS):
        candidates, _ = best_by_product(user, 4)
        assert set(alone[place].numpy().astype(str)) == set(candidates)
        expected, values = best_by_ranker(user, candidates, 3)
        assert items[place] == expected
        np.testing.assert_allclose(scores[place], values, rtol=1e-5)


def test_what_the_model_could_do_before_it_still_can(assembled):
    after, _ = assembled["both"]
    assert set(after.signatures) == {"serving_default", "recommend"}
    assert after.explain(tf.constant(["abc"])).numpy().tolist() == [3]


def test_a_model_that_scores_pairs_only_cannot_retrieve(models, tmp_path):
    with pytest.raises(ValueError, match="scores pairs only"):
        assemble(models["ranker"], models["ranker"], COLUMNS, ITEMS, TWO, str(tmp_path / "x"))


def test_a_model_without_the_signature_recommends_by_what_it_is(models, assembled):
    """As the evaluation asks baselines; one of another feature table is asked for what it takes."""
    for kind in ("ranker", "vectors"):
        recommend = recommender_of(tf.saved_model.load(models[kind]), COLUMNS, ITEMS)
        found = recommend(user=tf.constant(USERS), hour=HOUR, k=K, exclude=NONE)["items"].numpy().astype(str)
        assert found.tolist() == ask(assembled[kind][0])[0]
    more = COLUMNS | {"age": RawColumn("age", "float", "user", None, float("nan"))}
    without_hour = {name: c for name, c in more.items() if name != "hour"}
    module, _ = best_items(tf.saved_model.load(models["ranker"]), without_hour, ITEMS)
    assert traced(module)(
        user=tf.constant(USERS), age=tf.constant([3.0]), k=K, exclude=NONE
    )["counts"].numpy().tolist() == [3, 3, 3]  # fmt: skip


def test_lists_in_place_of_every_item_are_an_option_of_the_retriever_alone_too(models, tmp_path):
    stages = Retrieval(index=Index(type="inverted", lists=2, probes=1))
    assemble(models["vectors"], None, COLUMNS, ITEMS, stages, str(tmp_path / "made"))
    items, _, counts = ask(tf.saved_model.load(str(tmp_path / "made")), k=tf.constant([99], tf.int64))
    assert counts == [10, 10, 10]
    assert all(len(set(row)) == 10 for row in items)


def test_a_server_recommends_and_says_what_is_wrong(assembled):
    """Over gRPC and REST: one user and two, k above the catalogue, all left out, unknown ids, and a k of 0."""
    loaded, folder = assembled["both"]
    expected, values, _ = ask(loaded, k=tf.constant([10], tf.int64), users=["ann"])
    factory = ServerFactory(folder)
    server = factory("--model_name=both", f"--model_base_path={folder}")
    try:
        for target in (f"grpc://{server.grpc_address}", f"http://{server.rest_address}"):
            with connect(target, "both") as client:

                def request(client=client, **inputs):
                    return client.predict({"user": ["ann"], **inputs}, signature="recommend").outputs

                found = request()  # k, exclude and hour by default
                names = [i.decode() if isinstance(i, bytes) else str(i) for i in found["items"][0]]
                assert names == expected[0]
                np.testing.assert_allclose(found["scores"], values, atol=1e-5)
                assert request(user=["ann", "nobody"], k=[2])["items"].shape == (2, 2)
                assert request(k=2)["items"].shape == (1, 2)
                assert request(k=[1000])["counts"].tolist() == [10]
                assert request(exclude=[["unknown", names[0]]])["counts"].tolist() == [len(names) - 1]
                assert request(exclude=[IDS])["counts"].tolist() == [0]
                with pytest.raises(ServingError, match="k: expected 1 or more"):
                    request(k=[0])
    finally:
        factory.stop()
