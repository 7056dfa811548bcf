"""What earlier runs left for this one to be held to: the data last accepted, the model last blessed.

A run that is for a span looks at earlier spans only. So a day that is run again meets what it met the first time, and
its evaluation never has a model that learnt from that day or later ones beside it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from itertools import pairwise

import ml_metadata as mlmd
from tfx import types
from tfx.dsl.components.common import resolver

from components.artifacts import COMPARED_WITH, SPAN, SPLIT, VERDICT
from components.verdict import VERDICT_FILE, read_json

LAST_BLESSED = 5  # how many of the models last blessed a candidate is held to the best of


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
    """The model of the newest blessing, and after it the best of the last few where that is another one.

    With `split`, the digest of how this run divides its rows, those that were divided alike come first: only they are
    compared with. The best follows from what each was evaluated beside, on the same rows: its AUC less that of the one
    blessed before it, added up. So a model that is a little worse each time is held to what it was worse than.
    """

    def __init__(self, before: int | None = None, split: str | None = None):
        super().__init__(before)
        self._split = split

    def resolve_artifacts(
        self, store: mlmd.MetadataStore, input_dict: dict[str, list[types.Artifact]]
    ) -> dict[str, list[types.Artifact]] | None:
        """Return `model` and `model_blessing`, as many artifacts in the same order: two, one or none."""
        models = {m.id: m for m in input_dict["model"] if os.path.exists(m.uri)}
        accepted = [b for b in self._accepted(input_dict["model_blessing"]) if _model_of(b) in models]
        alike = [b for b in accepted if self._split and b.get_string_custom_property(SPLIT) == self._split]
        chosen = (alike or accepted)[:1]
        best = _best(alike[:LAST_BLESSED])
        if best is not None and _model_of(best) != _model_of(chosen[0]):
            chosen.append(best)
        return {"model": [models[_model_of(b)] for b in chosen], "model_blessing": chosen}


def _model_of(blessing: types.Artifact) -> int:
    return blessing.get_int_custom_property("current_model_id")


def _best(blessings: Sequence[types.Artifact]) -> types.Artifact | None:
    """Return the blessing with the highest AUC, newest first, as far as each was compared with the next."""
    best, height, highest = None, 0.0, 0.0
    for newer, older in pairwise(blessings):
        metrics = _metrics(newer)
        if newer.get_int_custom_property(COMPARED_WITH) != older.id or not {"candidate", "blessed"} <= metrics.keys():
            break
        gain = metrics["candidate"].get("auc", math.nan) - metrics["blessed"].get("auc", math.nan)
        if math.isnan(gain):
            break
        height -= gain
        if height > highest:
            best, highest = older, height
    return best


def _metrics(blessing: types.Artifact) -> Mapping[str, Mapping[str, float]]:
    path = os.path.join(blessing.uri, VERDICT_FILE)
    return read_json(path).get("metrics", {}) if os.path.exists(path) else {}
