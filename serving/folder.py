"""Asking a model in a folder, in this process: what a server answers, without one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Columns = Mapping[str, Sequence[Any] | np.ndarray]


class ModelFolder:
    """The newest version in a model folder. Loads TensorFlow and the model when made."""

    def __init__(self, folder: str | Path):
        """Raise FileNotFoundError where the folder has no version."""
        import tensorflow as tf
        from tensorflow.core.protobuf import saved_model_pb2

        versions = [p for p in Path(folder).glob("*") if p.name.isdigit() and (p / "saved_model.pb").is_file()]
        if not versions:
            raise FileNotFoundError(f"{folder}: no version of a model is served there; `recsys run` pushes one")
        self.path = max(versions, key=lambda p: int(p.name))
        self.version = int(self.path.name)
        proto = saved_model_pb2.SavedModel.FromString((self.path / "saved_model.pb").read_bytes())
        self._defaults = {
            name: {column: tf.make_ndarray(value) for column, value in signature.defaults.items()}
            for name, signature in proto.meta_graphs[0].signature_def.items()
        }
        self._model = tf.saved_model.load(str(self.path))

    @property
    def manifest(self) -> dict[str, Any]:
        """What the push wrote about this version."""
        return json.loads((self.path / "assets.extra" / "manifest.json").read_text(encoding="utf-8"))

    def predict(self, inputs: Columns, signature: str = "serving_default") -> dict[str, np.ndarray]:
        """Return a signature's outputs for named columns; columns left out take their defaults.

        Raises ValueError for a signature or a column that the model does not have.
        """
        import tensorflow as tf

        if signature not in self._model.signatures:
            raise ValueError(f"no signature {signature!r}; the model has {', '.join(self._model.signatures)}")
        function = self._model.signatures[signature]
        specs = function.structured_input_signature[1]
        if unknown := sorted(set(inputs) - set(specs)):
            raise ValueError(f"the model takes no column {', '.join(unknown)}; it takes {', '.join(sorted(specs))}")
        columns = {**self._defaults[signature], **inputs}
        outputs = function(**{name: tf.constant(columns[name], spec.dtype) for name, spec in specs.items()})
        return {name: value.numpy() for name, value in outputs.items()}

    def rank(self, user: Mapping[str, Any], items: Columns) -> np.ndarray:
        """Return scores [items] in the items' order; `user` holds the features of one user and its context."""
        return self.predict({**{name: [value] for name, value in user.items()}, **items}, "rank")["scores"]
