"""The served model: preprocessing and scoring in one SavedModel with four signatures.

`serving_default`     named raw columns, each [batch] or [1] -> score [batch]
`rank`                the same, read as one user and context ([1]) and n items ([n]) -> scores [n]
`serve_examples`      serialized tf.train.Examples [batch] -> outputs [batch], scores [batch, 1]; for Regress, Classify
                      and the evaluator
`transform_features`  named raw columns -> what the model receives

A column that a request leaves out takes its declared default in all four. A model that retrieves has two more:

`retrieve`              named raw columns of users and context -> items [batch, k], scores [batch, k], best first
`retrieve_approximate`  the same, by XLA's approximate search

Beside the signatures, which is all a server sees, the SavedModel has a function `explain` where its model can say what
its logits are made of: named columns -> `logit` [batch], `features`, their names, and the model's `parts`. One that
retrieves has `catalogue_names` () -> ids of items [items], and either `user_vectors`, named columns of users and
context -> [batch, dim], beside the variable `item_vectors` [items, dim], or `catalogue_scores`, such columns ->
[batch, items]: what `models/recommend` makes the signature `recommend` of.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft
from tensorflow.core.protobuf import saved_model_pb2

from configs.features import RawColumn
from models.base import Explainable, Recommender, Retriever, VectorRetriever
from transforms.raw import default_values, named_input_specs, raw_feature_spec, sparse_from_named
from transforms.transformed import TransformedFeature, model_inputs


class ServedModel(tf.Module):
    """A trained model behind its preprocessing."""

    def __init__(
        self,
        model: Recommender,
        transform_output: tft.TFTransformOutput,
        columns: Mapping[str, RawColumn],
        features: list[TransformedFeature],
    ):
        super().__init__()
        self._model = model
        self._columns = columns
        self._features = features
        self._transform = transform_output.transform_features_layer()
        if isinstance(model, Retriever):
            self._names = tf.lookup.StaticHashTable(
                tf.lookup.TextFileInitializer(
                    transform_output.vocabulary_file_by_name(model.item.name),
                    tf.int64,
                    tf.lookup.TextFileIndex.LINE_NUMBER,
                    tf.string,
                    tf.lookup.TextFileIndex.WHOLE_LINE,
                ),
                "",
            )

    def inputs_of_model(self, raw: Mapping[str, tf.SparseTensor]) -> dict[str, tf.Tensor]:
        """Return what the model receives for sparse raw columns."""
        return model_inputs(self._features, self._transform(dict(raw)))

    def probability(self, raw: Mapping[str, tf.SparseTensor]) -> tf.Tensor:
        """Return the probability of a positive label, [batch]."""
        return tf.sigmoid(self._model(self.inputs_of_model(raw), training=False))

    def retrieved(self, columns: Mapping[str, tf.Tensor], approximate: bool) -> dict[str, tf.Tensor]:
        """Return the best items for named columns of users and context."""
        ids, logits = self._model.retrieve(self.inputs_of_users(columns), approximate)
        return {"items": self._names.lookup(ids - 1), "scores": tf.sigmoid(logits)}

    def inputs_of_users(self, columns: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Return what the model receives for named columns of users and context, the items' left out."""
        absent = default_values(c for name, c in self._columns.items() if name not in columns)
        return self.inputs_of_model(sparse_from_named({**absent, **columns}, self._columns))

    def retrieval(self) -> dict[str, Any]:
        """Return what a model that retrieves can do besides: see above."""
        model = self._model

        @tf.function(autograph=False, input_signature=[])
        def catalogue_names():
            return self._names.lookup(tf.range(model.catalogue_size, dtype=tf.int64))

        @tf.function(autograph=False)
        def user_vectors(**columns):
            return model.user_vectors(self.inputs_of_users(columns))

        @tf.function(autograph=False)
        def catalogue_scores(**columns):
            return model.catalogue_scores(self.inputs_of_users(columns))

        of_users = named_input_specs(c for c in self._columns.values() if c.of != "item")
        if not isinstance(model, VectorRetriever):
            catalogue_scores.get_concrete_function(**of_users)
            return {"catalogue_names": catalogue_names, "catalogue_scores": catalogue_scores}
        user_vectors.get_concrete_function(**of_users)
        return {
            "catalogue_names": catalogue_names,
            "user_vectors": user_vectors,
            "item_vectors": model.item_vectors,
        }

    def signatures(self) -> dict[str, tf.types.experimental.ConcreteFunction]:
        """Return the traced signatures by name."""
        named = named_input_specs(self._columns.values())

        @tf.function(autograph=False)
        def serving_default(**columns):
            return {"score": self.probability(sparse_from_named(columns, self._columns))}

        @tf.function(autograph=False)
        def rank(**columns):
            return {"scores": self.probability(sparse_from_named(columns, self._columns))}

        @tf.function(autograph=False)
        def transform_features(**columns):
            return self.inputs_of_model(sparse_from_named(columns, self._columns))

        @tf.function(autograph=False)
        def serve_examples(inputs):
            score = self.probability(tf.io.parse_example(inputs, raw_feature_spec(self._columns.values())))
            return {"outputs": score, "scores": score[:, tf.newaxis]}

        @tf.function(autograph=False)
        def retrieve(**columns):
            return self.retrieved(columns, approximate=False)

        @tf.function(autograph=False)
        def retrieve_approximate(**columns):
            return self.retrieved(columns, approximate=True)

        signatures = {
            "serving_default": serving_default.get_concrete_function(**named),
            "rank": rank.get_concrete_function(**named),
            "serve_examples": serve_examples.get_concrete_function(tf.TensorSpec([None], tf.string, name="inputs")),
            "transform_features": transform_features.get_concrete_function(**named),
        }
        if isinstance(self._model, Retriever):
            of_users = named_input_specs(c for c in self._columns.values() if c.of != "item")
            signatures["retrieve"] = retrieve.get_concrete_function(**of_users)
            signatures["retrieve_approximate"] = retrieve_approximate.get_concrete_function(**of_users)
        return signatures

    def explanation(self) -> tf.types.experimental.GenericFunction:
        """Return the traced function `explain`."""

        @tf.function(autograph=False)
        def explain(**columns):
            inputs = self.inputs_of_model(sparse_from_named(columns, self._columns))
            return {
                "logit": self._model(inputs, training=False),
                "features": tf.constant([f.name for f in self._features]),
                **self._model.parts(inputs),
            }

        explain.get_concrete_function(**named_input_specs(self._columns.values()))
        return explain


