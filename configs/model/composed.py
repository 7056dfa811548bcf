"""Models made of other models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import Field

from configs.model.base import ModelConfig, Rate, Regularized, one_of
from configs.model.ranking import DCN, FM, LR, DeepFM, WideDeep

if TYPE_CHECKING:
    Known: TypeAlias = Regularized
else:
    Known = one_of(Regularized)


class Fallback(ModelConfig):
    """One model for rows whose user and item are known, and one that goes by content alone for all others."""

    implementation = "models.fallback:KnownOrContent"

    type: Literal["fallback"]
    without: list[str] = Field(default=[], description="Features that neither sees.")
    share: Rate = Field(default=0.2, description="Share of training rows that the content model answers for.")
    known: Known = Field(
        default=DeepFM(type="deepfm"), description="The model of known users and items; sees all features."
    )
    content: Annotated[DeepFM | FM | LR | WideDeep | DCN, Field(discriminator="type")] = Field(
        default=FM(type="fm", l2=0.01), description="The model of unknown ones; sees no user or item id."
    )
