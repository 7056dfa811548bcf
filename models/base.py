"""The contract of models: what each of them is, and what some of them can do besides.

A model is a subclass of `Recommender`. What else it can do it says by inheriting from one of the abstract classes
below; training, export and evaluation ask with `isinstance` and nothing else.

| class | for models that | must define |
|---|---|---|
| `Prepared` | need a pass over the training examples before the first step: a graph, counts | `prepare` |
| `ClosedForm` | are fitted from all training examples at once, not by gradient steps | `adapt` |
| `OwnLoss` | are trained on another loss than binary cross-entropy | `example_losses` |
| `OwnBatches` | are trained on other batches than rows of examples: sequences, triples | `training_source` |
| `OwnValidation` | choose their best epoch by another metric than AUC | `validate`, `monitor` |
| `Explainable` | can say what a logit is made of | `parts` |
| `Retriever` | score the whole catalogue at once | `catalogue_scores` |
| `VectorRetriever` | do so by the product of a user's and an item's vector | `user_vectors`, `item_vectors` |
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import tensorflow as tf
import tf_keras as keras

from configs.model import ModelConfig
from models.layers.embedding import table_layers
from models.layers.index import best
from transforms.transformed import TransformedFeature

Inputs = Mapping[str, tf.Tensor]  # transformed features, each of the shape that TransformedFeature describes


class MissingFeatureError(ValueError):
    """The feature table lacks something that a model needs. The message names the model and what it needs."""


class Recommender(keras.Model, ABC):
    """Transformed features -> logits [batch].

    The constructor takes the model's own config and the features it sees, and raises ValueError where they lack one
    that the model needs. It makes layers, and draws no weights: those appear in the first call.
    """

    def __init__(self, config: ModelConfig, features: Sequence[TransformedFeature]):
        super().__init__()

    @abstractmethod
    def call(self, inputs: Inputs, training: bool | None = None) -> tf.Tensor:
        """Return the logits, [batch] float32. Losses of layers (`add_loss`) are means over the batch."""

    @property
    def output_biases(self) -> list[tf.Variable]:
        """The weights that a constant added to all logits is added to; none where there is no such weight.

        Training starts them at the logit of the base rate, and corrects them on the eval examples in the end.
        """
        return []

    def shift(self, by: float) -> None:
        """Add a constant to all logits, once built."""
        for bias in self.output_biases:
            bias.assign_add(tf.fill(bias.shape, tf.constant(by, bias.dtype)))

    def settle(self) -> None:
        """Do what is left once the best weights are known, before `index` and export."""
        for layer in table_layers(self):
            layer.settle()


class Prepared(ABC):
    """A model that needs a pass over the training examples before its first call."""

    @abstractmethod
    def prepare(self, examples: tf.data.Dataset) -> None:
        """Take one pass over all training examples: batches of (inputs, labels [batch]).

        It is called on every fresh model, on every worker and once more before export, and must leave the same each
        time. What it leaves has to be non-trainable weights or constants, so that it is exported too.
        """


class ClosedForm(ABC):
    """A model that is fitted from all training examples at once: by counting, in closed form, by sweeps of its own."""

    seeded = False  # whether two seeds give two models

    @abstractmethod
    def adapt(self, examples: tf.data.Dataset) -> None:
        """Fit the weights to all training examples: batches of (inputs, labels [batch]). It may iterate repeatedly."""

    def fitted_on(self) -> dict[str, int]:
        """Return what `adapt` took in, such as `events`, `users` and `items`, where the model keeps count."""
        return {}


class OwnLoss(ABC):
    """A model with a training loss of its own."""

    @abstractmethod
    def example_losses(self, inputs: Inputs, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Return the loss of each example, [batch].

        `logits` are those of the same inputs in training. Negatives are drawn here, with `tf.random`.
        """


class TrainingSource(Protocol):
    """Batches to train on; `models.training.examples.Examples` is the usual one."""

    count: int

    def steps(self, batch: int) -> int:
        """Return how many batches of that size hold everything once."""

    def batches(
        self, batch: int, steps: int, epochs: int = 1, seed: int | None = None, first: int = 0
    ) -> tf.data.Dataset:
        """Return `epochs` passes of `steps` batches (inputs, labels [batch]), from batch `first` of them all on.

        Seed and epoch decide the order, so that training can go on in the middle.
        """


