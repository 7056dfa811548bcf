"""Item-based nearest neighbours (Sarwar et al. 2001; Deshpande and Karypis 2004)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from configs.model.topn import ItemKNN as ItemKNNConfig
from models.topn.closed_form import ItemsByItems
from models.topn.interactions import Interactions
from transforms.transformed import TransformedFeature


class ItemKNN(ItemsByItems):
    """Cosine of two items' users, |U_i & U_j| / (sqrt(|U_i| |U_j|) + shrink), of each item's nearest neighbours."""

    def __init__(self, config: ItemKNNConfig, features: Sequence[TransformedFeature]):
        super().__init__(config, features)
        self._config = config

    def weights_of(self, known: Interactions) -> np.ndarray:
        """Return the similarities, [items, items]: row i says what having met i adds to each item."""
        met = known.matrix()
        common = (met.T @ met).toarray()
        size = np.sqrt(np.diag(common))
        np.fill_diagonal(common, 0.0)
        similar = common / np.maximum(np.outer(size, size) + self._config.shrink, 1e-12)
        if self._config.neighbours < len(similar):
            # Of each item that may be recommended, a column, its nearest neighbours.
            kept = np.argpartition(-similar, self._config.neighbours, axis=0)[: self._config.neighbours]
            nearest = np.zeros_like(similar)
            np.put_along_axis(nearest, kept, np.take_along_axis(similar, kept, axis=0), axis=0)
            similar = nearest
        return similar
