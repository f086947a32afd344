"""A transformer that several methods use: pre-norm, without position encoding, over genes or over spots.

Context tokens attend to each other. Query tokens attend to the context only and are not attended to, so a prediction
does not depend on the other queries. A query equal to a context token gets the same output as that token.

Without gradients, queries are computed in parts whose attention scores fit `SCORES_AT_ONCE`, even if no fused kernel is
available. No row of scores is divided, so the result is that of one part.
"""

from typing import Protocol, cast, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

SCORES_AT_ONCE = 1 << 25
"""Attention scores at a time without gradients, 128 MB: limits the memory and does not change the result."""


@runtime_checkable
class TransformerOptions(Protocol):
    """Sizes of a transformer: a method's options, or a part of them."""

    @property
    def width(self) -> int:
        """Length of a token."""
        ...

    @property
    def depth(self) -> int:
        """Number of layers."""
        ...

    @property
    def heads(self) -> int:
        """Number of heads."""
        ...

    @property
    def head_dim(self) -> int:
        """Length of a query, of a key and of a value of one head."""
        ...

    @property
    def feedforward(self) -> int:
        """Length of the hidden layer of the feed-forward."""
        ...

    @property
    def dropout(self) -> float:
        """Dropout of the outputs of attention and feed-forward."""
        ...


KeysValues = tuple[Float[Tensor, "batch head token depth"], Float[Tensor, "batch head token depth"]]


class TransformerLayer(nn.Module):
    """Attention and feed-forward, each of the form `x + f(LayerNorm(x))`."""

    def __init__(self, options: TransformerOptions) -> None:
        super().__init__()
        width, inner = options.width, options.heads * options.head_dim
        self.heads = options.heads
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, inner, bias=False)
        self.key_value = nn.Linear(width, 2 * inner, bias=False)
        self.out = nn.Sequential(nn.Linear(inner, width), nn.Dropout(options.dropout))
        self.feedforward = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, options.feedforward),
            nn.GELU(),
            nn.Dropout(options.dropout),
            nn.Linear(options.feedforward, width),
            nn.Dropout(options.dropout),
        )

    def keys_values(self, context: Float[Tensor, "batch token width"]) -> KeysValues:
        """Return keys and values of the context tokens."""
        keys, values = self.key_value(self.norm(context)).chunk(2, dim=-1)
        return self._split(keys), self._split(values)

    def forward(
        self,
        queries: Float[Tensor, "batch query width"],
        context: KeysValues,
        mask: Bool[Tensor, "batch 1 1 token"] | None = None,
    ) -> Float[Tensor, "batch query width"]:
        """Return the queries after attention to the context; the mask is False at context tokens that are padding.

        The mask is on the axis of the keys. (In the published code it is on that of the queries, without effect.)
        """
        if torch.is_grad_enabled():
            return self._attend(queries, context, mask)
        size = max(1, SCORES_AT_ONCE // max(1, len(queries) * self.heads * context[0].shape[2]))
        starts = range(0, queries.shape[1], size)
        return torch.cat([self._attend(queries[:, at : at + size], context, mask) for at in starts], dim=1)

    def _attend(self, queries: Tensor, context: KeysValues, mask: Tensor | None) -> Tensor:
        projected = self._split(self.query(self.norm(queries)))
        attention = functional.scaled_dot_product_attention(projected, *context, attn_mask=mask)
        attended: Tensor = queries + self.out(attention.transpose(1, 2).flatten(2))
        out: Tensor = attended + self.feedforward(attended)
        return out

    def _split(self, tokens: Tensor) -> Tensor:
        return tokens.reshape(*tokens.shape[:2], self.heads, -1).transpose(1, 2)


class Transformer(nn.Module):
    """A stack of layers."""

    def __init__(self, options: TransformerOptions) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TransformerLayer(options) for _ in range(options.depth))

    def forward(
        self,
        context: Float[Tensor, "batch token width"],
        mask: Bool[Tensor, "batch token"] | None = None,
        queries: Float[Tensor, "batch query width"] | None = None,
    ) -> Float[Tensor, "batch _ width"]:
        """Return the queries after all layers, or without queries the context tokens; the mask is False at padding.

        The output at padding has no meaning.
        """
        allowed = None if mask is None else mask[:, None, None, :]
        layers = [cast("TransformerLayer", layer) for layer in self.layers]
        for number, layer in enumerate(layers, 1):
            keys_values = layer.keys_values(context)
            if queries is not None:
                queries = layer(queries, keys_values, allowed)
            if queries is None or number < len(layers):
                context = layer(context, keys_values, allowed)
        return context if queries is None else queries
