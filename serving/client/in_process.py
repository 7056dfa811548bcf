"""A SavedModel in this process, asked as a server is."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from serving.client.columns import array_of, as_columns, check_names
from serving.client.messages import (
    DEFAULT_SIGNATURE,
    RANK_SIGNATURE,
    Features,
    Prediction,
    TensorTypes,
    VersionStatus,
)
from serving.client.session import scores
from serving.server.status import Code, ServingError


class SavedModelClient:
    """Client's interface on a SavedModel folder, loaded in this process: for tests, checks and batch jobs."""

    def __init__(self, folder: str | pathlib.Path, model: str = "default"):
        """`folder` is a version's folder, or a base path whose highest version is taken."""
        from serving.server.saved_model import SavedModelBundle
        from serving.server.source import versions_on_disk

        path = pathlib.Path(folder)
        self._version: int | None = int(path.name) if path.name.isdigit() else None
        if not (path / "saved_model.pb").exists():
            versions = versions_on_disk(str(path))
            if not versions:
                raise ServingError(Code.NOT_FOUND, f"{path} is neither a SavedModel nor a folder of versions")
            self._version = max(versions)
            path = versions[self._version]
        self._model = model
        self._bundle = SavedModelBundle(path)

    def predict(
        self, features: Features, *, signature: str = DEFAULT_SIGNATURE, outputs: Sequence[str] = (), **_: Any
    ) -> Prediction:
        """See Client.predict; version, label and timeout mean nothing here."""
        from serving.server import inference

        found = inference.predict_signature(self._bundle, signature)
        types = TensorTypes({name: each.dtype for name, each in found.inputs.items()}, found.output_dtypes)
        columns = as_columns(features)
        check_names(columns, types, signature)
        arrays: dict[str, Any] = {name: array_of(name, values, types.inputs[name]) for name, values in columns.items()}
        inference.check_inputs(found, arrays)
        values = found.run(inference.feeds(found, inference.complete(found, arrays)))
        wanted = inference.selected_outputs(found, outputs)
        answered = {found.output_names[position]: values[position] for position in wanted}
        return Prediction(answered, self._model, signature, self._version)

    def rank(self, user: Mapping[str, Any], items: Features, **options: Any) -> np.ndarray:
        """See Client.rank."""
        columns = as_columns(items)
        columns.update({name: [value] for name, value in user.items()})
        return scores(self.predict(columns, signature=RANK_SIGNATURE, **options))

    def status(self) -> list[VersionStatus]:
        """The one version there is."""
        return [VersionStatus(self._version or 0, "AVAILABLE")]

    def close(self) -> None:
        """Free the model."""
        self._bundle.close()

    def __enter__(self) -> SavedModelClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
