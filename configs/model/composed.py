"""Models made of other models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import Field

from configs.model.base import ModelConfig, Rate, Regularized, one_of
from configs.model.ranking import DCN, FM, LR, DeepFM, ItemMean, WideDeep
from configs.model.training import Budget, seconds_of

if TYPE_CHECKING:
    Known: TypeAlias = Regularized
    Single: TypeAlias = ModelConfig
else:
    Known = one_of(Regularized)
    Single = one_of(ModelConfig)


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


class Auto(ModelConfig):
    """The best of a family of models by the eval split, trained from plain to rich; of equals the plainer one."""

    implementation = ""  # none of its own: training ends with one of the family

    type: Literal["auto"]
    budget: Budget = Field(
        default="10m", description="Most time for all of them, as `90s`, `10m` or `2h`; what does not fit is left out."
    )
    family: list[Single] = Field(
        default=[ItemMean(type="item_mean"), LR(type="lr"), FM(type="fm"), DeepFM(type="deepfm")],
        min_length=1,
        description="The models to try, plain ones first.",
    )

    @property
    def budget_seconds(self) -> float:
        """The budget in seconds."""
        return seconds_of(self.budget)