class OwnBatches(ABC):
    """A model that is trained on something else than the rows of the training examples."""

    @abstractmethod
    def training_source(self, examples: TrainingSource) -> TrainingSource:
        """Return what to train on, made of this worker's share of the examples.

        The inputs of its batches may be any tensors by name: `call(training=True)` and `example_losses` receive them.
        Evaluation still asks the model about rows.
        """


class OwnValidation(ABC):
    """A model whose best epoch another metric decides, such as recall over the catalogue."""

    monitor: str  # the metric of `validate` to maximize

    @abstractmethod
    def validate(self, examples: tf.data.Dataset) -> dict[str, float]:
        """Return metrics of one pass over all eval examples, in batches of (inputs, labels [batch]).

        They are written beside AUC and LogLoss of each evaluation. Every worker is called with all examples.
        """


class Explainable(ABC):
    """A model that can say what its logits are made of."""

    @abstractmethod
    def parts(self, inputs: Inputs) -> dict[str, tf.Tensor]:
        """Return what adds up to the logits.

        `bias` [batch] and `first_order` [batch, fields]; where there are such parts, `pairs` [batch, fields, fields],
        above the diagonal, `deep` [batch, fields], and `deep_of_none` [batch]. Fields are in the order of the features.
        """


class Retriever(ABC):
    """A model that scores every item of the catalogue for a user, without being asked about each."""

    item: TransformedFeature  # the item's id, of kind vocabulary: what is retrieved must have a name
    top_k: int  # how many items the signatures return
    recall_target: float = 0.95  # share of the true best that the approximate search aims at

    def index(self, examples: tf.data.Dataset) -> None:  # noqa: B027
        """Make ready to retrieve, once trained, from a pass over the training examples: batches of (inputs, labels).

        Nothing by default, for models that know their items by id alone.
        """

    @abstractmethod
    def catalogue_scores(self, inputs: Inputs) -> tf.Tensor:
        """Return logits of all items for each row, [batch, items]; column j is the item of id j + 1.

        Only features of the user and the context count; those of items have their defaults. -inf marks an item that
        must not be shown.
        """

    @property
    @abstractmethod
    def catalogue_size(self) -> int:
        """How many items there are."""

    def retrieve(self, inputs: Inputs, approximate: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
        """Return ids and logits of the best items for each row's user, best first, both [batch, top_k].

        `approximate` asks XLA for no more than `recall_target` of the true best (Chern et al. 2022).
        """
        k = min(self.top_k, self.catalogue_size)
        if not approximate:
            logits, places = best(self.catalogue_scores(inputs), k)
        else:
            logits, places = self._approximate(inputs, k)
        return tf.cast(places, tf.int64) + 1, logits

    def _approximate(self, inputs: Inputs, k: int) -> tuple[tf.Tensor, tf.Tensor]:
        @tf.function(jit_compile=True, autograph=False)  # the operation has no kernel but XLA's
        def search(scores: tf.Tensor) -> Any:
            return tf.math.approx_max_k(scores, k, recall_target=self.recall_target)

        return search(self.catalogue_scores(inputs))


class VectorRetriever(Retriever):
    """A retriever whose logit is the product of a user's and an item's vector, biases being elements of them."""

    @abstractmethod
    def user_vectors(self, inputs: Inputs) -> tf.Tensor:
        """Return the vectors of users in their context, [batch, dim]."""

    @property
    @abstractmethod
    def item_vectors(self) -> tf.Variable:
        """The vectors of all items, [items, dim], row j being the item of id j + 1; there once `index` was called.

        A bias of -inf marks an item that must not be shown.
        """

    @property
    def catalogue_size(self) -> int:
        """How many items there are."""
        return self.item_vectors.shape[0]

    def catalogue_scores(self, inputs: Inputs) -> tf.Tensor:
        """Return the products of the user's vector with all items', [batch, items]."""
        return tf.matmul(self.user_vectors(inputs), self.item_vectors, transpose_b=True)
