"""The record of the ensemble, and its options."""

from dataclasses import dataclass, field
from typing import Literal

from raystp.models.method import Method


@dataclass(frozen=True)
class EnsembleOptions:
    """Which finished models are averaged, and how."""

    members: list[str] = field(default_factory=list)
    """`train/<name>` of each: models of measured spots, of one panel and protocol. Their features may differ."""
    weights: Literal["equal", "validation"] = "equal"
    """`equal`, or weights of at least 0 with sum 1 that have the least squared error on the validation side."""


ENSEMBLE = Method(
    name="ensemble",
    title="ensemble",
    options=EnsembleOptions,
    module="raystp.models.ensemble.predictor",
    is_trained=False,
    combines_models=True,
)
"""The weighted mean of finished models. The artifact holds their arrays, and the reference rows of contrastive ones."""
