"""The layers on a tile of a bag, for many genes at once: one trunk for all of them, or one for each.

They map a tile's features to its attention logits and its local predictions. A trunk for each gene is the published
design (one model per gene), computed here as one batched module with the same results.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

LEAST = 1e-6
"""Least size of a divisor; a prediction is limited by `AttentionOptions.clamp` afterwards."""


class Linears(nn.Module):
    """Linear maps in parallel, one per group and output; each is initialised as `nn.Linear` is."""

    def __init__(self, groups: int, width: int, outputs: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(width)
        self.weight = nn.Parameter(torch.empty(groups, outputs, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(groups, outputs).uniform_(-bound, bound))

    def forward(self, x: Float[Tensor, "*rows group width"]) -> Float[Tensor, "*rows trunk output"]:
        """Return each group's map of its own input; an input with one group is used for all groups."""
        if x.shape[-2] > 1:
            return torch.einsum("...gi,goi->...go", x, self.weight) + self.bias
        flat = functional.linear(x[..., 0, :], self.weight.flatten(0, 1), self.bias.flatten())
        return flat.reshape(*flat.shape[:-1], *self.bias.shape)


class TileHeads(nn.Module):
    """Embedding, attention and local prediction of a tile (the published code of Graziani et al., 2022).

    With `e = Linear(x)`, the attention logit is `Linear(tanh(Linear(e)))` and the local prediction `Linear(e)`.
    `groups` is the number of trunks: 1 for all genes, or one per gene. `heads` is the number of attentions: 1 or one
    per gene; 0 for pooling without attention. With `gated`, `tanh(Linear(e))` is multiplied by `sigmoid(Linear(e))`.
    Without `genes` (0) there is no local prediction.
    """

    def __init__(
        self, d_image: int, genes: int, *, groups: int, heads: int, widths: tuple[int, int], gated: bool = False
    ) -> None:
        super().__init__()
        embedding, hidden = widths
        self.embed = Linears(groups, d_image, embedding)
        self.local: Linears
        if genes:
            self.local = Linears(groups, embedding, genes // groups)
        self.hidden = Linears(groups, embedding, hidden) if heads else None
        self.attend = Linears(groups, hidden, heads // groups) if heads else None
        self.gate = Linears(groups, embedding, hidden) if heads and gated else None

    def logits(self, embedded: Float[Tensor, "*rows group joint"]) -> Float[Tensor, "*rows head"]:
        """Return the attention logits; without attention they are zeros, which give all tiles the same weight."""
        if self.hidden is None or self.attend is None:
            return torch.zeros_like(embedded[..., 0, :1])
        hidden = torch.tanh(self.hidden(embedded))
        if self.gate is not None:
            hidden = hidden * torch.sigmoid(self.gate(embedded))
        out: Tensor = self.attend(hidden).flatten(-2)
        return out

    def predictions(self, embedded: Float[Tensor, "*rows group joint"]) -> Float[Tensor, "*rows gene"]:
        """Return the local predictions, standardised and not clamped."""
        out: Tensor = self.local(embedded).flatten(-2)
        return out

    def pooled_predictions(self, pooled: Float[Tensor, "bag head joint"]) -> Float[Tensor, "bag gene"]:
        """Return the prediction from the embedding of a bag; under one trunk each gene may have its own embedding."""
        shared = self.local.weight.shape[0] == 1
        if shared and pooled.shape[1] > 1:
            return (pooled * self.local.weight[0]).sum(dim=2) + self.local.bias[0]
        return self.predictions(pooled)


def attention_weights(
    logits: Float[Tensor, "bag tile head"], mask: Float[Tensor, "bag tile"]
) -> Float[Tensor, "bag tile head"]:
    """Return the softmax over the tiles of each bag; padding (mask 0) has weight 0."""
    return torch.softmax(logits.masked_fill(mask[..., None] == 0, -torch.inf), dim=1)


def pool_lin(local: Float[Tensor, "*bag tile gene"], mask: Float[Tensor, "*bag tile"]) -> Float[Tensor, "*bag gene"]:
    """Return `sum y^2 / sum y` over the tiles of each bag, for each gene (Graziani et al., published code)."""
    kept = local * mask[..., None]
    return lin_ratio(kept.square().sum(dim=-2), kept.sum(dim=-2))


def lin_ratio(values: Float[Tensor, "..."], total: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Return `values / total`; the size of the total is at least `LEAST`, so that the ratio is finite."""
    return values / torch.where(total < 0, total.clamp(max=-LEAST), total.clamp(min=LEAST))


def pool_predictions(
    weights: Float[Tensor, "bag tile head"], local: Float[Tensor, "bag tile gene"]
) -> Float[Tensor, "bag gene"]:
    """Return `sum_i a_i y_i` for each gene; with one head all genes use its weights."""
    if weights.shape[2] == 1:
        return torch.bmm(weights.transpose(1, 2), local)[:, 0]
    return (weights * local).sum(dim=1)


def pool_embeddings(
    weights: Float[Tensor, "bag tile head"], embedded: Float[Tensor, "bag tile group joint"]
) -> Float[Tensor, "bag pooled joint"]:
    """Return `sum_i a_i e_i` for each head or trunk, whichever is more."""
    if embedded.shape[2] == 1:
        return torch.einsum("bth,btk->bhk", weights, embedded[:, :, 0])
    return torch.einsum("btg,btgk->bgk", weights.expand(embedded.shape[:3]), embedded)
