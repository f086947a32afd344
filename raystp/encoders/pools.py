"""Pooling: from a network's tokens, one per patch, to one row per tile. An encoder's card selects it by name.

Transformers put tokens of the whole tile before those of its patches: the class token, then registers. Registers hold
no features of the tile and are left out.
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
    """A timm model without its own pooling, followed by its makers' pooling."""

    def __init__(self, trunk: nn.Module, pool: nn.Module) -> None:
        super().__init__()
        self.trunk: Any = trunk  # torch types the methods of a module as modules or tensors
        self.pool = pool

    def forward(self, pixels: Float[torch.Tensor, "tile 3 pixel pixel"]) -> Rows:
        """Return a row per tile."""
        rows: torch.Tensor = self.pool(self.trunk.forward_features(pixels))
        return rows


class ClassToken(nn.Module):
    """The class token, which is the first."""

    def forward(self, tokens: Tokens) -> Rows:
        """Return the class token of each tile."""
        return tokens[:, 0]


class ClassAndMean(nn.Module):
    """The class token, followed by the mean of the patches' tokens."""

    def __init__(self, prefix_tokens: int) -> None:
        super().__init__()
        self.prefix_tokens = prefix_tokens

    def forward(self, tokens: Tokens) -> Rows:
        """Return rows of twice the length of a token."""
        return torch.cat([tokens[:, 0], tokens[:, self.prefix_tokens :].mean(1)], dim=1)


class MapMean(nn.Module):
    """The mean over the two spatial axes of a feature map."""

    def __init__(self, *axes: int) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, maps: Float[torch.Tensor, "tile a b c"]) -> Rows:
        """Return the mean of each channel."""
        return maps.mean(self.axes)


class QueryPool(nn.Module):
    """CONCH: one learned query attends to all tokens; its output is normalised, without projection to the text's space.

    Attention pooling of CoCa (Yu et al. 2022, arXiv 2205.01917) in the layout of CONCH's file, with torch's attention.
    """

    def __init__(self, token_dim: int, dim: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(1, dim))
        self.attn = nn.MultiheadAttention(dim, HEADS, kdim=token_dim, vdim=token_dim, batch_first=True)
        self.ln_q, self.ln_k, self.norm = nn.LayerNorm(dim), nn.LayerNorm(token_dim), nn.LayerNorm(dim)

    def forward(self, tokens: Tokens) -> Rows:
        """Return the query's output for each tile."""
        keys, query = self.ln_k(tokens), self.ln_q(self.query).expand(len(tokens), -1, -1)
        rows: torch.Tensor = self.norm(self.attn(query, keys, keys, need_weights=False)[0][:, 0])
        return rows


class PlainQueryPool(nn.Module):
    """CONCH v1.5: like `QueryPool`, with three projections without bias."""

    def __init__(self, token_dim: int, dim: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(1, dim))
        self.to_q, self.to_out = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.to_kv = nn.Linear(token_dim, 2 * dim, bias=False)
        self.ln_q, self.ln_k, self.norm = nn.LayerNorm(dim), nn.LayerNorm(token_dim), nn.LayerNorm(dim)

    def forward(self, tokens: Tokens) -> Rows:
        """Return the query's output for each tile."""
        queries = self.to_q(self.ln_q(self.query)).expand(len(tokens), -1, -1)
        projected = [queries, *self.to_kv(self.ln_k(tokens)).chunk(2, dim=-1)]
        query, keys, values = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in projected)
        output = functional.scaled_dot_product_attention(query, keys, values).transpose(1, 2).flatten(2)
        rows: torch.Tensor = self.norm(self.to_out(output)[:, 0])
        return rows


def create_pooling(pooling: str, *, token_dim: int, prefix_tokens: int, dim: int) -> nn.Module:
    """Create the pooling of this name.

    `token_dim` is the length of a token, `prefix_tokens` the number of tokens before the patches', `dim` the length of
    a row.
    """
    match pooling:
        case "class":
            return ClassToken()
        case "class + mean":
            return ClassAndMean(prefix_tokens)
        case "mean of NCHW":
            return MapMean(2, 3)
        case "mean of NHWC":
            return MapMean(1, 2)
        case "query":
            return QueryPool(token_dim, dim)
        case "plain query":
            return PlainQueryPool(token_dim, dim)
    msg = f"unknown pooling '{pooling}'"
    raise ValueError(msg)
