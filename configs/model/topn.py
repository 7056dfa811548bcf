"""Models that rank all items for a user: what each is told."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from configs.base import Section
from configs.model.base import ModelConfig, Rate

Width = Annotated[int, Field(ge=1)]


class TopN(ModelConfig):
    """What all of them share."""

    top_k: int = Field(default=100, ge=1, description="How many items the retrieval signatures return.")


class OfPast(TopN):
    """What those share that look at what the user met before."""

    past: str | None = Field(
        default=None,
        description="Sequence of the item's id that holds the user's past; default: the first one. Without any, a "
        "user's past is what the training split has of it.",
    )


class _ClosedForm(OfPast):
    max_gib: float = Field(
        default=4.0, gt=0, description="Most memory for the items-by-items matrices; more items than fit are refused."
    )


class ItemKNN(_ClosedForm):
    """Item-based neighbours (Sarwar et al. 2001; Deshpande and Karypis 2004): cosine of items' users, shrunk."""

    implementation = "models.item_knn:ItemKNN"

    type: Literal["item_knn"]
    neighbours: int = Field(default=100, ge=1, description="How many neighbours an item keeps.")
    shrink: float = Field(
        default=0.0, ge=0, description="Added to the cosine's denominator: few common users count less."
    )


class EASE(_ClosedForm):
    """EASE (Steck 2019): a linear model of items by items without self-similarity, in closed form."""

    implementation = "models.ease:EASE"

    type: Literal["ease"]
    l2: float = Field(default=200.0, gt=0, description="L2 penalty on the weights.")


class SLIST(_ClosedForm):
    """SLIST (Choi et al. 2021): EASE, and the same from a past to what came after; newer events weigh more."""

    implementation = "models.slist:SLIST"

    type: Literal["slist"]
    l2: float = Field(default=100.0, gt=0, description="L2 penalty on the weights.")
    alpha: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.5, description="Share of what is consumed together, as EASE has it; the rest is what follows what."
    )
    past_decay: float = Field(default=5.0, gt=0, description="Events after which one of the past counts 1/e as much.")
    future_decay: float = Field(default=5.0, gt=0, description="Events ahead after which one counts 1/e as much.")
    request_decay: float = Field(
        default=20.0, gt=0, description="Events after which one of a request's past counts 1/e as much."
    )


class IALS(OfPast):
    """Implicit matrix factorization (Hu et al. 2008) by alternating least squares, penalties of Rendle et al. (2022).

    A user's vector is solved anew from its past at each request.
    """

    implementation = "models.ials:IALS"
    uses_weight = True

    type: Literal["ials"]
    dim: int = Field(default=64, ge=1, description="Dimension of the vectors.")
    l2: float = Field(default=0.003, gt=0, description="L2 penalty, times (events + unobserved * entities) ** nu.")
    unobserved: float = Field(default=2.0, gt=0, description="Weight of a pair that nobody met, alpha_0.")
    nu: Annotated[float, Field(ge=0, le=1)] = Field(default=1.0, description="How the penalty grows with events.")
    alpha: float = Field(
        default=1.0,
        ge=0,
        description="With `data.weight`: the confidence in a pair that met is 1 + alpha * its weight (Hu et al. 2008); "
        "0 leaves the weight aside.",
    )
    epsilon: float | None = Field(
        default=None,
        gt=0,
        description="With it the confidence is 1 + alpha * log(1 + weight / epsilon), for weights with a long tail.",
    )
    sweeps: int = Field(default=16, ge=1, description="How often users and items are solved in turn.")


class Drawn(Section):
    """Items that stand for what a user did not choose; drawn in training only, never of the user's own positives."""

    by: Literal["uniform", "popularity", "hard"] = Field(
        default="uniform",
        description="`uniform`: each item alike. `popularity`: by count ** alpha. `hard`: those that the model scores "
        "highest among `pool` uniform ones (Zhang et al. 2013).",
    )
    count: int = Field(default=1, ge=1, le=10_000, description="How many a positive.")
    alpha: float = Field(default=0.75, ge=0, description="With `popularity`: the power of an item's count.")
    pool: int = Field(default=16, ge=2, le=10_000, description="With `hard`: how many to choose from.")

    @model_validator(mode="after")
    def _pool_holds_count(self) -> Drawn:
        if self.by == "hard" and self.pool <= self.count:
            raise ValueError(f"pool: {self.pool} is too small to choose the hardest {self.count} from")
        return self


class Negatives(Drawn):
    """The same, and those of a batch."""

    by: Literal["uniform", "popularity", "hard", "in_batch", "mixed"] = Field(  # type: ignore[assignment]
        default="in_batch",
        description="As above, or `in_batch`: the other rows' items, logits less log Q (Yi et al. 2019). `mixed`: "
        "those and `count` uniform ones a batch (Yang et al. 2020).",
    )


