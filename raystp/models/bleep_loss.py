"""BLEEP's loss: over all rows of a contrast set, or one rank's share of it.

Images and expression are compared in both directions with a soft target, the similarity of the rows among themselves.
On several ranks (`bleep_loss_part`) no rank holds all pairs of rows. The image side reads the target by columns; its
similarities are symmetric, so a column is a row of the own similarities, each entry under the other row's normaliser:
what is fetched from the other ranks beside their embeddings is one logarithm a row, with its gradient.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from raystp.errors import ModelError
from raystp.models.plan import Ranks


@dataclass(frozen=True)
class BleepOptions:
    """What changes BLEEP's result; the defaults are the published code's."""

    temperature: float = 1.0
    """Divides the logits. At 1 with unnormalised embeddings they are sharp; with normalised ones about 0.07 is needed,
    or the target becomes nearly uniform and the model collapses."""
    normalize_embeddings: bool = False
    """Whether the loss scales each embedding to length 1 first. What the heads return is never scaled."""
    target_scale: Literal["div", "mul"] = "div"
    """Whether similarities are divided by the temperature in the target (the code) or multiplied (the paper)."""
    target: Literal["smoothed", "identity", "input"] = "smoothed"
    """Similarity of the embeddings (BLEEP), the pair alone (CLIP), or similarity of what enters the heads (H&Enium)."""
    detach_target: bool = False
    """Whether the gradient stops at the target. In the published code it does not."""
    dropout: float = 0.1
    dim: int = 256
    """Length of an embedding."""
    input_temperature: float = 0.1
    """Divides the cosines of `target="input"`; a choice of ours, not a published value."""

    def __post_init__(self) -> None:
        if self.temperature <= 0 or self.input_temperature <= 0:
            seen = f"temperature {self.temperature}, input_temperature {self.input_temperature}"
            msg = f"BLEEP divides by its temperatures, which must be above 0, got {seen}"
            raise ModelError(msg)


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
    raises ModelError without.
    """
    if options.normalize_embeddings:
        images, spots = functional.normalize(images), functional.normalize(spots)
    logits = spots @ images.T / options.temperature
    target = soft_target(images, spots, options, inputs)
    of_spots = -(target * functional.log_softmax(logits, dim=1)).sum(dim=1)
    of_images = -(target.T * functional.log_softmax(logits.T, dim=1)).sum(dim=1)
    return ((of_spots + of_images) / 2).mean()


def soft_target(
    images: Float[Tensor, "pair joint"],
    spots: Float[Tensor, "pair joint"],
    options: BleepOptions,
    inputs: tuple[Float[Tensor, "pair image"], Float[Tensor, "pair gene"]] | None = None,
) -> Float[Tensor, "pair pair"]:
    """Return how much each row (a spot) is to find each column (an image); rows sum to 1.

    `input` is the mean cosine of what enters the heads (H&Enium, 2025, as others describe it; its weights unknown).
    """
    if options.target == "identity":
        return torch.eye(len(images), dtype=images.dtype, device=images.device)
    if options.target == "input":
        if inputs is None:
            msg = 'BLEEP with target="input" compares what enters the heads, and its loss was called without `inputs`'
            raise ModelError(msg)
        sides = [functional.normalize(side.to(images.dtype)) for side in inputs]
        scale = 1 / options.input_temperature
    else:
        sides = [images, spots]
        scale = options.temperature if options.target_scale == "mul" else 1 / options.temperature
    similarity = (sides[0] @ sides[0].T + sides[1] @ sides[1].T) / 2
    target = functional.softmax(similarity * scale, dim=1)
    return target.detach() if options.detach_target else target


def bleep_loss_part(
    images: Float[Tensor, "own joint"],
    spots: Float[Tensor, "own joint"],
    options: BleepOptions,
    ranks: Ranks,
    *,
    inputs: tuple[Float[Tensor, "own image"], Float[Tensor, "own gene"]] | None = None,
) -> Float[Tensor, ""]:
    """Return the mean over the own rows of their part of the loss: its mean over ranks is `bleep_loss` of all rows.

    With s the target's similarities, its row i is `exp(s[i, j] - z[i])`, its column i `exp(s[i, j] - z[j])`, and z the
    logsumexp of each row. Raises ModelError where `target="input"` and there are no `inputs`.
    """
    gather = ranks.gather or _itself
    if options.normalize_embeddings:
        images, spots = functional.normalize(images), functional.normalize(spots)
    all_images, all_spots = gather(images), gather(spots)
    of_spots = functional.log_softmax(spots @ all_images.T / options.temperature, dim=1)
    of_images = functional.log_softmax(images @ all_spots.T / options.temperature, dim=1)
    if options.target == "identity":
        first = ranks.rank * len(images) if ranks.gather is not None else 0
        own = torch.arange(len(images), device=images.device)
        return -(of_spots[own, first + own] + of_images[own, first + own]).mean() / 2
    similarity = _similarity((images, spots), (all_images, all_spots), options, ranks=ranks, inputs=inputs)
    normaliser = similarity.logsumexp(dim=1, keepdim=True)
    by_row = (similarity - normaliser).exp()
    by_column = (similarity - gather(normaliser).T).exp()
    return -((by_row * of_spots).sum(dim=1) + (by_column * of_images).sum(dim=1)).mean() / 2


def _similarity(
    own: tuple[Tensor, Tensor],
    everyone: tuple[Tensor, Tensor],
    options: BleepOptions,
    *,
    ranks: Ranks,
    inputs: tuple[Tensor, Tensor] | None,
) -> Float[Tensor, "own all"]:
    """Return the own rows of what `soft_target` takes the softmax of."""
    if options.target == "input":
        if inputs is None:
            msg = 'BLEEP with target="input" compares what enters the heads, and its loss was called without `inputs`'
            raise ModelError(msg)
        own = (functional.normalize(inputs[0].float()), functional.normalize(inputs[1].float()))
        gather = ranks.gather or _itself
        everyone, scale = (gather(own[0]), gather(own[1])), 1 / options.input_temperature
    else:
        scale = options.temperature if options.target_scale == "mul" else 1 / options.temperature
    similarity = scale * (own[0] @ everyone[0].T + own[1] @ everyone[1].T) / 2
    return similarity.detach() if options.detach_target else similarity


def _itself(rows: Tensor) -> Tensor:
    return rows