def export(
    model: Recommender,
    transform_output: tft.TFTransformOutput,
    columns: Mapping[str, RawColumn],
    features: list[TransformedFeature],
    folder: str,
) -> None:
    """Write the SavedModel to `folder`."""
    served = ServedModel(model, transform_output, columns, features)
    if isinstance(model, Explainable):
        served.explain = served.explanation()
    if isinstance(model, Retriever):
        for name, found in served.retrieval().items():
            setattr(served, name, found)
    tf.saved_model.save(served, folder, signatures=served.signatures())
    declare_defaults(folder, default_values(columns.values()))


def declare_defaults(folder: str, values: Mapping[str, tf.Tensor]) -> None:
    """Write defaults of named columns and other inputs, by name, into the signatures that have them.

    TensorFlow Serving puts them in place of inputs that a request leaves out. `tf.saved_model.save` has no way to
    pass them for functions of keyword arguments, so they are set in the file it wrote.
    """
    path = Path(folder) / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    defaults = {name: tf.make_tensor_proto(value) for name, value in values.items()}
    for graph in saved.meta_graphs:
        for signature in graph.signature_def.values():
            for column, proto in defaults.items():
                if column in signature.inputs:
                    signature.defaults[column].CopyFrom(proto)
    path.write_bytes(saved.SerializeToString(deterministic=True))
