"""Cross-attention between image and expression."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional


class CrossAttention(nn.Module):
    """`depth` layers of pre-norm multi-head cross-attention and feed-forward, both residual, and a last norm.

    As the published NH2ST code has it: one LayerNorm for queries and keys alike, GELU and dropout in the feed-forward
    part, dropout after the attention and none on its weights. With a single key the softmax is 1 for any query (the
    published use: `W_o W_v LN(key) + query`); see `Nh2stOptions.form`.
    """

    def __init__(self, dim: int, *, heads: int, depth: int, mlp_ratio: float, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            AttentionLayer(dim, heads=heads, hidden=max(1, round(dim * mlp_ratio)), dropout=dropout)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(
        self,
        queries: Float[Tensor, "sample query dim"],
        keys: Float[Tensor, "sample key dim"],
        mask: Bool[Tensor, "sample key"] | None = None,
    ) -> Float[Tensor, "sample query dim"]:
        """Return the queries after attention to the keys with a True `mask`; a sample without such a key gets nan."""
        for layer in self.layers:
            queries = layer(queries, keys, mask)
        out: Tensor = self.norm(queries)
        return out


class AttentionLayer(nn.Module):
    """One cross-attention with its feed-forward part."""

    def __init__(self, dim: int, *, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        # Projections of the queries, and of keys and values. Stored arrays have these attribute names.
        self.ask = nn.Linear(dim, dim, bias=False)
        self.answer = nn.Linear(dim, 2 * dim, bias=False)
        self.out = nn.Sequential(nn.Linear(dim, dim), nn.Dropout(dropout))
        self.feed = nn.Sequential(
            nn.LayerNorm(dim),
            nn.Linear(dim, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, dim),
            nn.Dropout(dropout),
        )

    def forward(self, queries: Tensor, keys: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the queries plus attention, plus the feed-forward part of that sum."""
        queries = queries + self.attended(queries, keys, mask)
        return torch.add(queries, self.feed(queries))

    def attended(self, queries: Tensor, keys: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return what attention adds to the queries."""
        key, value = self.answer(self.norm(keys)).chunk(2, dim=-1)
        heads = functional.scaled_dot_product_attention(
            self._split(self.ask(self.norm(queries))),
            self._split(key),
            self._split(value),
            attn_mask=None if mask is None else mask[:, None, None, :],
        )
        added: Tensor = self.out(heads.transpose(1, 2).flatten(start_dim=2))
        return added

    def _split(self, x: Tensor) -> Tensor:
        """Turn [sample, token, dim] into [sample, head, token, part of dim]."""
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)
