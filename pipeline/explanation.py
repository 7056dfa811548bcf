"""What a score is made of: by the parts of the model where it can say them, else by the columns that went in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from configs.features import RawColumn
from models.layers.attribution import shapley
from transforms.raw import default_values

BY_PARTS = (
    "the model's own parts; the deep part is shared out by Shapley values, a feature left out being a zero vector"
)
BY_COLUMNS = "Shapley values of columns, a column left out being its default: this model has no parts to show"


@dataclass(frozen=True)
class Explanation:
    """Numbers that add up to `logit`: `base`, and of each feature (or column) what each part adds.

    Half of what a pair of features adds is counted to each of the two; `pairs` are whole, the largest first.
    """

    method: str
    score: float
    logit: float
    base: float
    parts: list[str]
    features: dict[str, dict[str, float]]
    pairs: list[tuple[str, str, float]]

    @property
    def rest(self) -> float:
        """What the sum lacks of the logit: rounding."""
        return self.logit - self.base - sum(sum(by.values()) for by in self.features.values())


def explain(model: str, columns: Mapping[str, RawColumn], given: Mapping[str, Any]) -> Explanation:
    """Explain the score that the SavedModel at `model` gives to a row of `given` columns; others take their default."""
    loaded = tf.saved_model.load(model)
    row = {
        name: tf.constant([given[name]], value.dtype) if name in given else value
        for name, value in default_values(columns.values()).items()
    }
    score = float(loaded.signatures["serving_default"](**row)["score"][0])
    if hasattr(loaded, "explain"):
        return _by_parts(loaded.explain(**row), score)
    return _by_columns(loaded, row, list(columns.values()), score)


def _by_parts(said: Mapping[str, tf.Tensor], score: float) -> Explanation:
    values = {key: value.numpy() for key, value in said.items()}
    names = [name.decode() for name in values["features"]]
    by_part = {"first order": values["first_order"][0].astype(float)}
    base = float(values["bias"][0])
    pairs: list[tuple[str, str, float]] = []
    if "pairs" in values:
        whole = values["pairs"][0].astype(float)
        by_part["FM"] = (whole.sum(axis=0) + whole.sum(axis=1)) / 2
        above = zip(*np.triu_indices(len(names), 1), strict=True)
        pairs = sorted(((names[i], names[j], float(whole[i, j])) for i, j in above), key=lambda pair: -abs(pair[2]))
    if "deep" in values:
        by_part["deep"] = values["deep"][0].astype(float)
        base += float(values["deep_of_none"][0])
    features = {name: {part: float(v[i]) for part, v in by_part.items()} for i, name in enumerate(names)}
    return Explanation(BY_PARTS, score, float(values["logit"][0]), base, list(by_part), features, pairs)


def _by_columns(loaded: Any, row: Mapping[str, tf.Tensor], columns: list[RawColumn], score: float) -> Explanation:
    defaults = default_values(columns)

    def logits(masks: tf.Tensor) -> tf.Tensor:
        """Score the row with only the columns of each mask, [masks, columns, 1] -> [masks]."""
        wanted = masks[:, :, 0] > 0
        taken = {c.name: tf.where(wanted[:, i], row[c.name], defaults[c.name]) for i, c in enumerate(columns)}
        likely = tf.cast(loaded.signatures["serving_default"](**taken)["score"], tf.float64)
        likely = tf.clip_by_value(likely, 1e-7, 1 - 1e-7)
        return tf.math.log(likely / (1 - likely))

    parts, base = shapley(logits, tf.ones([1, len(columns), 1], tf.float64))
    features = {c.name: {"column": float(parts[0, i])} for i, c in enumerate(columns)}
    logit = float(logits(tf.ones([1, len(columns), 1]))[0])
    return Explanation(BY_COLUMNS, score, logit, float(base[0]), ["column"], features, [])
