"""The items of the vocabulary with their features, as training examples had them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from models.topn.interactions import known_items
from transforms.transformed import PADDING, TransformedFeature


class Catalogue:
    """Features of items by name, row j the item of id j + 1: [items], or [items, values]. `met` is [items]."""

    def __init__(self, batches: Iterable, features: Sequence[TransformedFeature], item: TransformedFeature):
        """Take each known item's features from the first example that has it, of batches of (inputs, labels)."""
        known = known_items(item)
        of_item = [f for f in features if f.of == "item"]
        self.met = np.zeros([known], bool)
        rows = {f.name: np.full([known, 1], PADDING) for f in of_item}
        for inputs, _ in batches:
            ids, first = np.unique(inputs[item.name], return_index=True)
            new = (ids > 0) & (ids <= known)
            new[new] = ~self.met[ids[new] - 1]
            ids, first = ids[new] - 1, first[new]
            self.met[ids] = True
            for f in of_item:
                values = np.asarray(inputs[f.name]).reshape([len(inputs[f.name]), -1])[first]
                rows[f.name] = _as_wide(rows[f.name].astype(values.dtype), values)
                rows[f.name][ids, : values.shape[1]] = values
        self.features = {f.name: rows[f.name] if f.multivalued else rows[f.name][:, 0] for f in of_item}


def _as_wide(kept: np.ndarray, values: np.ndarray) -> np.ndarray:
    more = values.shape[1] - kept.shape[1]
    return np.pad(kept, [[0, 0], [0, more]], constant_values=PADDING) if more > 0 else kept
