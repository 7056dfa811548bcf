"""What is trained, and how.

A new type of model is a class in one of these modules; the union `Model` is made of all that there are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from pydantic import Field

from configs.base import Section
from configs.model.base import MODELS, ModelConfig, one_of
from configs.model.composed import Auto, Fallback
from configs.model.ranking import DCN, DIEN, DIN, FM, LR, SVD, DeepFM, ItemMean, SVDpp, TwoTower, WideDeep
from configs.model.topn import (
    BPR,
    EASE,
    IALS,
    SLIST,
    BERT4Rec,
    Drawn,
    GRU4Rec,
    ItemKNN,
    LightGCN,
    MultVAE,
    Negatives,
    NeuMF,
    SASRec,
    YouTube,
)
from configs.model.training import SampledNegatives, Tables, Training

__all__ = [
    "BPR",
    "DCN",
    "DIEN",
    "DIN",
    "EASE",
    "FM",
    "IALS",
    "LR",
    "MODELS",
    "SLIST",
    "SVD",
    "Auto",
    "BERT4Rec",
    "Contender",
    "DeepFM",
    "Drawn",
    "Fallback",
    "GRU4Rec",
    "ItemKNN",
    "ItemMean",
    "LightGCN",
    "Model",
    "ModelConfig",
    "MultVAE",
    "Negatives",
    "NeuMF",
    "SASRec",
    "SVDpp",
    "SampledNegatives",
    "Tables",
    "Training",
    "TwoTower",
    "WideDeep",
    "YouTube",
]  # fmt: skip

if TYPE_CHECKING:
    Model: TypeAlias = ModelConfig
else:
    Model = one_of(ModelConfig)


class Contender(Section):
    """A model to try, and what of the training is its own."""

    model: Model = Field(description="The model.")
    training: dict[str, Any] = Field(
        default={}, description="Keys of `training` that differ for it, such as `{learning_rate: 0.002}`."
    )
