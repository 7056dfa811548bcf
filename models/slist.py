"""SLIST (Choi et al. 2021): session-aware linear item-item models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse
import tensorflow as tf

from configs.model.topn import SLIST as SLISTConfig
from models.topn.closed_form import ItemsByItems, without_self
from models.topn.interactions import Interactions
from models.topn.ranker import as_rows, events_since
from transforms.transformed import TransformedFeature

_AT_ONCE = 1 << 16  # events whose pasts and futures are multiplied in one product
_REACH = 6  # decays after which an event's weight, below exp(-6), is left out


class SLIST(ItemsByItems):
    """min alpha |X - X B|^2 + (1 - alpha) |T - S B|^2 + l2 |B|^2 with diag(B) = 0 (equations 9 and 10).

    X has all events of a user, as EASE has them. S and T have a row for each event but a user's first: the events
    before it, and it with those after it; the farther, the less they weigh. Scores are of the past so weighed.
    Unlike in the paper, the diagonal is held to 0, since most items are met once.
    """

    def __init__(self, config: SLISTConfig, features: Sequence[TransformedFeature]):
        super().__init__(config, features, needs_order=True)
        self._config = config

    def weights_of(self, known: Interactions) -> np.ndarray:
        """Return B, [items, items]."""
        config, met = self._config, known.matrix()
        together = (met.T @ met).toarray() * config.alpha
        gram, product = together.copy(), together
        for before, after in self._pasts_and_futures(known):
            gram += (1 - config.alpha) * (before.T @ before).toarray()
            product += (1 - config.alpha) * (before.T @ after).toarray()
        gram[np.diag_indices_from(gram)] += config.l2
        return without_self(np.linalg.inv(gram), product)

    def rows(self, past: tf.Tensor) -> tf.Tensor:
        """Return exp(-events since / request_decay) of the past, [batch, items]."""
        since = tf.cast(events_since(past), tf.float32)
        return as_rows(past, self.items, tf.exp(-since / self._config.request_decay))

    def _pasts_and_futures(self, known: Interactions):
        """Yield rows of S and of T, sparse, for some thousand events at a time."""
        config, taken, events = self._config, [], 0
        for place, sequence in enumerate(known.sequences):
            taken.append(sequence)
            events += len(sequence)
            if events >= _AT_ONCE or place == len(known.sequences) - 1:
                yield self._decayed(taken, -1, config.past_decay), self._decayed(taken, 1, config.future_decay)
                taken, events = [], 0

    def _decayed(self, sequences: list[np.ndarray], direction: int, decay: float) -> scipy.sparse.csr_matrix:
        """Return a row for each event but the first of a sequence: what lies before it, or it and what lies after."""
        rows, columns, weights, first = [], [], [], 0
        for sequence in sequences:
            cuts = np.arange(1, len(sequence))
            for far in range(min(int(_REACH * decay) + 1, len(cuts))):
                at = cuts + far if direction > 0 else cuts - 1 - far
                inside = (at >= 0) & (at < len(sequence))
                rows.append(first + cuts[inside] - 1)
                columns.append(sequence[at[inside]])
                weights.append(np.full(inside.sum(), np.exp(-far / decay)))
            first += len(cuts)
        if not rows:
            return scipy.sparse.csr_matrix((1, self.items))
        entries = np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns))
        return scipy.sparse.csr_matrix(entries, (first, self.items))
