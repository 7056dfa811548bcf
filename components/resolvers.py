"""What earlier runs left for this one to be held to: the data last accepted, the model last blessed.

A run that is for a span looks at earlier spans only. So a day that is run again meets what it met the first time, and
its evaluation never has a model that learnt from that day or later ones beside it.
"""

from __future__ import annotations

import os

import ml_metadata as mlmd
from tfx import types
from tfx.dsl.components.common import resolver

from components.artifacts import SPAN, VERDICT


class _Earlier(resolver.ResolverStrategy):
    """`before` is the number of the span that the run is for; None where the config names none."""

    def __init__(self, before: int | None = None):
        self._before = before

    def _accepted(self, artifacts: list[types.Artifact]) -> list[types.Artifact]:
        """Return the verdicts that said yes and can still be read, newest first."""
        accepted = [
            a
            for a in artifacts
            if a.get_int_custom_property(VERDICT) == 1
            and os.path.exists(a.uri)
            and (self._before is None or a.get_int_custom_property(SPAN) < self._before)
        ]
        return sorted(accepted, key=lambda a: a.id, reverse=True)


class LatestAcceptedData(_Earlier):
    """The newest blessing of data that was accepted; refused runs are no baseline."""

    def resolve_artifacts(
        self, store: mlmd.MetadataStore, input_dict: dict[str, list[types.Artifact]]
    ) -> dict[str, list[types.Artifact]] | None:
        """Return at most one artifact a key."""
        return {key: self._accepted(artifacts)[:1] for key, artifacts in input_dict.items()}


class LatestBlessedModel(_Earlier):
    """The model of the newest blessing, where both are still there."""

    def resolve_artifacts(
        self, store: mlmd.MetadataStore, input_dict: dict[str, list[types.Artifact]]
    ) -> dict[str, list[types.Artifact]] | None:
        """Return `model` and `model_blessing`, each one artifact or none."""
        models = {m.id: m for m in input_dict["model"] if os.path.exists(m.uri)}
        for blessing in self._accepted(input_dict["model_blessing"]):
            model = models.get(blessing.get_int_custom_property("current_model_id"))
            if model is not None:
                return {"model": [model], "model_blessing": [blessing]}
        return {"model": [], "model_blessing": []}
