"""Options of attention regression, and its training."""

from dataclasses import dataclass
from typing import Literal

from raystp.errors import ModelError
from raystp.models.training.options import FitOptions

Level = Literal["instance", "embedding"]
Pooling = Literal["attention", "mean", "max"]


@dataclass(frozen=True)
class AttentionOptions:
    """Options that change the result. Widths, dropout and clamp are as published; `GRAZIANI` is the published model."""

    heads: Literal["joint", "per_gene"] = "joint"
    """One attention for all genes, or one for each."""
    trunk: Literal["shared", "per_gene"] = "shared"
    """Whether genes share the embedding of a tile, or have one each and share nothing (one model per gene). A trunk per
    gene holds genes x features x `embedding` weights: suitable for tens of genes, not for thousands."""
    level: Level = "instance"
    """`instance` averages the tiles' predictions. `embedding` averages the tiles' embeddings and predicts once (ABMIL,
    Ilse et al. 2018, with its ReLU). Without a ReLU both levels would be the same function except clamp and dropout."""
    pooling: Pooling = "attention"
    embedding: int = 128
    hidden: int = 64
    """Length of the hidden layer of the attention."""
    dropout: float = 0.2
    clamp: float = 10.0
    """Predictions are limited to this many standard deviations from the training mean."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """`sgd` (momentum 0.9, Nesterov) is the published one, and generalises better from few slides. On 40 simulated bags
    and 64 genes, with the epoch chosen by validation, held-out PCC is 0.78 at a learning rate of 1e-3 and 0.80 at 1e-2.
    At the published 1e-4 it is 0.64, not converged after 30 epochs; AdamW at 1e-3 gives 0.69."""

    def __post_init__(self) -> None:
        if min(self.embedding, self.hidden) < 1 or not 0 <= self.dropout < 1 or self.clamp <= 0:
            msg = (
                "attention regression needs widths of 1 or more, a dropout from 0 to below 1 and a clamp above 0, got "
                f"embedding {self.embedding}, hidden {self.hidden}, dropout {self.dropout}, clamp {self.clamp}"
            )
            raise ModelError(msg)
        if self.level == "embedding" and self.pooling == "max":
            msg = (
                'level="embedding" and pooling="max" cannot be combined, because no tile has a weight, so there are no '
                'maps: set level="instance"'
            )
            raise ModelError(msg)
        if self.trunk == "per_gene" and self.heads == "joint" and self.pooling == "attention":
            msg = 'trunk="per_gene" and heads="joint" cannot be combined with attention pooling: set heads="per_gene"'
            raise ModelError(msg)


GRAZIANI = AttentionOptions(heads="per_gene", trunk="per_gene", optimizer="sgd")
"""The published model: genes share nothing."""

ATTENTION_FIT = FitOptions(epochs=100, lr=1e-3, weight_decay=1e-2, batch_size=4, accumulate_batches=1)
"""Default training. Published: lr 1e-4, one bag per step, the epoch of the lowest validation loss, patience 12.

See `AttentionOptions.optimizer` for the reason of another learning rate.
"""
