"""Models that score rows: user, item and context in, the logit of a positive label out."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from configs.model.base import Deep, Embedded, ModelConfig, Regularized


class ItemMean(ModelConfig):
    """Smoothed mean label of the item, the popularity baseline."""

    implementation = "models.item_mean:ItemMean"

    type: Literal["item_mean"]
    prior: float = Field(default=10.0, gt=0, description="Strength of the global mean, in examples.")


class LR(Regularized):
    """Logistic regression over the features."""

    implementation = "models.lr:LR"

    type: Literal["lr"]


class FM(Embedded):
    """Factorization machine (Rendle 2010), second order."""

    implementation = "models.fm:FM"

    type: Literal["fm"]


class SVD(Embedded):
    """Matrix factorization with biases (Koren 2008, section 2.2) of user and item ids; other features are not used."""

    implementation = "models.svd:SVD"

    type: Literal["svd"]


class SVDpp(Embedded):
    """SVD++ (Koren 2008): SVD, and the user's implicit feedback from every sequence it sees."""

    implementation = "models.svdpp:SVDpp"

    type: Literal["svdpp"]


class WideDeep(Deep):
    """Wide & Deep (Cheng et al. 2016): a linear model, crossed features in it, and a deep network."""

    implementation = "models.wide_deep:WideDeep"

    type: Literal["wide_deep"]


class DeepFM(Deep):
    """DeepFM (Guo et al. 2017): first-order, FM and deep parts over shared embeddings."""

    implementation = "models.deepfm:DeepFM"

    type: Literal["deepfm"]


class DCN(Deep):
    """DCN-v2 (Wang et al. 2021): layers that cross the embeddings explicitly, and a deep network."""

    implementation = "models.dcn:DCN"

    type: Literal["dcn_v2"]
    cross_layers: int = Field(default=2, ge=1, description="How often features are crossed.")
    rank: int | None = Field(default=None, ge=1, description="Rank of the cross matrices; default: full.")
    structure: Literal["parallel", "stacked"] = Field(
        default="parallel", description="The deep part beside the cross layers, or on top of them."
    )


class _Interest(Deep):
    activation: Literal["dice", "prelu", "relu"] = Field(default="dice", description="Of the deep part's layers.")


class DIN(_Interest):
    """Deep Interest Network (Zhou et al. 2018): earlier events, each weighed by the item in question."""

    implementation = "models.din:DIN"

    type: Literal["din"]
    attention: list[Annotated[int, Field(ge=1)]] = Field(
        default=[32], description="Widths of the layers that weigh an earlier event for the item."
    )


class DIEN(_Interest):
    """Deep Interest Evolution Network (Zhou et al. 2019): interests in their order, weighed by the item."""

    implementation = "models.dien:DIEN"

    type: Literal["dien"]
    auxiliary: float = Field(
        default=0.5, ge=0, description="Weight of the loss that tells the user's next event from a random one."
    )


class TwoTower(Deep):
    """Two towers (Yi et al. 2019), one for user and context, one for the item: it retrieves, and can score too."""

    implementation = "models.two_tower:TwoTower"

    type: Literal["two_tower"]
    output_dim: int = Field(default=32, ge=1, description="Dimension of the vectors whose product is the score.")
    top_k: int = Field(default=100, ge=1, description="How many items the retrieval signatures return.")
    recall_target: float = Field(
        default=0.95, gt=0, lt=1, description="Share of the true top that the approximate signature aims at."
    )
