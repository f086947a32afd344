"""NH2ST's choices: what changes its result, and how it was trained when it was published."""

from dataclasses import dataclass
from typing import Literal

from raystp.errors import ModelError
from raystp.models.training.options import FitOptions

NH2ST_FIT = FitOptions(
    epochs=200, lr=5e-4, weight_decay=0.0, batch_size=8, accumulate_batches=1, seed=2021, select="best_pcc", patience=20
)
"""The published training. There the validation section was the test section; here it must not be."""

LR_EVERY, LR_FACTOR = 50, 0.9
"""The published StepLR: the learning rate is multiplied by 0.9 every 50 epochs."""


@dataclass(frozen=True)
class Nh2stOptions:
    """What changes NH2ST's result; the defaults are the published code's, but for `form`."""

    form: Literal["mended", "faithful"] = "mended"
    """`faithful`: each side of an attention is one vector, as published, so that its softmax is 1 whatever it is asked.
    `mended`: the sides are sequences. In the query branch the patch's spatial tokens (or, without a map, the nodes'
    patches) and the nodes' expression; in the neighbour branch the hypergraph's nodes."""
    tokens: int = 1
    """Spatial tokens in a row of features, token by token (7 x 7 map of 512 channels: 49, features of 25,088)."""
    neighbours_at_inference: bool = False
    """Whether the prediction reads the neighbours' patches as well (`mended` only). It never reads expression."""
    dim: int = 512
    heads: int = 8
    depth: int = 1
    mlp_ratio: float = 1.0
    dropout: float = 0.5
    nearest: int = 3
    """A hyperedge joins a node and so many others of highest cosine."""
    temperature_query: float = 0.05
    temperature_neighbour: float = 0.05
    negatives: float = 0.1
    """Factor of the similarities to other samples in the contrasts."""
    weight_query: float = 1.0
    weight_neighbour: float = 0.5

    def __post_init__(self) -> None:
        if min(self.temperature_query, self.temperature_neighbour) <= 0:
            seen = f"temperature_query {self.temperature_query}, temperature_neighbour {self.temperature_neighbour}"
            msg = f"NH2ST divides by its temperatures, which must be above 0, got {seen}"
            raise ModelError(msg)
        if self.dim < 2 or self.dim % self.heads or min(self.heads, self.depth, self.tokens, self.nearest) < 1:  # noqa: PLR2004 -- the decoder halves it
            seen = (
                f"dim {self.dim}, heads {self.heads}, depth {self.depth}, tokens {self.tokens}, nearest {self.nearest}"
            )
            msg = f"NH2ST's dim is a multiple of its heads, and depth, tokens and nearest are 1 at least, got {seen}"
            raise ModelError(msg)
        if not 0 <= self.dropout < 1:
            msg = f"dropout is the share that is dropped, from 0 to below 1, got {self.dropout}"
            raise ModelError(msg)
        if self.neighbours_at_inference and self.form == "faithful":
            msg = 'NH2ST as published predicts from the patch alone: neighbours_at_inference wants form="mended"'
            raise ModelError(msg)
