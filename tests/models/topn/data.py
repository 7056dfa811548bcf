"""Small interactions and features for tests of models that rank all items."""

import numpy as np
import tensorflow as tf

from models.registry import build_model
from models.topn.interactions import Interactions
from transforms.transformed import PADDING, TransformedFeature

USERS, ITEMS, LENGTH = 12, 9, 10
FEATURES = [
    TransformedFeature("user", "user", USERS + 2, oov=(USERS + 1, USERS + 2), hideable=True),
    TransformedFeature("item", "item", ITEMS + 2, oov=(ITEMS + 1, ITEMS + 2), hideable=True),
    TransformedFeature(
        "past", "user", ITEMS + 2, multivalued=True, oov=(ITEMS + 1, ITEMS + 2), sequence_of="item", length=LENGTH
    ),
]


def known(seed: int = 1) -> Interactions:
    """Return events of users 1 to USERS, each of 2 to 7 items, none twice."""
    rng = np.random.default_rng(seed)
    sequences = [rng.permutation(ITEMS)[: rng.integers(2, 8)] for _ in range(USERS)]
    owners = np.arange(USERS) + 1
    users = np.repeat(owners, [len(s) for s in sequences])
    return Interactions(users, np.concatenate(sequences), np.ones(len(users)), USERS + 2, ITEMS, sequences, owners)


def inputs(interactions: Interactions) -> dict[str, tf.Tensor]:
    """Return a row for each user with its whole past."""
    past = np.full((len(interactions.sequences), LENGTH), PADDING, np.int64)
    for row, sequence in enumerate(interactions.sequences):
        past[row, : len(sequence)] = sequence + 1
    return {
        "user": tf.constant(interactions.owners),
        "item": tf.ones([len(past)], tf.int64),
        "past": tf.constant(past),
    }


def prepared(config, features=FEATURES, interactions: Interactions | None = None, spread: float = 0.5):
    """Return a model that is trained by steps, its weights drawn from a wide normal distribution."""
    interactions = interactions or known()
    model = build_model(config, features)
    model.known = interactions
    if model.past is not None:
        model.past.keep(interactions)
    model.prepared(interactions)
    model(inputs(interactions))
    rng = np.random.default_rng(3)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(scale=spread, size=weight.shape))
    model.refresh()
    return model
