"""How the best few of all items are found: candidates first, by a model that retrieves, then their order."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from configs.base import Section
from configs.model import Model


class Index(Section):
    """The search for the largest products of vectors, in the served model."""

    type: Literal["exact", "inverted"] = Field(
        default="exact",
        description="`exact`: every item is looked at, some 5 ms a million items of 32 dimensions on a core. "
        "`inverted`: only items in the lists nearest to the user, for more items than that; the evaluation measures "
        "what it misses.",
    )
    lists: int | None = Field(default=None, ge=1, description="With `inverted`: lists; default: 4 sqrt(items).")
    probes: int | None = Field(
        default=None, ge=1, description="With `inverted`: lists looked into; default: a sixteenth of them."
    )

    @model_validator(mode="after")
    def _of_lists(self) -> Index:
        if self.type == "exact" and (self.lists is not None or self.probes is not None):
            raise ValueError("lists and probes go with type: inverted")
        return self


class Retrieval(Section):
    """How the signature `recommend` finds items."""

    model: Model | None = Field(
        default=None,
        description="Model that finds candidates for `model` to order, such as `{type: two_tower}`. Default: none: a "
        "`model` that retrieves is asked alone, any other scores every item.",
    )
    training: dict[str, Any] = Field(
        default={}, description="Keys of `training` that differ for it, such as `{learning_rate: 0.002}`."
    )
    candidates: int = Field(
        default=200, ge=1, description="With `model`: how many items it finds for the ranker to order."
    )
    index: Index = Index()
