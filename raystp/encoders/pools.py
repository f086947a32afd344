"""Pooling: what a network says of each patch, in one row per tile. By name, as an encoder's card states it.

Transformers put tokens of the whole tile before those of its patches: the class token, then registers, which hold
nothing that was meant to be read and are left out.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import nn
from torch.nn import functional

Tokens = Float[torch.Tensor, "tile token dim"]
Rows = Float[torch.Tensor, "tile row"]
HEADS = 8


class PooledEncoder(nn.Module):
    """A timm model without its own pooling, and the pooling of its makers."""

    def __init__(self, trunk: nn.Module, pool: nn.Module) -> None:
        super().__init__()
        self.trunk: Any = trunk
        self.pool = pool

    def forward(self, pixels: Float[torch.Tensor, "tile 3 pixel pixel"]) -> Rows:
        """Return a row per tile."""
        rows: torch.Tensor = self.pool(self.trunk.forward_features(pixels))
        return rows


class ClassToken(nn.Module):
    """The first token."""

    def forward(self, tokens: Tokens) -> Rows:
        """Return the class token of each tile."""
        return tokens[:, 0]


class ClassAndMean(nn.Module):
    """The class token, and behind it the mean of the patches' tokens."""

    def __init__(self, prefix: int) -> None:
        super().__init__()
        self.prefix = prefix

    def forward(self, tokens: Tokens) -> Rows:
        """Return rows of twice the width."""
        return torch.cat([tokens[:, 0], tokens[:, self.prefix :].mean(1)], dim=1)


class MapMean(nn.Module):
    """The mean over a map's two axes of space."""

    def __init__(self, *axes: int) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, maps: Float[torch.Tensor, "tile a b c"]) -> Rows:
        """Return the mean of each channel."""
        return maps.mean(self.axes)


class QueryPool(nn.Module):
    """CONCH: one learned query asks all tokens, and its answer is normalised; no projection to the text's space.

    Attention pooling of CoCa (Yu et al. 2022, arXiv 2205.01917) as CONCH's file lays it out, with torch's attention.
    """

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(1, dim))
        self.attn = nn.MultiheadAttention(dim, HEADS, kdim=width, vdim=width, batch_first=True)
        self.ln_q, self.ln_k, self.norm = nn.LayerNorm(dim), nn.LayerNorm(width), nn.LayerNorm(dim)

    def forward(self, tokens: Tokens) -> Rows:
        """Return the query's answer for each tile."""
        asked, query = self.ln_k(tokens), self.ln_q(self.query).expand(len(tokens), -1, -1)
        rows: torch.Tensor = self.norm(self.attn(query, asked, asked, need_weights=False)[0][:, 0])
        return rows


class PlainQueryPool(nn.Module):
    """CONCH v1.5: the same, with three projections that have no bias."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(1, dim))
        self.to_q, self.to_out = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.to_kv = nn.Linear(width, 2 * dim, bias=False)
        self.ln_q, self.ln_k, self.norm = nn.LayerNorm(dim), nn.LayerNorm(width), nn.LayerNorm(dim)

    def forward(self, tokens: Tokens) -> Rows:
        """Return the query's answer for each tile."""
        query = self.to_q(self.ln_q(self.query)).expand(len(tokens), -1, -1)
        asked = [query, *self.to_kv(self.ln_k(tokens)).chunk(2, dim=-1)]
        query, keys, values = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in asked)
        answer = functional.scaled_dot_product_attention(query, keys, values).transpose(1, 2).flatten(2)
        rows: torch.Tensor = self.norm(self.to_out(answer)[:, 0])
        return rows


def made(pooling: str, trunk: Any, dim: int) -> nn.Module:
    """Make the pooling of this name for a trunk, with rows of `dim` values."""
    match pooling:
        case "class":
            return ClassToken()
        case "class + mean":
            return ClassAndMean(trunk.num_prefix_tokens)
        case "mean of NCHW":
            return MapMean(2, 3)
        case "mean of NHWC":
            return MapMean(1, 2)
        case "query":
            return QueryPool(trunk.num_features, dim)
        case "plain query":
            return PlainQueryPool(trunk.num_features, dim)
    msg = f"no pooling is called '{pooling}'"
    raise ValueError(msg)
