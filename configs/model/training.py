"""How models are trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from configs.base import Section

Budget = Annotated[str, Field(pattern=r"^[1-9][0-9]*[smh]$")]


def seconds_of(budget: str) -> float:
    """Return a budget such as `90s`, `10m` or `2h` in seconds."""
    return float(budget[:-1]) * {"s": 1, "m": 60, "h": 3600}[budget[-1]]


class Tables(Section):
    """How embedding tables learn. Only the rows that a batch looked up are touched, whatever the table's size."""

    optimizer: Literal["adam", "adagrad", "rowwise_adagrad"] = Field(
        default="adam",
        description="`adam`: lazy, moments of a row move when it is looked up; keeps two numbers a weight. `adagrad`: "
        "one. `rowwise_adagrad`: one a row (Gupta et al. 2020), for the largest tables.",
    )
    learning_rate: float | None = Field(
        default=None, gt=0, description="Step size; default: `training.learning_rate` where set."
    )


class SampledNegatives(Section):
    """Items that a user did not meet, for models that learn from labels on logs that hold positives alone."""

    count: int = Field(default=4, ge=1, le=1000, description="How many a positive example.")
    by: Literal["uniform", "popularity"] = Field(
        default="uniform", description="`uniform`: each item alike. `popularity`: by count ** alpha."
    )
    alpha: float = Field(default=0.75, ge=0, description="With `popularity`: the power of an item's count.")


class Training(Section):
    """The training loop."""

    negatives: SampledNegatives | None = Field(
        default=None,
        description="Negatives drawn for each positive example in training, never in evaluation; for models without a "
        "loss of their own. Logits are corrected for how often they are drawn: a score is the probability that a user "
        "meets an item. The epoch with the best NDCG@10 over all items is kept.",
    )

    batch: int = Field(default=1024, ge=1, description="Examples in a step, over all workers together.")
    epochs: int = Field(default=50, ge=1, description="Most epochs; training stops before when it stops gaining.")
    evaluate_steps: int | None = Field(
        default=None,
        ge=1,
        description="Steps between evaluations; default: an epoch, in parts of up to 200 steps.",
    )
    monitor: Literal["auc", "logloss"] = Field(
        default="auc", description="The eval metric whose best evaluation is kept."
    )
    patience: int = Field(
        default=2,
        ge=0,
        description="Evaluations without a better eval AUC or LogLoss before the step size is cut to a fifth or, after "
        "`decays` cuts, training stops.",
    )
    decays: int = Field(default=1, ge=0, description="How often the step size is cut before training stops.")
    budget: Budget | None = Field(
        default=None,
        description="Most time, as `90s`, `10m` or `2h`; the evaluation under way is the last.",
    )
    optimizer: Literal["adam", "adagrad"] = Field(default="adam", description="Optimizer of all but the tables.")
    learning_rate: float | None = Field(
        default=None, gt=0, description="Step size of all but the tables; default: 0.002, and 0.01 of the tables."
    )
    tables: Tables = Tables()
    seed: int = Field(default=1, ge=0, description="Seed of initial weights, shuffling and dropout.")
    cache_mib: int = Field(
        default=4096,
        ge=0,
        description="Most memory for parsed examples, MiB a worker; what exceeds it is read each epoch.",
    )
    strategy: Literal["none", "mirrored", "multi_worker_mirrored", "parameter_server"] | None = Field(
        default=None,
        description="`none`: this process. `mirrored`: all GPUs of this machine. `multi_worker_mirrored`: processes "
        "in step, each with a copy of the model. `parameter_server`: processes at their own pace, tables cut over "
        "servers. Default: `none` with one worker, else `multi_worker_mirrored`.",
    )
    workers: int = Field(default=1, ge=1, le=64, description="Worker processes on this machine.")
    parameter_servers: int = Field(default=1, ge=1, le=64, description="With `parameter_server`: how many hold tables.")
    threads: int | None = Field(default=None, ge=1, description="Cores a worker uses; default: all, shared by workers.")
    checkpoint_steps: int = Field(
        default=1000, ge=1, description="Steps between checkpoints of workers; as many are lost at most when one dies."
    )
    restarts: int = Field(default=3, ge=0, description="How often dead workers are started again before giving up.")

    @model_validator(mode="after")
    def _strategy_has_workers(self) -> Training:
        if self.workers > 1 and self.strategy in ("none", "mirrored"):
            raise ValueError(f"workers: {self.workers} does not go with strategy: {self.strategy}, which has one")
        if self.parameter_servers > 1 and self.strategy != "parameter_server":
            raise ValueError(f"parameter_servers: {self.parameter_servers} goes with strategy: parameter_server only")
        return self

    @property
    def budget_seconds(self) -> float | None:
        """The budget in seconds; None for any."""
        return None if self.budget is None else seconds_of(self.budget)

    @property
    def step_sizes(self) -> tuple[float, float]:
        """The step sizes of tables and of all other weights, defaults filled in."""
        tables = self.tables.learning_rate or self.learning_rate or 0.01
        return tables, self.learning_rate or 0.002

    @property
    def chosen_strategy(self) -> str:
        """The strategy, its default filled in."""
        return self.strategy or ("none" if self.workers == 1 else "multi_worker_mirrored")
