"""Options of GeneQuery, and its published training."""

from dataclasses import dataclass
from typing import Literal

from raystp.errors import ModelError
from raystp.models.training.options import FeatureScaling, FitOptions

GENEQUERY_FIT = FitOptions(epochs=100, lr=1e-4, weight_decay=1e-3, batch_size=30, accumulate_batches=1, seed=2024)
"""The published training of the gene-aware form, without its warm-up, whose length is not published."""

GENEQUERY_SPOT_FIT = FitOptions(epochs=100, lr=1e-4, weight_decay=1e-3, batch_size=1, accumulate_batches=1, seed=2024)
"""The same of the spot-aware form: a step is one gene of one section."""


@dataclass(frozen=True)
class GeneQueryOptions:
    """Options that change GeneQuery's result; the defaults are the published code's, except where they say so."""

    context: Literal["gene", "spot", "none", "tokens"] = "gene"
    """Which tokens attend to each other: the genes of one spot (gene-aware), the spots of one section for one gene
    (spot-aware), or none (the published ablation). With `tokens`, each gene attends to the spatial tokens of its spot's
    tile, which `embed` keeps on request, and to nothing else."""
    tokens: int = 49
    """Only with `context="tokens"`: spatial tokens of a tile, 49 for 7 x 7. One token is `none` with its vector."""
    fuse: Literal["add", "concat"] = "add"
    """How the image's and the text's projections become one token."""
    scaling: Literal["standardised", "centred", "min_max"] = "standardised"
    """Unit of the errors, see `genequery/scaling.py`. `min_max` is the published one, `standardised` the default."""
    dim: int = 256
    depth: int = 2
    heads: int = 8
    """The published code uses 64, probably because an argument is in the wrong position."""
    head_dim: int = 64
    feedforward: int = 512
    dropout: float = 0.1
    """Dropout of tokens and of the outputs of attention and feed-forward. Attention weights have none, so that the
    fused kernels never hold a matrix of tokens x tokens."""
    token_dropout: Literal["once", "twice"] = "once"
    """How often a token passes dropout before the first layer: before its activation, or also after it, at the entry
    of the Transformer, as in the published code. With `context="none"` there is no Transformer, and no second time."""
    feature_scaling: FeatureScaling = "unit"
    """Norm of the frozen features: about 1 (`unit`), or the square root of their number (`published`)."""
    context_tiles: int = 4096
    """Only with `context="spot"`, when a slide is predicted: the maximum number of tiles that are attended to, evenly
    spaced. All tiles are predicted. The published code cuts a slide after 600 or 2,300 spots."""

    def __post_init__(self) -> None:
        least = min(self.dim, self.depth, self.heads, self.head_dim, self.feedforward, self.context_tiles, self.tokens)
        if least < 1 or not 0 <= self.dropout < 1:
            msg = (
                "GeneQuery needs sizes and counts of 1 or more and a dropout from 0 to below 1, got "
                f"dim {self.dim}, depth {self.depth}, heads {self.heads}, head_dim {self.head_dim}, feedforward "
                f"{self.feedforward}, context_tiles {self.context_tiles}, tokens {self.tokens}, dropout {self.dropout}"
            )
            raise ModelError(msg)
        if self.context == "tokens" and self.dim % self.heads:
            msg = f'with context="tokens" each head has a part of a token: dim {self.dim} is no multiple of heads '
            raise ModelError(msg + str(self.heads))

    @property
    def image_tokens(self) -> int:
        """Number of tokens in a row of image features."""
        return self.tokens if self.context == "tokens" else 1

    @property
    def width(self) -> int:
        """Length of a token."""
        return 2 * self.dim if self.fuse == "concat" else self.dim
