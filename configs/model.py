"""What is trained, and how."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from configs.base import Section

Rate = Annotated[float, Field(ge=0, lt=1)]


class _Regularized(Section):
    l2: float = Field(default=0.0, ge=0, description="L2 penalty on the embeddings and weights that a batch looked up.")
    id_dropout: Rate = Field(
        default=0.0,
        description="Share of user and item ids hidden in training, so that unknown ones are learnt too.",
    )


class ItemMean(Section):
    """Smoothed mean label of the item, the popularity baseline."""

    type: Literal["item_mean"]
    prior: float = Field(default=10.0, gt=0, description="Strength of the global mean, in examples.")


class LR(_Regularized):
    """Logistic regression over the features."""

    type: Literal["lr"]


class FM(_Regularized):
    """Factorization machine (Rendle 2010), second order."""

    type: Literal["fm"]
    embedding_dim: int = Field(default=16, ge=1, description="Dimension of the feature embeddings.")


class DeepFM(_Regularized):
    """DeepFM (Guo et al. 2017): first-order, FM and deep parts over shared embeddings."""

    type: Literal["deepfm"]
    embedding_dim: int = Field(default=16, ge=1, description="Dimension of the feature embeddings.")
    hidden: list[Annotated[int, Field(ge=1)]] = Field(
        default=[128, 64], description="Widths of the deep part's layers."
    )
    dropout: Rate = Field(default=0.2, description="Dropout after each of the deep part's layers.")


Model = Annotated[DeepFM | FM | LR | ItemMean, Field(discriminator="type")]


class Training(Section):
    """The training loop."""

    batch: int = Field(default=1024, ge=1, description="Examples in a step.")
    epochs: int = Field(default=20, ge=1, description="Most epochs; training stops before when eval AUC stops rising.")
    patience: int = Field(default=2, ge=0, description="Epochs without a better eval AUC before training stops.")
    learning_rate: float = Field(default=0.001, gt=0, description="Adam's step size.")
    seed: int = Field(default=1, ge=0, description="Seed of initial weights, shuffling and dropout.")
