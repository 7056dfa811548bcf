"""What `recsys tune` may change, and how long it may look."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from configs.base import Section


class Range(Section):
    """Values that one key of the config may take: a range, or a list to choose from."""

    low: float | None = Field(default=None, alias="from", description="Smallest value.")
    high: float | None = Field(default=None, alias="to", description="Largest value.")
    log: bool = Field(default=False, description="Search the range by powers: 0.001 to 0.01 as much as 0.01 to 0.1.")
    whole: bool = Field(default=False, description="Whole numbers only.")
    choices: list[Any] | None = Field(default=None, min_length=1, description="The values, any YAML.")

    @model_validator(mode="after")
    def _one_kind(self) -> Range:
        if (self.choices is None) == (self.low is None or self.high is None):
            raise ValueError("expected either from and to, or choices")
        if self.low is not None and self.high is not None:
            if self.low >= self.high:
                raise ValueError(f"from {self.low:g} is not below to {self.high:g}")
            if self.log and self.low <= 0:
                raise ValueError("log needs from above 0")
            if self.whole and (self.low % 1 or self.high % 1):
                raise ValueError("whole needs whole bounds")
        return self

    @property
    def bounds(self) -> tuple[float, float]:
        """The smallest and the largest value of a range."""
        assert self.low is not None
        assert self.high is not None
        return self.low, self.high


class Tuning(Section):
    """What `recsys tune` tries. Every trial trains on the train split and is judged by eval AUC; test is not read."""

    space: dict[Annotated[str, Field(pattern=r"^(model|training)\..+")], Range] = Field(
        default={},
        description="Keys of the config below `model` and `training`, and the values to try for each. Default: l2, "
        "embedding_dim and dropout of the model, those that it has, and the step size.",
    )
    trials: int = Field(default=20, ge=1, description="How many trials in all, those of earlier calls counted.")
    seed: int = Field(default=1, ge=0, description="Seed of the search.")
