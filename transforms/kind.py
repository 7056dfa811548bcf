"""What a kind of feature does in TensorFlow, and what it may ask of the others while it does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import tensorflow as tf

from configs.features import Cold, Feature, FeatureKind, Owner

F = TypeVar("F", bound=FeatureKind)


@dataclass(frozen=True)
class TransformedFeature:
    """One input of a model.

    Ids (`size` > 0) are int64 in [0, size), of shape [batch], or [batch, values] padded with PADDING where
    `multivalued`. Numbers (`size` == 0) are float32 of shape [batch]. `oov` are the ids of unknown values, `hideable`
    says that the feature identifies a single user or item, `crossed` that it is the pair of two others. `table` names
    the feature whose embeddings it looks up, "" its own. `quotient_remainder` and `cold` are as the feature table has
    them.

    `ids` are the features that identify a single user or item and that this one gives away: itself, the parts of a
    cross, what a sequence is of.

    A sequence is several-valued, oldest first, always `length` wide; its ids are those of the feature `sequence_of`.
    """

    name: str
    of: Owner
    size: int
    dim: int | None = None
    multivalued: bool = False
    pool: Literal["mean", "sum"] = "mean"
    oov: tuple[int, int] | None = None
    hideable: bool = False
    table: str = ""
    quotient_remainder: int | None = None
    cold: Cold = "learnt"
    crossed: bool = False
    sequence_of: str | None = None
    length: int | None = None
    ids: tuple[str, ...] = ()

    @property
    def gives_id_away(self) -> bool:
        """Whether its value tells a single user or item."""
        return self.hideable or bool(self.ids)

    @property
    def rows(self) -> int:
        """Rows of its embedding table."""
        if self.quotient_remainder:
            return -(-self.size // self.quotient_remainder) + self.quotient_remainder
        return max(self.size, 1)


class Batch:
    """A batch of raw columns on its way through the TFT graph. Features that need others ask for them by name."""

    def __init__(
        self,
        features: Mapping[str, Feature],
        inputs: Mapping[str, tf.SparseTensor],
        time: str | None,
        kinds: Mapping[str, Kind],
    ):
        """`time` is the event time's column."""
        self.features = features
        self.inputs = inputs
        self.time = time
        self.vocabularies: dict[str, Any] = {}  # what TFT learnt, by the name of the feature whose table it is
        self._kinds = kinds
        self._made: dict[str, Any] = {}

    def transformed(self, name: str) -> Any:
        """Return the transformed feature `name`; what was made once is not made again."""
        if name not in self._made:
            feature = self.features[name]
            self._made[name] = self._kinds[feature.kind].transform(name, feature, self)
        return self._made[name]

    def lookup(self, name: str, table: Any, text: Any) -> Any:
        """Return ids from 0 of text in the table of the text feature `name`, declared as `table`."""
        kind: Any = self._kinds[table.kind]
        return kind.lookup(name, table, text, self)

    def token(self, name: str) -> tf.Tensor:
        """Return what a cross hashes of the feature `name`, text [batch]."""
        feature = self.features[name]
        return self._kinds[feature.kind].token(name, feature, self)


class Inputs:
    """The inputs of models as they come out of a feature table and its vocabularies."""

    def __init__(
        self,
        features: Mapping[str, Feature],
        vocabulary_size: Callable[[str], int],
        id_columns: tuple[str, str],
        kinds: Mapping[str, Kind],
    ):
        """`id_columns` are the user's and the item's."""
        self.features = features
        self.vocabulary_size = vocabulary_size
        self.id_columns = id_columns
        self._kinds = kinds

    def described(self, name: str) -> TransformedFeature:
        """Return the model's input of the feature `name`."""
        feature = self.features[name]
        return self._kinds[feature.kind].describe(name, feature, self)


class Kind(ABC, Generic[F]):
    """One kind of feature in TensorFlow, the counterpart of its declaration in `configs/features`."""

    @abstractmethod
    def transform(self, name: str, feature: F, batch: Batch) -> tf.Tensor | tf.SparseTensor:
        """Return ids or numbers: dense int64 or float32 of shape [batch], or sparse int64 ids where several-valued."""

    @abstractmethod
    def describe(self, name: str, feature: F, inputs: Inputs) -> TransformedFeature:
        """Return what models receive."""

    def token(self, name: str, feature: F, batch: Batch) -> tf.Tensor:
        """Return what a cross hashes, text [batch]: the id's number."""
        return tf.strings.as_string(batch.transformed(name))