class BPR(TopN):
    """Matrix factorization by Bayesian personalized ranking (Rendle et al. 2009)."""

    implementation = "models.bpr:BPR"

    type: Literal["bpr"]
    dim: int = Field(default=64, ge=1, description="Dimension of the vectors.")
    l2: float = Field(default=0.01, ge=0, description="L2 penalty on the vectors that a batch looked up.")
    negatives: Drawn = Drawn()


class NeuMF(TopN):
    """Neural matrix factorization (He et al. 2017): a product of vectors and a network over others, together."""

    implementation = "models.neumf:NeuMF"

    type: Literal["neumf"]
    dim: int = Field(default=32, ge=1, description="Dimension of the vectors of either part.")
    hidden: list[Width] = Field(default=[64, 32, 16], description="Widths of the network.")
    dropout: Rate = Field(default=0.1, description="Dropout after each of the network's layers.")
    l2: float = Field(default=0.0, ge=0, description="L2 penalty on the vectors that a batch looked up.")
    negatives: Drawn = Drawn(count=4)


class LightGCN(TopN):
    """LightGCN (He et al. 2020): vectors spread over the graph of users and items, trained by BPR."""

    implementation = "models.lightgcn:LightGCN"

    type: Literal["lightgcn"]
    dim: int = Field(default=64, ge=1, description="Dimension of the vectors.")
    layers: int = Field(default=3, ge=1, le=16, description="How far vectors spread.")
    l2: float = Field(default=1e-4, ge=0, description="L2 penalty on the vectors, before they spread, of a batch.")
    negatives: Drawn = Drawn()


class MultVAE(OfPast):
    """Mult-VAE (Liang et al. 2018): a variational autoencoder of a user's items with a multinomial likelihood."""

    implementation = "models.mult_vae:MultVAE"

    type: Literal["mult_vae"]
    hidden: int = Field(default=600, ge=1, description="Width of encoder and decoder.")
    latent: int = Field(default=200, ge=1, description="Dimension of the latent variable.")
    dropout: Rate = Field(default=0.5, description="Dropout of the input.")
    beta: float = Field(default=0.2, ge=0, description="Weight of the divergence from the prior, once annealed.")
    anneal_steps: int = Field(default=2000, ge=0, description="Steps over which that weight rises from 0.")


class NextItem(OfPast):
    """What those share that tell the next event by a softmax over items."""

    length: int = Field(default=200, ge=2, le=10_000, description="Most events read, the newest ones.")
    dropout: Rate = Field(default=0.2, description="Dropout.")
    negatives: Negatives | None = Field(
        default=None,
        description="Items in the softmax beside the positive; default: all.",
    )


class YouTube(NextItem):
    """The retrieval net of YouTube (Covington et al. 2016): the past and the user's features, pooled and deep."""

    implementation = "models.youtube:YouTube"

    type: Literal["youtube"]
    embedding_dim: int = Field(default=32, ge=1, description="Dimension of the feature embeddings.")
    hidden: list[Width] = Field(default=[128, 64], description="Widths; the last is the items' dimension.")
    l2: float = Field(default=0.0, ge=0, description="L2 penalty on the embeddings that a batch looked up.")
    id_dropout: Rate = Field(default=0.0, description="Share of user ids hidden in training.")


class GRU4Rec(NextItem):
    """GRU4Rec (Hidasi et al. 2016): a recurrent network that reads the past event by event."""

    implementation = "models.gru4rec:GRU4Rec"

    type: Literal["gru4rec"]
    dim: int = Field(default=64, ge=1, description="Dimension of the items' vectors.")
    hidden: int = Field(default=128, ge=1, description="Width of the recurrent layers.")
    layers: int = Field(default=1, ge=1, le=8, description="Recurrent layers.")


class _Attention(NextItem):
    dim: int = Field(default=64, ge=1, description="Dimension of vectors and blocks.")
    blocks: int = Field(default=2, ge=1, le=32, description="Blocks of self-attention.")
    heads: int = Field(default=1, ge=1, description="Heads of each.")

    @model_validator(mode="after")
    def _heads_divide(self) -> _Attention:
        if self.dim % self.heads:
            raise ValueError(f"heads: {self.heads} does not divide dim: {self.dim}")
        return self


class SASRec(_Attention):
    """SASRec (Kang and McAuley 2018): self-attention over the past, the next event told at each."""

    implementation = "models.sasrec:SASRec"

    type: Literal["sasrec"]


class BERT4Rec(_Attention):
    """BERT4Rec (Sun et al. 2019): self-attention both ways, trained to fill in events that are hidden."""

    implementation = "models.bert4rec:BERT4Rec"

    type: Literal["bert4rec"]
    masked: Annotated[float, Field(gt=0, lt=1)] = Field(default=0.2, description="Share of events hidden in training.")
