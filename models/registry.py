"""From a model's config to the model: the one place that knows them all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tf_keras as keras

from configs.model import Fallback, Model
from models.dcn import DCN
from models.deepfm import DeepFM
from models.dien import DIEN
from models.din import DIN
from models.fallback import KnownOrContent
from models.fm import FM
from models.item_mean import ItemMean
from models.lr import LR
from models.svd import SVD
from models.svdpp import SVDpp
from models.two_tower import TwoTower
from models.wide_deep import WideDeep
from transforms.transformed import TransformedFeature

_MODELS: Mapping[str, Callable[[Any, Sequence[TransformedFeature]], keras.Model]] = {
    "item_mean": ItemMean,
    "lr": LR,
    "fm": FM,
    "svd": SVD,
    "svdpp": SVDpp,
    "wide_deep": WideDeep,
    "deepfm": DeepFM,
    "dcn_v2": DCN,
    "din": DIN,
    "dien": DIEN,
    "two_tower": TwoTower,
}


def build_model(config: Model, features: Sequence[TransformedFeature]) -> keras.Model:
    """Return the model that `config` describes, untrained: transformed features -> logits [batch].

    Raises ValueError where the features lack one that the model needs.
    """
    seen = [f for f in features if f.name not in config.without]
    if isinstance(config, Fallback):
        content = [f for f in seen if not f.hideable]
        return KnownOrContent(seen, build_model(config.known, seen), build_model(config.content, content), config.share)
    try:
        return _MODELS[config.type](config, seen)
    except ValueError as error:
        raise ValueError(f"model {config.type}: {error}") from None
