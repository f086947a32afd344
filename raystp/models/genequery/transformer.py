"""The transformer of GeneQuery: pre-norm, without places, over genes or over spots, exact in pieces.

Tokens that make the context attend to each other. Others may read: they attend to the context and are not attended to,
so an answer never depends on who else is asked. A reader with a context token's value comes out as that token does.
Without gradients, readers go through in pieces whose scores fit `SCORES` even where no fused kernel serves; a row of
scores is never cut, so the answer is that of one piece.
"""

from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from raystp.models.genequery.options import GeneQueryOptions

SCORES = 1 << 25
"""Attention scores made in one go without gradients, 128 MB: bounds the memory, never the answer."""

KeysValues = tuple[Float[Tensor, "set head token depth"], Float[Tensor, "set head token depth"]]


class TransformerLayer(nn.Module):
    """Attention and feed-forward, each read through a LayerNorm and added to the token: `x + f(LayerNorm(x))`."""

    def __init__(self, options: GeneQueryOptions) -> None:
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

    def keys_values(self, context: Float[Tensor, "set token width"]) -> KeysValues:
        """Return what is read of the context's tokens."""
        keys, values = self.key_value(self.norm(context)).chunk(2, dim=-1)
        return self._split(keys), self._split(values)

    def forward(
        self,
        readers: Float[Tensor, "set reader width"],
        context: KeysValues,
        mask: Bool[Tensor, "set 1 1 token"] | None = None,
    ) -> Float[Tensor, "set reader width"]:
        """Return the readers after they attended to the context; where the mask is False, a context token is padding.

        The mask is on the axis of the keys. (In the published code it is on the queries', where it does nothing.)
        """
        if torch.is_grad_enabled():
            return self._read(readers, context, mask)
        size = max(1, SCORES // max(1, len(readers) * self.heads * context[0].shape[2]))
        starts = range(0, readers.shape[1], size)
        return torch.cat([self._read(readers[:, at : at + size], context, mask) for at in starts], dim=1)

    def _read(self, readers: Tensor, context: KeysValues, mask: Tensor | None) -> Tensor:
        queries = self._split(self.query(self.norm(readers)))
        read = functional.scaled_dot_product_attention(queries, *context, attn_mask=mask)
        attended: Tensor = readers + self.out(read.transpose(1, 2).flatten(2))
        fed: Tensor = attended + self.feedforward(attended)
        return fed

    def _split(self, tokens: Tensor) -> Tensor:
        return tokens.reshape(*tokens.shape[:2], self.heads, -1).transpose(1, 2)


class Transformer(nn.Module):
    """Some layers, one after the other."""

    def __init__(self, options: GeneQueryOptions) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TransformerLayer(options) for _ in range(options.depth))

    def forward(
        self,
        context: Float[Tensor, "set token width"],
        mask: Bool[Tensor, "set token"] | None = None,
        readers: Float[Tensor, "set reader width"] | None = None,
    ) -> Float[Tensor, "set _ width"]:
        """Return the readers, or without any the context's own tokens, after all layers; the mask is False at padding.

        What comes out at padding has no meaning.
        """
        allowed = None if mask is None else mask[:, None, None, :]
        layers = [cast("TransformerLayer", layer) for layer in self.layers]
        for number, layer in enumerate(layers, 1):
            kept = layer.keys_values(context)
            if readers is not None:
                readers = layer(readers, kept, allowed)
            if readers is None or number < len(layers):
                context = layer(context, kept, allowed)
        return context if readers is None else readers
