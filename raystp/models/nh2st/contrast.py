"""NH2ST's contrast: each row must find its partner among all rows, whose similarities are scaled down."""

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

CHUNK = 256
"""Rows compared with all others at a time: limits the memory and does not change the value."""


def contrast(
    first: Float[Tensor, "own dim"],
    second: Float[Tensor, "sample dim"],
    temperature: float,
    *,
    negatives: float = 0.1,
    start: int = 0,
) -> Float[Tensor, ""]:
    """Return the mean over the rows of `first` of the cross-entropy of finding the same row of `second`.

    From NH2ST's published code: cosines over `temperature`, those of other rows times `negatives`, one direction only.
    So the negatives have an effective temperature of `temperature / negatives`. Computed in float32.

    `first` may be the part of the rows that begins at row `start` of `second`: the mean over equal parts is the loss of
    all rows, in value and in gradient. Memory is a chunk of rows by all rows, forwards and backwards: the gradient
    computes each chunk's similarities again.
    """
    with torch.autocast(first.device.type, enabled=False):
        queries, keys = functional.normalize(first.float()), functional.normalize(second.float())
        losses = []
        for begin in range(0, len(first), CHUNK):
            chunk = queries[begin : begin + CHUNK]
            chunk_loss = partial(_chunk_loss, start=start + begin, temperature=temperature, negatives=negatives)
            if torch.is_grad_enabled() and len(first) > CHUNK:
                losses.append(checkpoint(chunk_loss, chunk, keys, use_reentrant=False, preserve_rng_state=False))
            else:
                losses.append(chunk_loss(chunk, keys))
        return torch.stack(losses).sum() / len(first)


def contrast_logits(
    chunk: Float[Tensor, "row dim"],
    second: Float[Tensor, "sample dim"],
    *,
    start: int,
    temperature: float,
    negatives: float,
) -> Float[Tensor, "row sample"]:
    """Return the logits of rows of unit length, from row `start` on; the entry of each row's partner is not scaled."""
    logits = chunk @ second.T / temperature
    partner = torch.arange(start, start + len(chunk), device=chunk.device)[:, None]
    return (logits * negatives).scatter(1, partner, logits.gather(1, partner))


def _chunk_loss(chunk: Tensor, second: Tensor, *, start: int, temperature: float, negatives: float) -> Tensor:
    partner = torch.arange(start, start + len(chunk), device=chunk.device)
    logits = contrast_logits(chunk, second, start=start, temperature=temperature, negatives=negatives)
    return functional.cross_entropy(logits, partner, reduction="sum")
