"""From a model's config to the model: the one place that knows them all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tf_keras as keras

from configs.model import Model
from models.deepfm import DeepFM
from models.fm import FM
from models.item_mean import ItemMean
from models.lr import LR
from transforms.transformed import TransformedFeature

_MODELS: Mapping[str, Callable[[Any, Sequence[TransformedFeature]], keras.Model]] = {
    "deepfm": DeepFM,
    "fm": FM,
    "lr": LR,
    "item_mean": ItemMean,
}


def build_model(config: Model, features: Sequence[TransformedFeature]) -> keras.Model:
    """Return the model that `config` describes, untrained: transformed features -> logits [batch]."""
    return _MODELS[config.type](config, features)
