"""Options of attention regression, and its training."""

from dataclasses import dataclass
from typing import Literal

from raystp.errors import ModelError
from raystp.models.method import BagBatch
from raystp.models.training.options import FeatureScaling, FitOptions

Level = Literal["instance", "embedding"]
Pooling = Literal["attention", "mean", "max", "lin", "exp"]

FROM_PREDICTIONS = ("max", "lin", "exp")
"""Poolings whose weights follow from the local predictions: they need the level `instance`."""


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
    """How a bag's tiles are averaged, with y the local predictions of a gene: weights of attention, equal weights, the
    highest y alone, `lin` (sum y^2 / sum y) or `exp` (sum y e^y / sum e^y). The last three as in Graziani's code, in
    standard deviations from the training mean. The weights y of `lin` have both signs there: it is unstable."""
    gate: bool = False
    """Whether the attention's hidden layer is gated, tanh(V e) * sigmoid(U e), as in ABMIL (Ilse et al. 2018)."""
    feature_scaling: FeatureScaling = "unit"
    """Norm of the features: about 1 (`unit`), or the square root of their number (`published`)."""
    embedding: int = 128
    hidden: int = 64
    """Length of the hidden layer of the attention."""
    dropout: float = 0.2
    clamp: float = 10.0
    """Predictions are limited to this many standard deviations from the training mean."""
    optimizer: Literal["auto", "sgd", "adamw"] = "auto"
    """`auto` is AdamW, except at the level `instance` with `feature_scaling="published"`, where it is SGD with momentum
    0.9 (Nesterov), the published one. At a unit norm of the features SGD needs a rate about their number times higher.
    With the published scaling SGD generalises better from few slides: on 40 simulated bags and 64 genes, with the epoch
    chosen by validation, held-out PCC is 0.78 at a rate of 1e-3 and 0.80 at 1e-2. At the published 1e-4 it is 0.64, not
    converged after 30 epochs; AdamW at 1e-3 gives 0.69."""

    def __post_init__(self) -> None:
        if min(self.embedding, self.hidden) < 1 or not 0 <= self.dropout < 1 or self.clamp <= 0:
            msg = (
                "attention regression needs widths of 1 or more, a dropout from 0 to below 1 and a clamp above 0, got "
                f"embedding {self.embedding}, hidden {self.hidden}, dropout {self.dropout}, clamp {self.clamp}"
            )
            raise ModelError(msg)
        if self.level == "embedding" and self.pooling in FROM_PREDICTIONS:
            msg = (
                f'level="embedding" and pooling="{self.pooling}" cannot be combined, because no tile has a weight, so '
                'there are no maps: set level="instance"'
            )
            raise ModelError(msg)
        if self.gate and self.pooling != "attention":
            msg = f'gate=true needs pooling="attention", got pooling="{self.pooling}": no attention is there to gate'
            raise ModelError(msg)
        if self.trunk == "per_gene" and self.heads == "joint" and self.pooling == "attention":
            msg = 'trunk="per_gene" and heads="joint" cannot be combined with attention pooling: set heads="per_gene"'
            raise ModelError(msg)

    @property
    def chosen_optimizer(self) -> Literal["sgd", "adamw"]:
        """The optimiser, with `auto` decided."""
        if self.optimizer != "auto":
            return self.optimizer
        return "sgd" if self.level == "instance" and self.feature_scaling == "published" else "adamw"


KEPT_VALUES = 4
"""Arrays of a value per tile and gene that a training step holds: prediction, clamp, weighted, gradient."""


def gene_bytes(options: AttentionOptions, batch: BagBatch) -> int:
    """Return the bytes of values that a training step holds for every tile and gene; 0 where it has none."""
    values = 0 if options.level == "embedding" else 1
    if options.trunk == "per_gene":
        values += options.embedding + options.hidden
    return 4 * KEPT_VALUES * values * batch.tiles * batch.genes


GRAZIANI = AttentionOptions(heads="per_gene", trunk="per_gene", optimizer="sgd", feature_scaling="published")
"""The published model: genes share nothing."""

EMBEDDING_FIT = FitOptions(
    epochs=100, lr=1e-3, weight_decay=1e-3, batch_size=4, accumulate_batches=1, select="best", patience=12
)
"""Default training at the level `embedding` on whole cases, with AdamW; a choice of ours, no published value."""

ATTENTION_FIT = FitOptions(
    epochs=100, lr=1e-3, weight_decay=1e-2, batch_size=4, accumulate_batches=1, select="best", patience=12
)
"""Default training. Published: lr 1e-4, one bag per step; the same choice of the epoch, where a validation exists.

See `AttentionOptions.optimizer` for the reason of another learning rate.
"""
