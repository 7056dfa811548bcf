"""One request, the best k: a retriever finds candidates, a ranker orders them, both inside one SavedModel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from configs.features import RawColumn
from models.layers.index import Found, best, in_blocks
from transforms.raw import default_values, named_input_specs

PAIRS_AT_ONCE = 1 << 14  # rows that the ranker scores at a time: what bounds its memory
DEFAULT_K = 10

Columns = Mapping[str, tf.Tensor]  # named columns as the signatures take them
Ranker = Callable[[Columns], tf.Tensor]  # columns of [rows] -> scores [rows]
Retrieval = Callable[
    [Columns, tf.Tensor], Found
]  # columns of [batch], k -> scores, places in the catalogue, [batch, k]


@dataclass(frozen=True)
class Items:
    """The catalogue: ids [items], their columns by name, each [items], and how many training events each has."""

    ids: np.ndarray
    columns: Mapping[str, np.ndarray]
    events: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def in_fixed_order(cls, ids: list[str], columns: Mapping[str, list[Any]], events: list[int]) -> Items:
        """Return the items in an order by chance, but always the same one, that of equal scores.

        In any order that means something, as by popularity, a model that scores all items alike would seem to know it.
        """
        by_id = np.argsort(np.array(ids, object), kind="stable")
        order = by_id[np.random.default_rng(0).permutation(len(ids))]
        return cls(
            np.array(ids, object)[order],
            {name: np.array(cells, object)[order] for name, cells in columns.items()},
            np.array(events, np.int64)[order],
        )


class BestItems(tf.Module):
    """The best items of the catalogue for users: by retrieval, by the ranker, or by both, one after the other.

    With both, the ranker orders the `candidates` that retrieval finds; alone, it scores every item, in blocks.
    """

    def __init__(
        self,
        columns: Mapping[str, RawColumn],
        items: Items,
        retrieval: Retrieval | None,
        ranker: Ranker | None,
        candidates: int,
    ):
        super().__init__()
        if retrieval is None and ranker is None:
            raise ValueError("needs a retrieval, a ranker or both")
        self._asked = {name: c for name, c in columns.items() if c.of != "item"}
        self._retrieval, self._ranker, self._candidates = retrieval, ranker, candidates
        self._count = len(items)
        self._ids = tf.Variable(tf.constant(items.ids, tf.string), trainable=False, name="ids")
        of_items = {name: c for name, c in columns.items() if c.of == "item"} if ranker else {}
        specs = named_input_specs(of_items.values())
        self._columns = {
            name: tf.Variable(tf.constant(list(items.columns[name]), specs[name].dtype), trainable=False, name=name)
            for name in of_items
        }
        self._places = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(
                tf.constant(items.ids, tf.string), tf.range(self._count), tf.string, tf.int32
            ),
            -1,
        )

    def signature(self) -> dict[str, tf.TensorSpec]:
        """Return the inputs by name. `k` is [], [1] or [batch]; `exclude` is [1, n] or [batch, n], "" for none."""
        return named_input_specs(self._asked.values()) | {
            "k": tf.TensorSpec(None, tf.int64, "k"),
            "exclude": tf.TensorSpec([None, None], tf.string, "exclude"),
        }

    def defaults(self) -> dict[str, tf.Tensor]:
        """Return what stands for each input that a request leaves out."""
        return default_values(self._asked.values()) | {
            "k": tf.constant([DEFAULT_K], tf.int64),
            "exclude": tf.constant([[""]]),
        }

    def __call__(self, **given: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return `items` [batch, n], best first, their `scores` [batch, n], and `counts` [batch], the items of each.

        n is the largest k, or as many items as there are. A row that has fewer ends in "" with a score of 0. Raises
        InvalidArgumentError, from the graph, where a k is below 1 or columns differ in length.
        """
        return self._answer(given, self._ranker)

    def candidates(self, **given: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return the same by retrieval alone."""
        return self._answer(given, None)

    def _answer(self, given: Columns, ranker: Ranker | None) -> dict[str, tf.Tensor]:
        given = self.defaults() | dict(given)
        given["k"] = tf.reshape(given["k"], [-1])
        batch = tf.reduce_max(tf.stack([tf.shape(x)[0] for x in given.values()]))
        given = {n: tf.broadcast_to(x, tf.concat([[batch], tf.shape(x)[1:]], axis=0)) for n, x in given.items()}
        k, exclude = given.pop("k"), given.pop("exclude")
        with tf.control_dependencies(
            [tf.debugging.assert_positive(k, message="k: expected 1 or more, the number of items to recommend")]
        ):
            k = tf.cast(tf.minimum(k, self._count), tf.int32)
        excluded = tf.sort(self._places.lookup(exclude), axis=1)
        scores, places = self._best(given, tf.reduce_max(k), excluded, ranker)
        # A row has what is no exclusion, what has a score at all, and no more than it asked for.
        within = tf.logical_and(scores > -np.inf, tf.range(tf.shape(scores)[1]) < k[:, tf.newaxis])
        counts = tf.reduce_sum(tf.cast(within, tf.int32), axis=1)
        width = tf.reduce_max(tf.pad(counts, [[0, 1]]))
        within, scores, places = within[:, :width], scores[:, :width], places[:, :width]
        return {
            "items": tf.where(within, tf.gather(self._ids, places), ""),
            "scores": tf.where(within, scores, 0.0),
            "counts": counts,
        }

    def _best(self, asked: Columns, k: tf.Tensor, excluded: tf.Tensor, ranker: Ranker | None) -> Found:
        """Return the best `k`, or all there are, for columns of [batch]; what is excluded or missing scores -inf."""
        if self._retrieval is None:
            rows = tf.shape(excluded)[0]
            places = tf.broadcast_to(tf.range(self._count), [rows, self._count])
            return best(_without(self._ranked(asked, places), places, excluded), k)
        wanted = tf.maximum(k, self._candidates) if ranker else k
        # No more than all that is excluded can be among the best.
        scores, places = self._retrieval(asked, tf.minimum(wanted + tf.shape(excluded)[1], self._count))
        scores = _without(scores, places, excluded)
        scores, at = tf.math.top_k(scores, tf.minimum(wanted, tf.shape(scores)[1]))
        places = tf.gather(places, at, batch_dims=1)
        if ranker is None:
            return scores, places
        ranked = tf.where(scores > -np.inf, self._ranked(asked, places), -np.inf)
        scores, at = tf.math.top_k(ranked, tf.minimum(k, tf.shape(ranked)[1]))
        return scores, tf.gather(places, at, batch_dims=1)

    def _ranked(self, asked: Columns, places: tf.Tensor) -> tf.Tensor:
        """Return the ranker's scores of the items at `places` [batch, n] for each row of `asked`."""
        rows, n = tf.unstack(tf.shape(places), 2)
        ranker = self._ranker
        assert ranker is not None

        def score(user: tf.Tensor, place: tf.Tensor) -> tuple[tf.Tensor]:
            of_user = {name: tf.gather(column, user) for name, column in asked.items()}
            of_item = {name: tf.gather(column, place) for name, column in self._columns.items()}
            return (ranker({**of_user, **of_item}),)

        pairs = [tf.repeat(tf.range(rows), n), tf.reshape(places, [-1])]
        return tf.reshape(in_blocks(score, pairs, PAIRS_AT_ONCE, [tf.TensorSpec([None], tf.float32)])[0], [rows, n])


def _without(scores: tf.Tensor, places: tf.Tensor, excluded: tf.Tensor) -> tf.Tensor:
    """Return `scores` [batch, n], those at places in sorted `excluded` [batch, m] as -inf."""
    at = tf.searchsorted(excluded, places)
    held = tf.gather(tf.pad(excluded, [[0, 0], [0, 1]], constant_values=-1), at, batch_dims=1)
    return tf.where(tf.equal(held, places), -np.inf, scores)
