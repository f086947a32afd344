"""Layers and feature scaling that more than one method uses."""

import numpy as np
from jaxtyping import Float
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn


def standardiser(
    features: Float[np.ndarray, "spot feature"],
) -> tuple[Float[np.ndarray, "feature"], Float[np.ndarray, "feature"]]:
    """Return the mean and the standard deviation of each feature; a constant feature has deviation 1."""
    scaler = StandardScaler().fit(features.astype(np.float64))
    return scaler.mean_, scaler.scale_


class ProjectionHead(nn.Module):
    """`LayerNorm(p + Dropout(Linear(GELU(p))))` with `p = Linear(x)`: BLEEP's published head, for either side."""

    def __init__(self, width: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.project = nn.Linear(width, dim)
        self.refine = nn.Sequential(nn.GELU(), nn.Linear(dim, dim), nn.Dropout(dropout))
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Float[Tensor, "row width"]) -> Float[Tensor, "row joint"]:
        """Return the embeddings of rows of features or expression."""
        projected = self.project(x)
        out: Tensor = self.norm(projected + self.refine(projected))
        return out
