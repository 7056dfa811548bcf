"""The TFT `preprocessing_fn`: raw columns to ids and scaled numbers, as the feature table declares."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from pydantic import TypeAdapter

from configs.features import LABEL, WEIGHT, Feature
from transforms.kind import Batch
from transforms.kinds import KINDS
from transforms.raw import first_value

_FEATURES: TypeAdapter[dict[str, Feature]] = TypeAdapter(dict[str, Feature])


def preprocessing_fn(inputs: Mapping[str, tf.SparseTensor], custom_config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the transformed features of a batch of raw columns.

    `custom_config` holds `features` (the feature table as JSON), `time` (the event time's column, or None) and, where
    rows count unequally, `weight` (the column that says how much; it comes out as WEIGHT). Single-valued features are
    dense, int64 ids or float32 numbers of shape [batch]; several-valued ones are sparse int64 ids.
    """
    features = read_features(custom_config["features"])
    batch = Batch(features, inputs, custom_config["time"], KINDS)
    outputs = {name: batch.transformed(name) for name in features}
    if LABEL in inputs:
        outputs[LABEL] = first_value(inputs[LABEL])
    weight = custom_config.get("weight")
    if weight is not None and weight in inputs:
        outputs[WEIGHT] = first_value(inputs[weight])
    return outputs


def read_features(text: str) -> dict[str, Feature]:
    """Read a feature table from JSON; its order is the table's."""
    return _FEATURES.validate_python(json.loads(text))
