"""Two towers (Yi et al. 2019): a vector of the user, a vector of the item, and their product."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tf_keras as keras

from configs.model import TwoTower as TwoTowerConfig
from models.base import Recommender, VectorRetriever
from models.layers.deep import Dropout
from models.layers.embedding import FieldEmbedding
from models.layers.hide_ids import HideIds
from models.topn.catalogue import Catalogue
from transforms.transformed import TransformedFeature, id_of


class TwoTower(Recommender, VectorRetriever):
    """Transformed features -> logits [batch]: user's vector . item's vector + a bias of each + one of all.

    Nothing of the item is in the user's tower, so the best items of all are found without scoring each anew:
    `index` keeps the vectors of the items of the training examples, `retrieve` searches them. It is trained on the
    label of each example, as the other models are, not on which of a batch's items was met. Crosses of the user's and
    the item's features belong to neither tower and are not used.
    """

    def __init__(self, config: TwoTowerConfig, features: Sequence[TransformedFeature]):
        super().__init__(config, features)
        self.item = id_of("item", features)
        if self.item.oov == (0, 1):
            raise ValueError(f"needs {self.item.name} as kind vocabulary: what it retrieves has to have a name")
        self._of_item = [f for f in features if f.of == "item"]
        of_user = [f for f in features if f.of != "item" and not (f.crossed and f.of == "context")]
        self._hide = HideIds(features, config.id_dropout)
        self._user_tower = Tower(of_user, config)
        self._item_tower = Tower(self._of_item, config)
        self._bias = self.add_weight(name="bias", shape=[], initializer="zeros")
        self.top_k = config.top_k
        self.recall_target = config.recall_target

    def call(self, inputs, training=None) -> tf.Tensor:
        """Return the logits."""
        inputs = self._hide(inputs, training=training)
        user, item = self._user_tower(inputs, training=training), self._item_tower(inputs, training=training)
        return tf.reduce_sum(user[:, :-1] * item[:, :-1], axis=1) + user[:, -1] + item[:, -1] + self._bias

    def index(self, examples: tf.data.Dataset) -> None:
        """Keep the vectors of the known items, their features taken from batches of (features, labels)."""
        found = Catalogue(examples.as_numpy_iterator(), self._of_item, self.item)
        vectors = np.concatenate(
            [
                self._item_tower({name: tf.constant(v[at : at + 8192]) for name, v in found.features.items()}).numpy()
                for at in range(0, len(found.met), 8192)
            ]
        )
        vectors = np.insert(vectors, -1, 1.0, axis=1)
        vectors[~found.met, -1] = -np.inf  # an item of the vocabulary that no example has: there is nothing to show
        self._index = tf.Variable(vectors, trainable=False, name="index")

    def user_vectors(self, inputs) -> tf.Tensor:
        """Return the users' vectors, [batch, output_dim + 2]: the vector, its bias, and 1 for the item's."""
        user = self._user_tower(inputs)
        return tf.concat([user[:, :-1], user[:, -1:] + self._bias, tf.ones_like(user[:, -1:])], axis=1)

    @property
    def output_biases(self) -> list[tf.Variable]:
        """The bias of all logits."""
        return [self._bias]

    @property
    def item_vectors(self) -> tf.Variable:
        """The vectors of known items, [items, output_dim + 2]: the vector, 1 for the user's bias, and its own."""
        return self._index


class Tower(keras.layers.Layer):
    """Transformed features of one side -> its vector and, last, its bias: [batch, output_dim + 1]."""

    def __init__(self, features: Sequence[TransformedFeature], config: TwoTowerConfig, **kwargs):
        super().__init__(**kwargs)
        self._embedding = FieldEmbedding(features, config.embedding_dim, config.l2)
        layers = keras.layers
        self._layers = [
            layers.Flatten(),
            Dropout(config.dropout),
            *(
                layer
                for width in config.hidden
                for layer in (layers.Dense(width, activation="relu"), Dropout(config.dropout))
            ),
            layers.Dense(config.output_dim + 1),
        ]

    def call(self, inputs, training=None) -> tf.Tensor:
        """Return the vector."""
        vector = self._embedding(inputs)
        for layer in self._layers:
            vector = layer(vector, training=training) if isinstance(layer, Dropout) else layer(vector)
        return vector
