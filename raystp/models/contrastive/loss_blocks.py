"""The contrastive loss of a large batch: block by block of rows, in three buffers, with a gradient derived by hand.

Under autograd, every operation on every block would keep its result. Here the rows of a block are compared with all
rows, summed up and discarded; for the gradient they are compared again. With own rows X of spots, all images V, their
logits L and the target t, all rows of t sum to 1, and this rank's part of the loss is::

    sum_ij t[i, j] ((r[i] + c[j]) / 2 - L[i, j])      r, c: logsumexp of each row of L, and of each whole column
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 1 << 20
"""Entries of a buffer: limits the memory and does not change the value."""

Context = Any
"""torch's context of an autograd function, to which any attribute can be added."""


@dataclass(frozen=True)
class Terms:
    """Inputs of the loss that are not tensors."""

    temperature: float
    """Divides the logits."""
    scale: float
    """Multiplies the target's similarities."""
    first: int
    """Index of the first own row among all rows."""
    detached: bool
    """Whether the target gets no gradient."""


def log_columns(
    spots: Float[Tensor, "own joint"], images: Float[Tensor, "all joint"], temperature: float
) -> Float[Tensor, " all"]:
    """Return the logsumexp of each column of the own rows of logits."""
    apply: Callable[..., Tensor] = _LogColumns.apply
    return apply(spots, images, temperature)


def summed_loss(
    spots: Float[Tensor, "own joint"],
    images: Float[Tensor, "all joint"],
    columns: Float[Tensor, " all"],
    similar: tuple[Tensor, ...],
    *,
    terms: Terms,
) -> Float[Tensor, ""]:
    """Return the own part of the loss; `columns` are c.

    `similar` are the rows that the target compares: own rows and all rows of the one side, then of the other. If it is
    empty, the target of each row is its partner alone.
    """
    apply: Callable[..., Tensor] = _SummedLoss.apply
    return apply(spots, images, columns, terms, *similar)


class _LogColumns(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Context, spots: Tensor, images: Tensor, temperature: float) -> Tensor:
        total = spots.new_full((len(images),), -torch.inf)
        for part, logits in _blocks(spots, images, 1):
            _logits(spots[part], images, temperature, logits[0])
            top = logits[0].amax(dim=0)
            total = torch.logaddexp(total, logits[0].sub_(top).exp_().sum(dim=0).log_().add_(top))
        ctx.save_for_backward(spots, images, total)
        ctx.temperature = temperature
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        spots, images, total = ctx.saved_tensors
        of_spots, of_images = torch.empty_like(spots), torch.zeros_like(images)
        for part, (logits,) in _blocks(spots, images, 1):
            _logits(spots[part], images, ctx.temperature, logits)
            share = logits.sub_(total).exp_().mul_(gradient / ctx.temperature)
            torch.mm(share, images, out=of_spots[part])
            of_images.addmm_(share.T, spots[part])
        return of_spots, of_images, None


class _SummedLoss(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917 -- torch passes them by position
        ctx: Context, spots: Tensor, images: Tensor, columns: Tensor, terms: Terms, *similar: Tensor
    ) -> Tensor:
        ctx.save_for_backward(spots, images, columns, *similar)
        ctx.terms = terms
        total: Tensor = spots.new_zeros(())
        for part, buffers in _blocks(spots, images, 3):
            excess, target, _ = _block_terms(part, (spots, images, columns), similar, terms=terms, buffers=buffers)
            total += excess.mul_(target).sum()
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (spots, images, columns, *similar), terms = ctx.saved_tensors, ctx.terms
        of_spots, of_images, of_columns = torch.empty_like(spots), torch.zeros_like(images), torch.zeros_like(columns)
        through_target = bool(similar) and not terms.detached
        of_similar = [torch.zeros_like(side) for side in similar] if through_target else []
        for part, buffers in _blocks(spots, images, 3):
            excess, target, softmax = _block_terms(
                part, (spots, images, columns), similar, terms=terms, buffers=buffers
            )
            of_columns += target.sum(dim=0)
            of_logits = softmax.mul_(0.5).sub_(target).mul_(1 / terms.temperature)
            torch.mm(of_logits, images, out=of_spots[part])
            of_images.addmm_(of_logits.T, spots[part])
            if through_target:
                mean = softmax.copy_(excess).mul_(target).sum(dim=1, keepdim=True)
                slope = excess.sub_(mean).mul_(target).mul_(terms.scale / 2)
                for side in (0, 2):
                    torch.mm(slope, similar[side + 1], out=of_similar[side][part])
                    of_similar[side + 1].addmm_(slope.T, similar[side][part])
        for found in (of_spots, of_images, of_columns.mul_(0.5), *of_similar):
            found.mul_(gradient)
        without = [None] * (len(similar) - len(of_similar))
        return of_spots, of_images, of_columns, None, *of_similar, *without


def _blocks(spots: Tensor, images: Tensor, buffers: int) -> Iterator[tuple[slice, Tensor]]:
    """Yield each block's rows and its buffers, [buffer, row, all]; all blocks use the same memory."""
    size = min(len(spots), max(1, BLOCK // len(images)))
    memory = spots.new_empty((buffers, size, len(images)))
    for start in range(0, len(spots), size):
        part = slice(start, min(start + size, len(spots)))
        yield part, memory[:, : part.stop - start]


def _logits(spots: Tensor, images: Tensor, temperature: float, out: Tensor) -> None:
    torch.mm(spots, images.T, out=out).div_(temperature)


def _block_terms(
    part: slice, rows: tuple[Tensor, Tensor, Tensor], similar: Sequence[Tensor], *, terms: Terms, buffers: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (r + c) / 2 - L, t and softmax(L) of a block, each in its own buffer."""
    spots, images, columns = rows
    logits, target, softmax = buffers
    _logits(spots[part], images, terms.temperature, logits)
    normaliser = _softmax(softmax.copy_(logits))
    if similar:
        torch.mm(similar[0][part], similar[1].T, out=target)
        _softmax(target.addmm_(similar[2][part], similar[3].T).mul_(terms.scale / 2))
    else:
        target.zero_().diagonal(terms.first + part.start).fill_(1)
    excess: Tensor = logits.neg_().add_(columns, alpha=0.5).add_(normaliser, alpha=0.5)
    return excess, target, softmax


def _softmax(values: Tensor) -> Tensor:
    """Turn each row into its softmax, in place; return the rows' logsumexp."""
    top = values.amax(dim=1, keepdim=True)
    total = values.sub_(top).exp_().sum(dim=1, keepdim=True)
    values.div_(total)
    normaliser: Tensor = total.log_().add_(top)
    return normaliser
