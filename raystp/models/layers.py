"""Layers and feature scaling that more than one method uses."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from raystp.models.training.options import FeatureScaling

_ROWS = 4096
"""Rows standardised at a time: limits the memory of the float64 copy."""


def standardiser(
    features: Float[np.ndarray, "spot feature"],
) -> tuple[Float[np.ndarray, "feature"], Float[np.ndarray, "feature"]]:
    """Return the mean and the standard deviation of each feature; a constant feature has deviation 1."""
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415 -- imports scipy.stats: a second

    scaler = StandardScaler().fit(features.astype(np.float64))
    return scaler.mean_, scaler.scale_


def scale_features(
    buffers: tuple[Float[Tensor, "feature"], Float[Tensor, "feature"]],
    features: Float[np.ndarray, "spot feature"],
    scaling: FeatureScaling,
    *,
    tokens: int = 1,
    is_read_by_token: bool = False,
) -> None:
    """Set a model's two buffers, so that `(x - first) / second` are its inputs; call it before training.

    The first is the mean of each feature. The second is its deviation, with `unit` times the square root of the number
    of features, so that a row has a norm of about 1. Else the norm is that root, and one step of Adam moves a hidden
    unit by the rate times the sum of all |x|: as much as its whole initial spread. `published` is the deviation alone.
    A row may consist of `tokens`, one after the other; each channel then has one mean and one deviation for all.
    Where the first layer reads one token at a time, the norm of about 1 is that of a token.
    """
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415 -- the same

    scaler = StandardScaler()
    for start in range(0, len(features), _ROWS):
        part = features[start : start + _ROWS].astype(np.float64)
        scaler.partial_fit(part.reshape(len(part) * tokens, -1))
    width = features.shape[1] // tokens if is_read_by_token else features.shape[1]
    factor = width**0.5 if scaling == "unit" else 1.0
    for buffer, value in zip(buffers, (scaler.mean_, scaler.scale_ * factor), strict=True):
        buffer.copy_(torch.from_numpy(np.tile(value, tokens)))


class ProjectionHead(nn.Module):
    """`LayerNorm(p + Dropout(Linear(GELU(p))))` with `p = Linear(x)`: BLEEP's published head, for either side."""

    def __init__(self, width: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.project = nn.Linear(width, dim)
        self.refine = nn.Sequential(nn.GELU(), nn.Linear(dim, dim), nn.Dropout(dropout))
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Float[Tensor, "*row width"]) -> Float[Tensor, "*row joint"]:
        """Return the embeddings of rows of features or expression."""
        projected = self.project(x)
        out: Tensor = self.norm(projected + self.refine(projected))
        return out
