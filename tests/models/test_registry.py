"""Every type of model that the config knows keeps the contract of models."""

import numpy as np
import pytest
import tensorflow as tf
from pydantic import TypeAdapter

from configs.model import MODELS, Fallback, Model
from models.base import ClosedForm, Explainable, MissingFeatureError, Prepared, Recommender, Retriever
from models.registry import CAPABILITIES, build_model, capabilities, implementation
from transforms.transformed import PADDING, TransformedFeature

FEATURES = [
    TransformedFeature("user", "user", 30, oov=(28, 30), hideable=True),
    TransformedFeature("item", "item", 20, oov=(18, 20), hideable=True),
    TransformedFeature("tags", "item", 6, multivalued=True),
    TransformedFeature("price", "item", 0),
    TransformedFeature("recent", "user", 20, multivalued=True, oov=(18, 20), sequence_of="item", length=3),
]
RANDOM = np.random.default_rng(1)
INPUTS = {
    "user": tf.constant(RANDOM.integers(0, 30, 8)),
    "item": tf.constant(RANDOM.integers(1, 18, 8)),
    "tags": tf.constant(RANDOM.integers(-1, 6, [8, 2])),
    "price": tf.constant(RANDOM.normal(size=8).astype(np.float32)),
    "recent": tf.constant(RANDOM.integers(PADDING, 18, [8, 3])),
}
ARCHITECTURES = {name: config for name, config in MODELS.items() if config.implementation}
EXAMPLES = tf.data.Dataset.from_tensors((INPUTS, tf.constant([1.0, 0, 0, 1, 1, 0, 1, 0])))


@pytest.fixture(params=ARCHITECTURES)
def model(request) -> Recommender:
    """A model of each type with its defaults, fitted where that takes no gradient steps."""
    made = build_model(TypeAdapter(Model).validate_python({"type": request.param}), FEATURES)
    if isinstance(made, ClosedForm):
        made.adapt(EXAMPLES)
    if isinstance(made, Prepared):
        made.prepare(EXAMPLES)
    made(INPUTS, training=False)
    return made


def test_it_gives_a_logit_per_row_eager_and_traced(model):
    logits = model(INPUTS, training=False)
    assert logits.shape == [8]
    assert logits.dtype == tf.float32
    np.testing.assert_allclose(tf.function(model)(INPUTS, training=False), logits, rtol=1e-5, atol=1e-6)


def test_what_it_can_explain_adds_up_to_the_logits(model):
    if not isinstance(model, Explainable):
        pytest.skip("has no parts")
    parts = model.parts(INPUTS)
    total = sum(tf.reshape(part, [8, -1]).numpy().sum(axis=1) for part in parts.values())
    np.testing.assert_allclose(total, model(INPUTS, training=False), rtol=1e-4, atol=1e-5)


def test_what_it_retrieves_scores_as_the_rows_do(model):
    if not isinstance(model, Retriever):
        pytest.skip("retrieves nothing")
    model.index(EXAMPLES)
    scores = model.catalogue_scores(INPUTS).numpy()
    assert scores.shape == (8, model.catalogue_size)
    own = scores[np.arange(8), INPUTS["item"].numpy() - 1]
    unambiguous = np.array([(INPUTS["item"].numpy() == item).sum() == 1 for item in INPUTS["item"].numpy()])
    np.testing.assert_allclose(own[unambiguous], model(INPUTS, training=False).numpy()[unambiguous], atol=1e-4)
    ids, logits = model.retrieve(INPUTS)
    np.testing.assert_allclose(np.take_along_axis(scores, ids.numpy() - 1, axis=1), logits, atol=1e-5)
    assert (logits[:, :-1].numpy() >= logits[:, 1:].numpy()).all()


def test_the_registry_says_what_each_can_do():
    found = capabilities()
    assert set(found) == set(ARCHITECTURES)
    assert found["item_mean"] == ["ClosedForm"]
    assert found["deepfm"] == found["lr"] == ["Explainable"]
    assert found["two_tower"] == ["Retriever", "VectorRetriever"]
    for name, config in ARCHITECTURES.items():
        assert [c.__name__ for c in CAPABILITIES if issubclass(implementation(config), c)] == found[name]


def test_an_abstract_method_left_out_is_an_error_before_training():
    class Silent(Recommender, Explainable):
        def call(self, inputs, training=None):
            return inputs["price"]

    with pytest.raises(TypeError, match="parts"):
        Silent(MODELS["lr"](type="lr"), FEATURES)


def test_a_model_inside_another_names_itself():
    config = Fallback.model_validate({"type": "fallback", "known": {"type": "din"}})
    with pytest.raises(MissingFeatureError, match=r"^model din: needs a feature of kind sequence"):
        build_model(config, FEATURES[:-1])
