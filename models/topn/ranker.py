"""What models that rank all items share: the item's id, the user's past, the ranking that chooses the best epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import tensorflow as tf
import tf_keras as keras

from configs.model.topn import TopN
from models.base import (
    ClosedForm,
    Inputs,
    OwnBatches,
    OwnLoss,
    OwnValidation,
    Prepared,
    Recommender,
    Retriever,
    TrainingSource,
    VectorRetriever,
)
from models.topn.interactions import Interactions, columns_of, interactions, known_items
from models.topn.negatives import Sampler
from models.topn.rows import TrainingRows, pairs_of
from transforms.transformed import PADDING, TransformedFeature, id_of

_VALIDATED = 10_000  # users, at most, whose ranking chooses the best epoch
_USERS_AT_ONCE = 512


class ItemRanker(Recommender, Retriever):
    """Transformed features -> logits [batch]; `catalogue_scores` reads the user's side of them alone.

    An item that the vocabulary does not have scores 0.
    """

    def __init__(self, config: TopN, features: Sequence[TransformedFeature]):
        super().__init__(config, features)
        self.features = list(features)
        self.item = id_of("item", features)
        self.items = known_items(self.item)
        self.top_k = config.top_k

    @property
    def catalogue_size(self) -> int:
        """How many items there are."""
        return self.items

    def call(self, inputs, training=None) -> tf.Tensor:
        """Return the logits of the rows' own items."""
        return picked(self.catalogue_scores(inputs), inputs[self.item.name] - 1)


class VectorRanker(ItemRanker, VectorRetriever):
    """One whose scores are products of two vectors, so that an index can search them."""

    def call(self, inputs, training=None) -> tf.Tensor:
        """Return the logits of the rows' own items."""
        column = inputs[self.item.name] - 1
        known = (column >= 0) & (column < self.items)
        vectors = tf.gather(tf.convert_to_tensor(self.item_vectors), tf.where(known, column, 0))
        return tf.reduce_sum(self.user_vectors(inputs) * vectors, axis=1) * tf.cast(known, tf.float32)


class FittedRanker(ItemRanker, ClosedForm, OwnValidation):
    """One that is fitted at once; its NDCG@10 over all items says what it came to."""

    monitor = "ndcg_at_10"
    known: Interactions

    def fitted_on(self) -> dict[str, int]:
        """Return the positives of the training split."""
        return self.known.sizes()

    def validate(self, examples: tf.data.Dataset) -> dict[str, float]:
        """Return NDCG@10 of users' eval items among all items but those of their training events."""
        return {"ndcg_at_10": ranking_of(self, self.known, examples)}


class TrainedRanker(ItemRanker, Prepared, OwnLoss, OwnBatches, OwnValidation):
    """One that is trained by steps on batches of its own; the epoch with the best NDCG@10 over all items is kept.

    In training `call` has nothing to say: the loss is of many items for a row, and `example_losses` knows which.
    """

    monitor = "ndcg_at_10"
    past: Past | None = None
    known: Interactions

    def prepare(self, examples: tf.data.Dataset) -> None:
        """Learn who met what in the training split."""
        self.known = interactions(examples.as_numpy_iterator(), self.features, self._past_name)
        if self.past is not None:
            self.past.keep(self.known)
        self.prepared(self.known)

    def prepared(self, known: Interactions) -> None:
        """Make what depends on it: a graph, a sampler. Called before the weights are made."""

    @property
    def _past_name(self) -> str | None:
        return self.past.sequence.name if self.past is not None and self.past.sequence else None

    def training_source(self, examples: TrainingSource) -> TrainingSource:
        """Return this worker's part of the batches."""
        rows = examples.batches(_USERS_AT_ONCE, examples.steps(_USERS_AT_ONCE)).as_numpy_iterator()
        return TrainingRows(self.training_rows(interactions(rows, self.features, self._past_name)))

    def training_rows(self, known: Interactions) -> dict[str, np.ndarray]:
        """Return the rows to train on: arrays with one first dimension."""
        raise NotImplementedError

    def call(self, inputs, training=None) -> tf.Tensor:
        """Return the logits of the rows' own items; in training zeros."""
        if training:
            return tf.zeros(tf.shape(next(iter(inputs.values())))[:1])
        return super().call(inputs)

    def refresh(self) -> None:
        """Make what retrieval reads from the weights as they are."""

    def index(self, examples: tf.data.Dataset) -> None:
        """Make ready to retrieve."""
        self.refresh()

    def validate(self, examples: tf.data.Dataset) -> dict[str, float]:
        """Return NDCG@10 of users' eval items among all items but those of their training events."""
        self.refresh()
        return {"ndcg_at_10": ranking_of(self, self.known, examples)}


class PairRanker(TrainedRanker):
    """One that is trained on pairs of a user and an item, each against items that the user did not meet."""

    sampler: Sampler

    def __init__(self, config, features: Sequence[TransformedFeature]):
        super().__init__(config, features)
        self.user = id_of("user", features)
        if self.user.multivalued:
            raise ValueError(f"needs {self.user.name} with one id a user: hashes: 2 gives it two")
        self.config = config

    def prepared(self, known: Interactions) -> None:
        """Make the sampler."""
        self.sampler = Sampler(self.config.negatives, known)

    def training_rows(self, known: Interactions) -> dict[str, np.ndarray]:
        """Return each pair that met."""
        return pairs_of(known)


