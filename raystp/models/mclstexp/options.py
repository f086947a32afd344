"""Options of mclSTExp, and its published training."""

from dataclasses import dataclass
from typing import Literal

from raystp.models.contrastive.options import ContrastiveOptions
from raystp.models.training.options import FeatureScaling, FitOptions, check_at_least

MCLSTEXP_FIT = FitOptions(epochs=90, lr=1e-4, weight_decay=1e-3, batch_size=128, accumulate_batches=1)
"""The published training: Adam at a constant rate, with weight decay as an L2 term of the loss; the last epoch is kept.
The published code also trains on the last, shorter batch of an epoch; here it is left out."""


@dataclass(frozen=True)
class MclstexpOptions:
    """Options that change mclSTExp's result. Published are `batch`, `learned` and a `position_sd` of 1."""

    sequence: Literal["section", "batch"] = "section"
    """Which spots a spot attends to: those of its own section, or (as published) those of its minibatch, on which its
    embedding then depends. In an index, such a batch is 32 consecutive spots of a section."""
    positions: Literal["none", "learned", "sincos"] = "none"
    """What is added to a spot's expression: nothing, a learned code of its column and its row in the array (published),
    or a linear map of sines and cosines of its um from the section's centre. An image has no such code."""
    position_sd: float = 0.02
    """Standard deviation of learned codes at the start. At the published 1, they are larger than log expression."""
    context_spots: int = 512
    """With `sequence: section`, the maximum number of a section's spots that are attended to, evenly spaced. All spots
    are embedded."""
    dim: int = 256
    """Length of an embedding."""
    layers: int = 2
    """Layers of the transformer; without layers and positions, the method is BLEEP with `target: identity`. A token is
    as long as the panel, so the feed-forward of a layer has 2 x genes^2 weights."""
    heads: int = 8
    head_dim: int = 64
    dropout: float = 0.0
    feature_scaling: FeatureScaling = "unit"
    """Norm of the frozen features: about 1 (`unit`), or the square root of their number (`published`)."""

    def __post_init__(self) -> None:
        least = {"position_sd": 0, "context_spots": 1, "layers": 0, "heads": 1, "head_dim": 1}
        check_at_least(self, least)
        _ = self.contrast

    @property
    def contrast(self) -> ContrastiveOptions:
        """Return the options of the two heads and of their loss: CLIP's, without temperature."""
        scaling = self.feature_scaling
        return ContrastiveOptions(target="identity", dim=self.dim, dropout=self.dropout, feature_scaling=scaling)

    @property
    def reads_sections(self) -> bool:
        """Whether a spot's embedding depends on more than its own expression."""
        return self.layers > 0 or self.positions != "none"


@dataclass(frozen=True)
class SequenceSizes:
    """Sizes of the transformer over spots; a token is as long as the expression."""

    width: int
    depth: int
    heads: int
    head_dim: int
    dropout: float

    @property
    def feedforward(self) -> int:
        """Length of the hidden layer, that of a token."""
        return self.width
