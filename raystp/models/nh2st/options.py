"""Options of NH2ST, and its published training."""

from dataclasses import dataclass
from typing import Literal

from raystp.errors import ModelError
from raystp.models.training.options import FeatureScaling, FitOptions

NH2ST_FIT = FitOptions(
    epochs=200, lr=5e-4, weight_decay=0.0, batch_size=8, accumulate_batches=1, seed=2021, select="best_pcc", patience=20
)
"""The published training. Its validation section was the test section; here it must not be."""

UNVALIDATED_EPOCHS = 8
"""Epochs without validation. On two public sections of one patient, each predicting the other, the score is highest
after 8 epochs at the published width, batch and rate, and falls afterwards."""

LR_EVERY, LR_FACTOR = 50, 0.9
"""The published StepLR: the learning rate is multiplied by 0.9 every 50 epochs."""


@dataclass(frozen=True)
class Nh2stOptions:
    """Options that change NH2ST's result; the defaults are the published code's, except where they say so."""

    form: Literal["mended", "faithful"] = "mended"
    """`faithful`: each side of an attention is one vector, as published, so its softmax is 1 for any query. `mended`:
    the sides are sequences. In the query branch these are the patch's spatial tokens (or, without a map, the nodes'
    patches) and the nodes' expression; in the neighbour branch the hypergraph's nodes."""
    feature_scaling: FeatureScaling = "unit"
    """Norm of the frozen features: about 1 (`unit`), or the square root of their number (`published`)."""
    labels: Literal["centred", "published"] = "centred"
    """Whether the prediction is the training mean plus a deviation, or each gene's level is learned (`published`)."""
    smooth_labels: bool = False
    """Whether a training spot's label is the mean over its neighbourhood, as published. Validation and scores always
    use measured, unsmoothed expression; the published code smooths test spots too."""
    tokens: int = 1
    """Spatial tokens in a row of features, token by token: 49 for a 7 x 7 map of 512 channels (25,088 features)."""
    neighbours_at_inference: bool = False
    """Whether the prediction uses the neighbours' patches too (`mended` only). It never uses expression."""
    dim: int = 512
    heads: int = 8
    depth: int = 1
    mlp_ratio: float = 1.0
    dropout: float = 0.5
    nearest: int = 3
    """A hyperedge joins a node and this number of others, those of highest cosine."""
    temperature_query: float = 0.05
    temperature_neighbour: float = 0.05
    negatives: float = 0.1
    """Factor of the similarities to other samples in the contrasts."""
    weight_query: float = 1.0
    weight_neighbour: float = 0.5

    def __post_init__(self) -> None:
        if min(self.temperature_query, self.temperature_neighbour) <= 0:
            seen = f"temperature_query {self.temperature_query}, temperature_neighbour {self.temperature_neighbour}"
            msg = f"the temperatures of NH2ST divide, so they must be above 0, got {seen}"
            raise ModelError(msg)
        if self.dim < 2 or self.dim % self.heads or min(self.heads, self.depth, self.tokens, self.nearest) < 1:  # noqa: PLR2004 -- the decoder divides dim by 2
            seen = (
                f"dim {self.dim}, heads {self.heads}, depth {self.depth}, tokens {self.tokens}, nearest {self.nearest}"
            )
            msg = f"dim must be a multiple of heads, and depth, tokens and nearest must be 1 or more, got {seen}"
            raise ModelError(msg)
        if not 0 <= self.dropout < 1:
            msg = f"dropout must be from 0 to below 1, got {self.dropout}"
            raise ModelError(msg)
        if self.neighbours_at_inference and self.form == "faithful":
            msg = (
                'neighbours_at_inference=true needs form="mended", got form="faithful": the published NH2ST predicts '
                "from the patch alone"
            )
            raise ModelError(msg)
