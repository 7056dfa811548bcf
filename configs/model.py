"""What is trained, and how."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from configs.base import Section

Rate = Annotated[float, Field(ge=0, lt=1)]


class _Regularized(Section):
    l2: float = Field(default=0.0, ge=0, description="L2 penalty on the embeddings and weights that a batch looked up.")
    id_dropout: Rate = Field(
        default=0.0,
        description="Share of user and item ids hidden in training, so that unknown ones are learnt too.",
    )
    without: list[str] = Field(default=[], description="Features that this model does not see.")


class _Embedded(_Regularized):
    embedding_dim: int = Field(default=16, ge=1, description="Dimension of the feature embeddings.")


class _Deep(_Embedded):
    hidden: list[Annotated[int, Field(ge=1)]] = Field(
        default=[128, 64], description="Widths of the deep part's layers."
    )
    dropout: Rate = Field(default=0.2, description="Dropout after each of the deep part's layers.")


class ItemMean(Section):
    """Smoothed mean label of the item, the popularity baseline."""

    without: ClassVar[list[str]] = []

    type: Literal["item_mean"]
    prior: float = Field(default=10.0, gt=0, description="Strength of the global mean, in examples.")


class LR(_Regularized):
    """Logistic regression over the features."""

    type: Literal["lr"]


class FM(_Embedded):
    """Factorization machine (Rendle 2010), second order."""

    type: Literal["fm"]


class SVD(_Embedded):
    """Matrix factorization with biases (Koren 2008, section 2.2) of user and item ids; other features are not used."""

    type: Literal["svd"]


class SVDpp(_Embedded):
    """SVD++ (Koren 2008): SVD, and the user's implicit feedback from every sequence it sees."""

    type: Literal["svdpp"]


class WideDeep(_Deep):
    """Wide & Deep (Cheng et al. 2016): a linear model, crossed features in it, and a deep network."""

    type: Literal["wide_deep"]


class DeepFM(_Deep):
    """DeepFM (Guo et al. 2017): first-order, FM and deep parts over shared embeddings."""

    type: Literal["deepfm"]


class DCN(_Deep):
    """DCN-v2 (Wang et al. 2021): layers that cross the embeddings explicitly, and a deep network."""

    type: Literal["dcn_v2"]
    cross_layers: int = Field(default=2, ge=1, description="How often features are crossed.")
    rank: int | None = Field(default=None, ge=1, description="Rank of the cross matrices; default: full.")
    structure: Literal["parallel", "stacked"] = Field(
        default="parallel", description="The deep part beside the cross layers, or on top of them."
    )


class _Interest(_Deep):
    activation: Literal["dice", "prelu", "relu"] = Field(default="dice", description="Of the deep part's layers.")


class DIN(_Interest):
    """Deep Interest Network (Zhou et al. 2018): earlier events, each weighed by the item in question."""

    type: Literal["din"]
    attention: list[Annotated[int, Field(ge=1)]] = Field(
        default=[32], description="Widths of the layers that weigh an earlier event for the item."
    )


class DIEN(_Interest):
    """Deep Interest Evolution Network (Zhou et al. 2019): interests in their order, weighed by the item."""

    type: Literal["dien"]
    auxiliary: float = Field(
        default=0.5, ge=0, description="Weight of the loss that tells the user's next event from a random one."
    )


class TwoTower(_Deep):
    """Two towers (Yi et al. 2019), one for user and context, one for the item: it retrieves, and can score too."""

    type: Literal["two_tower"]
    output_dim: int = Field(default=32, ge=1, description="Dimension of the vectors whose product is the score.")
    top_k: int = Field(default=100, ge=1, description="How many items the retrieval signatures return.")
    recall_target: float = Field(
        default=0.95, gt=0, lt=1, description="Share of the true top that the approximate signature aims at."
    )


class Fallback(Section):
    """One model for rows whose user and item are known, and one that goes by content alone for all others."""

    type: Literal["fallback"]
    without: list[str] = Field(default=[], description="Features that neither sees.")
    share: Rate = Field(default=0.2, description="Share of training rows that the content model answers for.")
    known: Annotated[
        DeepFM | FM | LR | SVD | SVDpp | WideDeep | DCN | DIN | DIEN | TwoTower, Field(discriminator="type")
    ] = Field(default=DeepFM(type="deepfm"), description="The model of known users and items; sees all features.")
    content: Annotated[DeepFM | FM | LR | WideDeep | DCN, Field(discriminator="type")] = Field(
        default=FM(type="fm", l2=0.01), description="The model of unknown ones; sees no user or item id."
    )


Model = Annotated[
    DeepFM | FM | LR | ItemMean | SVD | SVDpp | WideDeep | DCN | DIN | DIEN | TwoTower | Fallback,
    Field(discriminator="type"),
]


class Contender(Section):
    """A model to try, and what of the training is its own."""

    model: Model = Field(description="The model.")
    training: dict[str, Any] = Field(
        default={}, description="Keys of `training` that differ for it, such as `{learning_rate: 0.002}`."
    )


class Tables(Section):
    """How embedding tables learn. Only the rows that a batch looked up are touched, whatever the table's size."""

    optimizer: Literal["adam", "adagrad", "rowwise_adagrad"] = Field(
        default="adam",
        description="`adam`: lazy, moments of a row move when it is looked up; keeps two numbers a weight. `adagrad`: "
        "one. `rowwise_adagrad`: one a row (Gupta et al. 2020), for the largest tables.",
    )
    learning_rate: float | None = Field(default=None, gt=0, description="Step size; default: `training.learning_rate`.")


class Training(Section):
    """The training loop."""

    batch: int = Field(default=1024, ge=1, description="Examples in a step, over all workers together.")
    epochs: int = Field(default=20, ge=1, description="Most epochs; training stops before when eval AUC stops rising.")
    patience: int = Field(default=2, ge=0, description="Epochs without a better eval AUC before training stops.")
    optimizer: Literal["adam", "adagrad"] = Field(default="adam", description="Optimizer of all but the tables.")
    learning_rate: float = Field(default=0.001, gt=0, description="Step size of all but the tables.")
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
    def chosen_strategy(self) -> str:
        """The strategy, its default filled in."""
        return self.strategy or ("none" if self.workers == 1 else "multi_worker_mirrored")
