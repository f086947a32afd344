"""BLEEP's loss: over all rows of a contrast set, or one rank's share of it.

Images and expression are compared in both directions with a soft target, the similarity of the rows among themselves.
The image side reads the target by columns; its sum is taken by rows here, so that a rank needs its own rows of the
target alone: what is fetched from the other ranks beside their embeddings is one logarithm a column, with its gradient.
A large set is compared block by block of rows (`bleep_blocks`), so no rank holds more than a block of any matrix.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from raystp.errors import ModelError
from raystp.models.bleep.loss_blocks import BLOCK, Terms, log_columns, summed_loss
from raystp.models.bleep.options import BleepOptions
from raystp.models.training.plan import ALONE, RankLayout


def bleep_loss(
    images: Float[Tensor, "pair joint"],
    spots: Float[Tensor, "pair joint"],
    options: BleepOptions,
    inputs: tuple[Float[Tensor, "pair image"], Float[Tensor, "pair gene"]] | None = None,
) -> Float[Tensor, ""]:
    """Return the loss of one contrast set: each row's partner is to be found among all rows, in both directions.

    With V the images and X the spots, all rows of a set at once::

        logits = X V' / T
        target = softmax_rows((V V' + X X') / 2 / T)
        loss   = mean_i of half of  - sum_j target[i, j] log_softmax(logits )[i, j]
                                    - sum_j target[j, i] log_softmax(logits')[i, j]

    The image side uses the transposed target, whose rows need not sum to 1, and the gradient flows through the target:
    both as in the published code (github.com/bowang-lab/BLEEP, Apache-2.0). The paper writes the sum of the two, not
    its half. `inputs` are the rows that entered the heads, image side first; only `target="input"` reads them, and
    raises ModelError without. A set too large for one block goes the way of `bleep_loss_part`.
    """
    if len(images) ** 2 > BLOCK:
        return bleep_loss_part(images, spots, options, ALONE, inputs=inputs)
    with torch.autocast(images.device.type, enabled=False):
        images, spots = _lengths(images, spots, options)
        logits = spots @ images.T / options.temperature
        target = soft_target(images, spots, options, inputs)
        of_spots = -(target * functional.log_softmax(logits, dim=1)).sum(dim=1)
        of_images = -(target.T * functional.log_softmax(logits.T, dim=1)).sum(dim=1)
        return ((of_spots + of_images) / 2).mean()


def bleep_loss_part(
    images: Float[Tensor, "own joint"],
    spots: Float[Tensor, "own joint"],
    options: BleepOptions,
    ranks: RankLayout,
    *,
    inputs: tuple[Float[Tensor, "own image"], Float[Tensor, "own gene"]] | None = None,
) -> Float[Tensor, ""]:
    """Return the mean over the own rows of their part of the loss: its mean over ranks is `bleep_loss` of all rows.

    A spot's part holds what every image loses by it. Its row of the target sums to 1, so with r the logsumexp of each
    row of logits and c that of each column, both sides together are::

        sum_j target[i, j] ((r[i] + c[j]) / 2 - logits[i, j])

    Computed in float32 at least, whatever the embeddings are in. Raises ModelError where `target="input"` and there are
    no `inputs`.
    """
    gather = ranks.gather or _itself
    with torch.autocast(images.device.type, enabled=False):
        images, spots = _lengths(images, spots, options)
        own, scale = _compared(images, spots, options, inputs)
        all_images = gather(images)
        similar = [side for one in own for side in (one, all_images if one is images else gather(one))]
        columns = gather(log_columns(spots, all_images, options.temperature)[None]).logsumexp(dim=0)
        first = ranks.rank * len(spots) if ranks.gather is not None else 0
        terms = Terms(options.temperature, scale, first, options.detach_target)
        return summed_loss(spots, all_images, columns, tuple(similar), terms=terms) / len(spots)


def soft_target(
    images: Float[Tensor, "pair joint"],
    spots: Float[Tensor, "pair joint"],
    options: BleepOptions,
    inputs: tuple[Float[Tensor, "pair image"], Float[Tensor, "pair gene"]] | None = None,
) -> Float[Tensor, "pair pair"]:
    """Return how much each row (a spot) is to find each column (an image); rows sum to 1.

    `input` is the mean cosine of what enters the heads (H&Enium, 2025, as others describe it; its weights unknown).
    """
    own, scale = _compared(images, spots, options, inputs)
    if not own:
        return torch.eye(len(images), dtype=images.dtype, device=images.device)
    similarity = own[0] @ own[0].T + own[1] @ own[1].T
    target = functional.softmax(similarity * (scale / 2), dim=1)
    return target.detach() if options.detach_target else target


def _compared(
    images: Tensor, spots: Tensor, options: BleepOptions, inputs: tuple[Tensor, Tensor] | None
) -> tuple[tuple[Tensor, ...], float]:
    """Return the rows whose similarities make the target, and what those are multiplied with."""
    if options.target == "identity":
        return (), 1.0
    if options.target == "smoothed":
        return (images, spots), options.temperature if options.target_scale == "mul" else 1 / options.temperature
    if inputs is None:
        msg = 'BLEEP with target="input" compares what enters the heads, and its loss was called without `inputs`'
        raise ModelError(msg)
    return tuple(functional.normalize(_wide(side)) for side in inputs), 1 / options.input_temperature


def _lengths(images: Tensor, spots: Tensor, options: BleepOptions) -> tuple[Tensor, Tensor]:
    """Return the embeddings as the loss reads them."""
    if options.normalize_embeddings:
        return functional.normalize(_wide(images)), functional.normalize(_wide(spots))
    return _wide(images), _wide(spots)


def _wide(rows: Tensor) -> Tensor:
    return rows.to(torch.promote_types(rows.dtype, torch.float32))


def _itself(rows: Tensor) -> Tensor:
    return rows
