"""Negatives for models that learn from labels, on logs that hold positives alone; and what corrects their logits.

A positive pair of a user and an item is met once among the examples, a pair (u, i) that was not met is drawn
s = count * events(u) * q(i | u) times an epoch, in expectation. So the odds among the rows there are those among all
pairs divided by s, and a model whose logit less log s is trained on the rows has the logit of all pairs (prior
correction, King and Zeng 2001, pair by pair). Nothing is left to correct in what is served.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tf_keras as keras

from configs.model import Drawn
from configs.model.training import SampledNegatives
from models.base import TrainingSource
from models.topn.catalogue import Catalogue
from models.topn.interactions import interactions
from models.topn.negatives import Sampler
from models.topn.ranker import ranking_of
from transforms.transformed import PADDING, TransformedFeature, id_of

DRAWN = "__log_drawn"  # input of a training batch: log of how often its pair is drawn an epoch, had it not been met
RANKED = "ndcg_at_10"
_USERS_RANKED = 256  # whose items are all scored, to choose the best epoch


class WithNegatives:
    """Training examples, each positive followed by drawn items with a label of 0, the user and the context the same."""

    def __init__(
        self,
        examples: TrainingSource,
        everything: tf.data.Dataset,
        features: Sequence[TransformedFeature],
        config: SampledNegatives,
    ):
        """`everything` is one pass over the training split in batches of (inputs, labels), whatever this part of it is.

        Raises ValueError where a feature crosses those of user and item: it cannot be made anew for another item.
        """
        if crossed := [f.name for f in features if f.crossed and f.of == "context"]:
            raise ValueError(f"training.negatives does not go with the crossed feature {crossed[0]}; leave it out")
        self._examples, self._features, self._count = examples, list(features), config.count
        self._user, self.item = id_of("user", features), id_of("item", features)
        batches = list(everything.as_numpy_iterator())
        self.known = interactions(batches, features)
        catalogue = Catalogue(batches, features, self.item)
        self._of_item = {name: tf.constant(rows) for name, rows in catalogue.features.items()}
        self._sampler = Sampler(Drawn(by=config.by, count=config.count, alpha=config.alpha), self.known)
        events = np.bincount(self.known.users, minlength=self.known.user_count)
        self._log_events = tf.constant(np.log(np.maximum(events, 1)), tf.float32)
        self.count = examples.count

    def steps(self, batch: int) -> int:
        """Return how many batches of so many examples of the logs hold everything once."""
        return self._examples.steps(batch)

    def batches(
        self, batch: int, steps: int, epochs: int = 1, seed: int | None = None, first: int = 0
    ) -> tf.data.Dataset:
        """Return the batches of the examples, each with what is drawn for its positives."""
        return self._examples.batches(batch, steps, epochs, seed, first).map(self._with_drawn)

    def _with_drawn(self, inputs, labels):
        positive = tf.where(labels > 0)[:, 0]
        users = tf.gather(inputs[self._user.name], positive)
        columns, usable = self._sampler.draw(users)
        of_row = tf.boolean_mask(tf.repeat(positive[:, tf.newaxis], self._count, axis=1), usable)
        columns = tf.boolean_mask(columns, usable)
        joined = {}
        for f in self._features:
            own, drawn = inputs[f.name], tf.gather(inputs[f.name], of_row)
            if f.of == "item":
                drawn = tf.gather(self._of_item[f.name], columns)
                if f.multivalued:
                    short = tf.maximum(tf.shape(drawn)[1] - tf.shape(own)[1], 0)
                    own = tf.pad(own, [[0, 0], [0, short]], constant_values=PADDING)
                drawn = tf.cast(drawn, own.dtype)
            joined[f.name] = tf.concat([own, drawn], axis=0)
        user, item = joined[self._user.name], joined[self.item.name] - 1
        item = tf.clip_by_value(item, 0, self.known.item_count - 1)
        often = self._sampler.log_q(user, item[:, tf.newaxis])[:, 0] + tf.gather(self._log_events, user)
        joined[DRAWN] = often + tf.math.log(float(self._count))
        return joined, tf.concat([labels, tf.zeros([tf.size(columns)], labels.dtype)], axis=0)

    def ranking(self, model: keras.Model, examples: tf.data.Dataset) -> dict[str, float]:
        """Return NDCG@10 of some users' eval items among all items."""
        return {RANKED: ranking_of(_Asked(model, self), self.known, examples, _USERS_RANKED)}

    def of_all_items(self, inputs) -> dict[str, tf.Tensor]:
        """Return the rows that ask about every item for one user, whose own row `inputs` is, without a batch."""
        items = self.known.item_count
        repeated = {f.name: tf.repeat(inputs[f.name][tf.newaxis], items, axis=0) for f in self._features}
        return repeated | self._of_item


class _Asked:
    """A model that scores rows, asked about every item."""

    def __init__(self, model: keras.Model, drawn: WithNegatives):
        self._model, self._drawn = model, drawn
        self.item, self.items, self.features = drawn.item, drawn.known.item_count, drawn._features

    def catalogue_scores(self, inputs) -> tf.Tensor:
        def of_one(row):
            return self._model(self._drawn.of_all_items(row), training=False)

        return tf.map_fn(of_one, dict(inputs), fn_output_signature=tf.float32)