class Past(keras.layers.Layer):
    """Transformed features -> columns of the items that the user met, oldest first, [batch, events], PADDING elsewhere.

    From the sequence of the item's id, named or the first there is. Without one, from what `keep` was given: the
    training split's events by user; then there is no order.
    """

    def __init__(self, features: Sequence[TransformedFeature], name: str | None = None, needed: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.item = id_of("item", features)
        self._items = known_items(self.item)
        found = [f for f in features if f.sequence_of == self.item.name and name in (None, f.name)]
        if name and not found:
            raise ValueError(f"past: {name} is no sequence of {self.item.name} among its features")
        if needed and not found:
            raise ValueError(f"needs a feature of kind sequence of {self.item.name}, for the order of events")
        self.sequence = found[0] if found else None
        if not self.sequence:
            self._user = id_of("user", features)
            if self._user.multivalued:
                raise ValueError(f"needs {self._user.name} with one id a user: hashes: 2 gives it two")

    @property
    def length(self) -> int:
        """The most events that a sequence holds."""
        return (self.sequence.length if self.sequence else None) or 0

    def keep(self, known: Interactions) -> None:
        """Keep each user's items, where no sequence gives them."""
        if self.sequence:
            return
        met = known.matrix()
        self._splits = tf.Variable(met.indptr.astype(np.int64), trainable=False, name="past_splits")
        self._values = tf.Variable(met.indices.astype(np.int64), trainable=False, name="past_items")

    def call(self, inputs) -> tf.Tensor:
        """Return the columns."""
        if self.sequence:
            ids = inputs[self.sequence.name]
            return tf.where((ids > 0) & (ids <= self._items), ids - 1, tf.constant(PADDING, ids.dtype))
        users = inputs[self._user.name]
        start = tf.gather(tf.convert_to_tensor(self._splits), users)
        count = tf.gather(tf.convert_to_tensor(self._splits), users + 1) - start
        place = tf.range(tf.reduce_max(tf.concat([count, [1]], axis=0)))
        given = place < count[:, tf.newaxis]
        at = tf.minimum(start[:, tf.newaxis] + place, tf.size(self._values, tf.int64) - 1)
        return tf.where(given, tf.gather(tf.convert_to_tensor(self._values), at), tf.constant(PADDING, tf.int64))


def picked(scores: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """Return scores[row, columns[row]], [batch]; 0 where the column is none of the scores'."""
    known = (columns >= 0) & (columns < tf.shape(scores, columns.dtype)[1])
    found = tf.gather(scores, tf.where(known, columns, 0), batch_dims=1)
    return tf.where(known, found, 0.0)


def events_since(past: tf.Tensor) -> tf.Tensor:
    """Return how many events of its row are newer than each: [batch, events] -> the same, int32."""
    return tf.cumsum(tf.cast(past >= 0, tf.int32), axis=1, exclusive=True, reverse=True)


def as_rows(past: tf.Tensor, items: int, weights: tf.Tensor | None = None) -> tf.Tensor:
    """Return rows of all items, [batch, items]: 1, or the largest weight [batch, events], where the past has them."""
    where = tf.where(past >= 0)
    columns = tf.stack([where[:, 0], tf.cast(tf.gather_nd(past, where), tf.int64)], axis=1)
    values = tf.ones([tf.shape(where)[0]]) if weights is None else tf.gather_nd(weights, where)
    return tf.tensor_scatter_nd_max(tf.zeros([tf.shape(past)[0], items]), columns, values)


class Ranks(Protocol):
    """What `ranking_of` asks."""

    item: TransformedFeature
    items: int
    features: list[TransformedFeature]

    def catalogue_scores(self, inputs: Inputs) -> tf.Tensor:
        """Return scores of all items, [batch, items]."""


def ranking_of(model: Ranks, known: Interactions, examples: tf.data.Dataset, most: int = _VALIDATED) -> float:
    """Return the mean of NDCG@10 of users' eval items, of `most` users; what they met in training is no candidate.

    A user is asked about as the row with its shortest past has it, which is the first.
    """
    user, firsts, wanted = id_of("user", model.features), {}, {}  # type: ignore[var-annotated]
    for inputs, labels in examples.as_numpy_iterator():
        columns = columns_of(inputs[model.item.name], model.items)
        pasts = np.zeros(len(labels), np.int64)
        for f in model.features:
            if f.sequence_of:
                pasts += (inputs[f.name] != PADDING).sum(axis=1)
        for row in np.flatnonzero(labels > 0):
            of = int(inputs[user.name][row])
            if of not in wanted and len(wanted) >= most:
                continue
            wanted.setdefault(of, set()).add(int(columns[row]))
            if of not in firsts or pasts[row] < firsts[of][0]:
                firsts[of] = int(pasts[row]), {f.name: inputs[f.name][row] for f in model.features}
    if not wanted:
        return 0.0
    met, users, total = known.matrix(), list(wanted), 0.0
    discounts = 1 / np.log2(np.arange(2, 12))
    ask = tf.function(model.catalogue_scores, reduce_retracing=True)
    for start in range(0, len(users), _USERS_AT_ONCE):
        some = users[start : start + _USERS_AT_ONCE]
        stacked = {f.name: tf.constant(np.stack([firsts[u][1][f.name] for u in some])) for f in model.features}
        scores = ask(stacked).numpy()
        seen = met[some]
        scores[np.repeat(np.arange(len(some)), np.diff(seen.indptr)), seen.indices] = -np.inf
        best = np.argsort(-scores, axis=1, kind="stable")[:, :10]
        for place, of in enumerate(some):
            hits = np.array([b in wanted[of] for b in best[place].tolist()])
            total += float((hits * discounts[: len(hits)]).sum() / discounts[: len(wanted[of])].sum())
    return total / len(users)
