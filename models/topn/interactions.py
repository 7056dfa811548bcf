"""Who met what in the training split, as models that rank all items learn from it: pairs, and events in order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import scipy.sparse

from configs.features import WEIGHT
from transforms.transformed import PADDING, TransformedFeature, id_of


@dataclass(frozen=True)
class Interactions:
    """The positives of a training split.

    `users`, `items` and `weights` are [events]; a user is its id in the feature table, an item its column: the id less
    1. `sequences` holds columns of items in the order of their events, oldest first; one sequence a user where the
    user's past is not longer than the feature that holds it, else as many as cover it.
    """

    users: np.ndarray
    items: np.ndarray
    weights: np.ndarray
    user_count: int
    item_count: int
    sequences: list[np.ndarray] = field(default_factory=list)
    owners: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # the user of each sequence

    def __post_init__(self) -> None:
        if not len(self.users):
            raise ValueError("needs a positive event of a known item in the training split, and there is none")

    def matrix(self, binary: bool = True) -> scipy.sparse.csr_matrix:
        """Return [users, items] float64: 1 where they met, or the sum of the events' weights."""
        shape = (self.user_count, self.item_count)
        found = scipy.sparse.csr_matrix((self.weights.astype(np.float64), (self.users, self.items)), shape)
        found.sum_duplicates()
        if binary:
            found.data[:] = 1.0
        return found

    def sizes(self) -> dict[str, int]:
        """Return how many `events` there are, and of how many `users` and `items`."""
        return {"events": len(self.users), "users": len(np.unique(self.users)), "items": len(np.unique(self.items))}

    def counts(self) -> np.ndarray:
        """Return how many events each item has, [items]."""
        return np.bincount(self.items, minlength=self.item_count)

    def pairs(self) -> np.ndarray:
        """Return user * items + item of each pair that met, sorted, each once."""
        return np.unique(self.users.astype(np.int64) * self.item_count + self.items)


def interactions(batches: Iterable, features: Sequence[TransformedFeature], past: str | None = None) -> Interactions:
    """Return the positives among batches of (features, labels), as arrays; `past` names the sequence to order them by.

    Weights are those of the rows' WEIGHT, 1 where there is none. Rows without a label above 0, without a known item,
    and sequences' unknown items are left out.
    """
    user, item = id_of("user", features), id_of("item", features)
    count = known_items(item)
    parts: dict[str, list[np.ndarray]] = {"users": [], "items": [], "weights": [], "past": []}
    for inputs, labels in batches:
        ids, labels = np.asarray(inputs[item.name]), np.asarray(labels)
        taken = (labels > 0) & (ids > 0) & (ids <= count)
        parts["users"].append(np.asarray(inputs[user.name])[taken])
        parts["items"].append(ids[taken] - 1)
        weights = np.asarray(inputs.get(WEIGHT, np.ones(len(labels))))
        parts["weights"].append(weights[taken].astype(np.float64))
        if past:
            parts["past"].append(columns_of(np.asarray(inputs[past])[taken], count))
    users, items, weights = (
        np.concatenate(parts[name]) if parts[name] else np.zeros(0, np.int64) for name in ("users", "items", "weights")
    )
    sequences, owners = in_order(users, items, np.concatenate(parts["past"])) if parts["past"] else ([], users[:0])
    return Interactions(users, items, weights, user.size, count, sequences, owners)


def known_items(item: TransformedFeature) -> int:
    """Return how many items the vocabulary has. Raises ValueError where ids are hashed: no item has a name then."""
    if item.oov is None or item.oov == (0, 1) or item.multivalued:
        raise ValueError(f"needs {item.name} as kind vocabulary: what it finds has to have a name")
    return item.oov[0] - 1


def columns_of(ids: np.ndarray, count: int) -> np.ndarray:
    """Return ids of a vocabulary as columns, PADDING where an item is unknown."""
    return np.where((ids > 0) & (ids <= count), ids - 1, PADDING)


def in_order(
    users: np.ndarray, items: np.ndarray, pasts: np.ndarray, seed: int = 1
) -> tuple[list[np.ndarray], np.ndarray]:
    """Return users' events in order and whose they are, from rows of (user, item, past [events, length]).

    A row with the longest past of its user has all events before it, and in their order; rows of one time have the
    same past and follow it. Of a user with more events than a past can hold, rows are taken until every item is in one.
    """
    lengths = (pasts != PADDING).sum(axis=1)
    order = np.lexsort((lengths, users))
    starts = np.flatnonzero(np.append(True, users[order][1:] != users[order][:-1]))
    random = np.random.default_rng(seed)
    found: list[np.ndarray] = []
    owners: list[int] = []
    for rows in np.split(order, starts[1:]):
        last = rows[lengths[rows] == lengths[rows[-1]]]
        if lengths[last[0]] < pasts.shape[1]:
            past = pasts[last[0]]
            found.append(np.concatenate([past[past != PADDING], items[last]]))
            owners.append(users[rows[0]])
            continue
        covered: set[int] = set()
        for row in (*random.permutation(last), *rows[::-1]):
            if items[row] not in covered:
                past = pasts[row]
                found.append(np.append(past[past != PADDING], items[row]))
                owners.append(users[row])
                covered.update(found[-1][1:].tolist())
    return found, np.array(owners, np.int64)
