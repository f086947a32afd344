"""The block in which one of NH2ST's modalities asks the other."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional


class CrossAttention(nn.Module):
    """Pre-norm multi-head cross-attention, a feed-forward part, both with a residual, `depth` times; a last norm.

    As the published NH2ST code has it: one LayerNorm for queries and keys alike, GELU and dropout in the feed-forward
    part, dropout behind the attention and none on its weights. With a single key the softmax is 1 whatever the query
    (the published use: `W_o W_v LN(key) + query`); `Nh2stOptions.form` says who the keys are.
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
        """Return the queries, informed by the keys that `mask` says are there; one of them is, or all are nan."""
        for layer in self.layers:
            queries = layer(queries, keys, mask)
        out: Tensor = self.norm(queries)
        return out


class AttentionLayer(nn.Module):
    """One attention with its feed-forward part."""

    def __init__(self, dim: int, *, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
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
        """Return the queries with what they attended to added, and that fed forward."""
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
        """Turn [sample, place, dim] into [sample, head, place, part of dim]."""
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)
