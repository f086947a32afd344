"""Options of two heads that are trained against each other, and of their loss."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from raystp.errors import ModelError
from raystp.models.training.options import FeatureScaling, check_at_least

RETRIEVAL_CHOICES: Mapping[str, Sequence[Any]] = {
    "retrieval": (
        {"k": 50, "weights": "mean"},
        {"k": 200, "weights": "mean"},
        {"k": "all", "weights": "softmax", "temperature": 0.05},
        {"k": "all", "weights": "softmax", "temperature": 0.1},
        {"k": 200, "weights": "inverse_square"},
    )
}
"""Retrievals that are compared on the training side: published ones, and soft weights over all rows."""


@dataclass(frozen=True)
class ContrastiveOptions:
    """Options of heads and loss; the defaults are the published BLEEP code's, except `feature_scaling`."""

    temperature: float = 1.0
    """Divides the logits. At 1 with unnormalised embeddings they are sharp; with normalised ones about 0.07 is needed,
    or the target becomes nearly uniform and the model collapses."""
    normalize_embeddings: bool = False
    """Whether the loss scales each embedding to length 1 first. What the heads return is never scaled."""
    target_scale: Literal["div", "mul"] = "div"
    """Whether similarities are divided by the temperature in the target (the code) or multiplied (the paper)."""
    target: Literal["smoothed", "identity", "input"] = "smoothed"
    """Similarity of the embeddings (BLEEP), the pair alone (CLIP), or similarity of the heads' inputs (H&Enium)."""
    detach_target: bool = False
    """Whether the gradient stops at the target. In the published code it does not."""
    dropout: float = 0.1
    dim: int = 256
    """Length of an embedding."""
    input_temperature: float = 0.1
    """Divides the cosines of `target="input"`; a choice of ours, not a published value."""
    feature_scaling: FeatureScaling = "unit"
    """Norm of the frozen features: about 1 (`unit`), or the square root of their number (`published`)."""

    def __post_init__(self) -> None:
        check_at_least(self, {"dropout": 0, "dim": 1})
        if self.temperature <= 0 or self.input_temperature <= 0:
            seen = f"temperature {self.temperature}, input_temperature {self.input_temperature}"
            msg = f"the temperatures of a contrastive loss divide, so they must be above 0, got {seen}"
            raise ModelError(msg)
