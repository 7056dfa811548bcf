"""EASE (Steck 2019): embarrassingly shallow autoencoder, linear and in closed form."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from configs.model.topn import EASE as EASEConfig
from models.topn.closed_form import ItemsByItems
from models.topn.interactions import Interactions
from transforms.transformed import TransformedFeature


class EASE(ItemsByItems):
    """min |X - X B|^2 + l2 |B|^2 with diag(B) = 0: B = I - P diagMat(1 / diag(P)), P = (X'X + l2 I)^-1 (equation 8)."""

    def __init__(self, config: EASEConfig, features: Sequence[TransformedFeature]):
        super().__init__(config, features)
        self._l2 = config.l2

    def weights_of(self, known: Interactions) -> np.ndarray:
        """Return B, [items, items]."""
        met = known.matrix()
        gram = (met.T @ met).toarray()
        gram[np.diag_indices_from(gram)] += self._l2
        inverse = np.linalg.inv(gram)
        weights = inverse / -np.diag(inverse)
        np.fill_diagonal(weights, 0.0)
        return weights
