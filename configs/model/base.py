"""What the configs of all models share. A new type of model is a subclass that names its implementation."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Union, get_args

from pydantic import Field

from configs.base import Section

Rate = Annotated[float, Field(ge=0, lt=1)]

MODELS: dict[str, type[ModelConfig]] = {}  # by type, in the order of their definition


class ModelConfig(Section):
    """The config of a model.

    A subclass with an `implementation` is a type of model: `type: NAME` chooses it wherever the config takes a model,
    NAME being the one value of its Literal `type`.
    """

    implementation: ClassVar[str]  # module:Class of the model, a subclass of models.base.Recommender; "" for none
    uses_weight: ClassVar[bool] = False  # whether `data.weight` says something to it

    type: str
    without: list[str] = Field(default=[], description="Features that this model does not see.")

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """List the class among the types of model."""
        if "implementation" in vars(cls):
            (name,) = get_args(cls.model_fields["type"].annotation)
            if name in MODELS:
                raise TypeError(f"two models of type {name}: {MODELS[name].__name__} and {cls.__name__}")
            MODELS[name] = cls


def one_of(kind: type[ModelConfig]) -> Any:
    """Return the union of all types of model defined so far that are of a kind, told apart by `type`."""
    return Annotated[
        Union[tuple(m for m in MODELS.values() if issubclass(m, kind))],  # noqa: UP007
        Field(discriminator="type"),
    ]


class Regularized(ModelConfig):
    """A model that is trained by gradient steps."""

    l2: float | None = Field(
        default=None,
        ge=0,
        description="L2 penalty on the embeddings and weights that a batch looked up. Default: a normal prior on each "
        "weight, which counts once over all examples, so that what few examples say moves little.",
    )
    id_dropout: Rate = Field(
        default=0.0,
        description="Share of user and item ids hidden in training, so that unknown ones are learnt too.",
    )


class Embedded(Regularized):
    """A model with embeddings."""

    embedding_dim: int = Field(default=16, ge=1, description="Dimension of the feature embeddings.")


class Deep(Embedded):
    """A model with a deep part."""

    hidden: list[Annotated[int, Field(ge=1)]] = Field(
        default=[128, 64], description="Widths of the deep part's layers."
    )
    dropout: Rate = Field(default=0.2, description="Dropout after each of the deep part's layers.")
