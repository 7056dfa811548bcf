"""From a model's config to the model. A config class names its implementation; nothing else lists the models."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from configs.model import MODELS, ModelConfig
from models.base import (
    ClosedForm,
    Explainable,
    MissingFeatureError,
    OwnBatches,
    OwnLoss,
    OwnValidation,
    Prepared,
    Recommender,
    Retriever,
    VectorRetriever,
)
from transforms.transformed import TransformedFeature

CAPABILITIES: tuple[type, ...] = (
    Prepared, ClosedForm, OwnLoss, OwnBatches, OwnValidation, Explainable, Retriever, VectorRetriever,
)  # fmt: skip


def implementation(config: type[ModelConfig]) -> type[Recommender]:
    """Return the class that a config class names as `module:Class`."""
    module, _, name = config.implementation.partition(":")
    found = getattr(import_module(module), name)
    if not issubclass(found, Recommender):
        raise TypeError(f"{config.implementation}: a model must be a subclass of models.base.Recommender")
    return found


def capabilities() -> dict[str, list[str]]:
    """Return what each type of model can do besides scoring rows: names of classes of `models.base`."""
    return {
        name: [c.__name__ for c in CAPABILITIES if issubclass(implementation(config), c)]
        for name, config in MODELS.items()
        if config.implementation
    }


def build_model(config: ModelConfig, features: Sequence[TransformedFeature]) -> Recommender:
    """Return the model that `config` describes, untrained: transformed features -> logits [batch].

    Raises MissingFeatureError where the features lack one that the model needs.
    """
    seen = [f for f in features if f.name not in config.without]
    try:
        return implementation(type(config))(config, seen)
    except MissingFeatureError:
        raise  # of a model inside this one, which named itself
    except ValueError as error:
        raise MissingFeatureError(f"model {config.type}: {error}") from None
