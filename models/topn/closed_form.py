"""Linear models of items by items in closed form: what ItemKNN, EASE and SLIST share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from configs.model.topn import EASE, SLIST, ItemKNN
from models.base import Inputs
from models.topn.interactions import Interactions, interactions
from models.topn.ranker import FittedRanker, Past, as_rows
from transforms.transformed import TransformedFeature

_MATRICES = 3  # items-by-items float64 matrices that are held at once


class ItemsByItems(FittedRanker):
    """Scores are a row of the user's past times a matrix of weights, [items, items].

    Its weights are counted and not trained: `fit_to` takes the interactions of the training split.
    """

    def __init__(
        self, config: ItemKNN | EASE | SLIST, features: Sequence[TransformedFeature], needs_order: bool = False
    ):
        super().__init__(config, features)
        self.past = Past(features, config.past, needed=needs_order)
        needed = _MATRICES * 8 * self.items**2 / 2**30
        if needed > config.max_gib:
            raise ValueError(
                f"keeps {self.items:,} by {self.items:,} numbers and needs {needed:,.1f} GiB of memory, more than "
                f"max_gib: {config.max_gib:g}. Raise max_gib, keep fewer items (top or min_count of the feature "
                f"{self.item.name}), or take a model of vectors such as ials"
            )
        self._weights = self.add_weight(
            name="weights", shape=[self.items, self.items], initializer="zeros", trainable=False
        )

    def adapt(self, examples: tf.data.Dataset) -> None:
        """Take the weights from batches of (inputs, labels)."""
        sequence = self.past.sequence
        self.fit_to(interactions(examples.as_numpy_iterator(), self.features, sequence.name if sequence else None))

    def fit_to(self, known: Interactions) -> None:
        """Take the weights from the interactions."""
        self.known = known
        self.past.keep(known)
        self._weights.assign(self.weights_of(known))

    def weights_of(self, known: Interactions) -> np.ndarray:
        """Return the weights, [items, items]."""
        raise NotImplementedError

    def rows(self, past: tf.Tensor) -> tf.Tensor:
        """Return the past as what the weights are multiplied with, [batch, items]."""
        return as_rows(past, self.items)

    def catalogue_scores(self, inputs: Inputs) -> tf.Tensor:
        """Return the score of each item, [batch, items]."""
        return tf.matmul(self.rows(self.past(inputs)), self._weights)


def without_self(inverse: np.ndarray, product: np.ndarray) -> np.ndarray:
    """Return the ridge solution `inverse @ product` with a diagonal of 0 (Steck 2019, equation 8)."""
    free = inverse @ product
    return free - inverse * (np.diag(free) / np.diag(inverse))
