"""The contrastive loss of BLEEP, of which CLIP's is a case: over all rows of a batch, or one rank's part of it.

Images and expression are compared in both directions with a soft target, the similarity of the rows among themselves.
The image side uses the columns of the target. Here its sum is taken by rows, so that a rank needs only its own rows of
the target. Besides the embeddings, ranks exchange only one logarithm a column, with its gradient. A large batch is
compared block by block of rows (`loss_blocks`), so no rank holds more than a block of any matrix.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from raystp.errors import ModelError
from raystp.models.contrastive.loss_blocks import BLOCK, Terms, log_columns, summed_loss
from raystp.models.contrastive.options import ContrastiveOptions
from raystp.models.training.plan import ONE_RANK, RankLayout


def contrastive_loss(
    images: Float[Tensor, "pair joint"],
    spots: Float[Tensor, "pair joint"],
    options: ContrastiveOptions,
    inputs: tuple[Float[Tensor, "pair image"], Float[Tensor, "pair gene"]] | None = None,
) -> Float[Tensor, ""]:
    """Return the loss of one batch: each row must find its partner among all rows, in both directions.

    With V the images and X the spots, all rows of a batch at once::

        logits = X V' / T
        target = softmax_rows((V V' + X X') / 2 / T)
        loss   = mean_i of half of  - sum_j target[i, j] log_softmax(logits )[i, j]
                                    - sum_j target[j, i] log_softmax(logits')[i, j]

    The image side uses the transposed target, whose rows need not sum to 1, and the gradient flows through the target:
    both as in the published code (github.com/bowang-lab/BLEEP, Apache-2.0). The paper writes the sum of the two, not
    its half. `inputs` are the inputs of the heads, image side first. Only `target="input"` uses them; without them it
    raises ModelError. A batch too large for one block is computed by `contrastive_loss_part`.
    """
    if len(images) ** 2 > BLOCK:
        return contrastive_loss_part(images, spots, options, ONE_RANK, inputs=inputs)
    with torch.autocast(images.device.type, enabled=False):
        images, spots = _scaled(images, spots, options)
        logits = spots @ images.T / options.temperature
        target = soft_target(images, spots, options, inputs)
        of_spots = -(target * functional.log_softmax(logits, dim=1)).sum(dim=1)
        of_images = -(target.T * functional.log_softmax(logits.T, dim=1)).sum(dim=1)
        return ((of_spots + of_images) / 2).mean()


def contrastive_loss_part(
    images: Float[Tensor, "own joint"],
    spots: Float[Tensor, "own joint"],
    options: ContrastiveOptions,
    ranks: RankLayout,
    *,
    inputs: tuple[Float[Tensor, "own image"], Float[Tensor, "own gene"]] | None = None,
) -> Float[Tensor, ""]:
    """Return this rank's part of the loss, mean over its own rows.

    Its mean over ranks is `contrastive_loss` of all rows. The part of a spot includes the terms of all images with that
    spot. Its row of the target sums to 1, so with r the logsumexp of each row of logits and c that of each column, both
    sides together are::

        sum_j target[i, j] ((r[i] + c[j]) / 2 - logits[i, j])

    Computed in float32 at least, for any dtype of the embeddings. Raises ModelError for `target="input"` without
    `inputs`.
    """
    gather = ranks.gather or _itself
    with torch.autocast(images.device.type, enabled=False):
        images, spots = _scaled(images, spots, options)
        own, scale = _target_rows(images, spots, options, inputs)
        all_images = gather(images)
        similar = [side for one in own for side in (one, all_images if one is images else gather(one))]
        columns = gather(log_columns(spots, all_images, options.temperature)[None]).logsumexp(dim=0)
        first = ranks.rank * len(spots) if ranks.gather is not None else 0
        terms = Terms(options.temperature, scale, first, options.detach_target)
        return summed_loss(spots, all_images, columns, tuple(similar), terms=terms) / len(spots)


def soft_target(
    images: Float[Tensor, "pair joint"],
    spots: Float[Tensor, "pair joint"],
    options: ContrastiveOptions,
    inputs: tuple[Float[Tensor, "pair image"], Float[Tensor, "pair gene"]] | None = None,
) -> Float[Tensor, "pair pair"]:
    """Return the target of each row (a spot) over the columns (images); rows sum to 1.

    `input` is the mean cosine of the heads' inputs (H&Enium, 2025, as others describe it; its weights are unknown).
    """
    own, scale = _target_rows(images, spots, options, inputs)
    if not own:
        return torch.eye(len(images), dtype=images.dtype, device=images.device)
    similarity = own[0] @ own[0].T + own[1] @ own[1].T
    target = functional.softmax(similarity * (scale / 2), dim=1)
    return target.detach() if options.detach_target else target


def _target_rows(
    images: Tensor, spots: Tensor, options: ContrastiveOptions, inputs: tuple[Tensor, Tensor] | None
) -> tuple[tuple[Tensor, ...], float]:
    """Return the rows whose similarities make the target, and the factor of the similarities."""
    if options.target == "identity":
        return (), 1.0
    if options.target == "smoothed":
        return (images, spots), options.temperature if options.target_scale == "mul" else 1 / options.temperature
    if inputs is None:
        msg = 'the contrastive loss with target="input" was called without `inputs`: pass the inputs of both heads'
        raise ModelError(msg)
    return tuple(functional.normalize(_float32(side)) for side in inputs), 1 / options.input_temperature


def _scaled(images: Tensor, spots: Tensor, options: ContrastiveOptions) -> tuple[Tensor, Tensor]:
    """Return the embeddings in float32 at least, and of length 1 where the options say so."""
    if options.normalize_embeddings:
        return functional.normalize(_float32(images)), functional.normalize(_float32(spots))
    return _float32(images), _float32(spots)


def _float32(rows: Tensor) -> Tensor:
    """Return the rows in float32, or in float64 if they are in float64."""
    return rows.to(torch.promote_types(rows.dtype, torch.float32))


def _itself(rows: Tensor) -> Tensor:
    return rows
