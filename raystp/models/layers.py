"""Layers that more than one method uses."""

from jaxtyping import Float
from torch import Tensor, nn


class ProjectionHead(nn.Module):
    """`LayerNorm(p + Dropout(Linear(GELU(p))))` with `p = Linear(x)`: the published head, for either side."""

    def __init__(self, width: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.project = nn.Linear(width, dim)
        self.refine = nn.Sequential(nn.GELU(), nn.Linear(dim, dim), nn.Dropout(dropout))
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Float[Tensor, "pair width"]) -> Float[Tensor, "pair joint"]:
        """Return the embeddings of rows of features or expression."""
        projected = self.project(x)
        out: Tensor = self.norm(projected + self.refine(projected))
        return out
