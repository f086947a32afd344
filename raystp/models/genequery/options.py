"""GeneQuery's choices: what changes its result, and how it was trained when it was published."""

from dataclasses import dataclass
from typing import Literal

from raystp.errors import ModelError
from raystp.models.training.options import FitOptions

GENEQUERY_FIT = FitOptions(epochs=100, lr=1e-4, weight_decay=1e-3, batch_size=30, accumulate_batches=1, seed=2024)
"""The published training of the gene-aware form (its warm-up has no published length, and is left out)."""

GENEQUERY_SPOT_FIT = FitOptions(epochs=100, lr=1e-4, weight_decay=1e-3, batch_size=1, accumulate_batches=1, seed=2024)
"""The same of the spot-aware form: a step is one gene of one section."""


@dataclass(frozen=True)
class GeneQueryOptions:
    """What changes GeneQuery's result; the defaults are the published code's, but for `heads` and `scaling`."""

    context: Literal["gene", "spot", "none"] = "gene"
    """Who attends to whom: the genes of one spot (gene-aware), the spots of one section for one gene (spot-aware), or
    nobody (the published ablation)."""
    fuse: Literal["add", "concat"] = "add"
    """How the image's and the text's projections become one token."""
    scaling: Literal["standardised", "centred", "min_max"] = "standardised"
    """The unit in which errors are measured, see `genequery_scale`. `min_max` is the published one."""
    dim: int = 256
    depth: int = 2
    heads: int = 8
    """The published code has 64 of them, by an argument in the wrong place as it seems."""
    head_dim: int = 64
    feedforward: int = 512
    dropout: float = 0.1
    """Of tokens and of what attention and feed-forward give, not of attention weights: without those the fused kernels
    never hold a matrix of tokens x tokens."""
    context_tiles: int = 4096
    """`spot` only, when a slide is predicted: the most tiles that are attended to, taken evenly; all are answered for.
    The published code cuts a slide after 600 or 2,300 spots."""

    def __post_init__(self) -> None:
        least = min(self.dim, self.depth, self.heads, self.head_dim, self.feedforward, self.context_tiles)
        if least < 1 or not 0 <= self.dropout < 1:
            msg = (
                "GeneQuery's widths and numbers are 1 at least and its dropout is from 0 to below 1, got "
                f"dim {self.dim}, depth {self.depth}, heads {self.heads}, head_dim {self.head_dim}, feedforward "
                f"{self.feedforward}, context_tiles {self.context_tiles}, dropout {self.dropout}"
            )
            raise ModelError(msg)

    @property
    def width(self) -> int:
        """Length of a token."""
        return 2 * self.dim if self.fuse == "concat" else self.dim
