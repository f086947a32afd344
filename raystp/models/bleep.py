"""BLEEP: images and expression in one joint space, where a tile's neighbours among measured spots tell its expression.

Two projection heads are trained against each other; prediction is retrieval, which is not this module's work. Method:
Xie et al., NeurIPS 2023, arXiv 2306.01859; where paper and published code differ, the code is followed and the paper's
way is an option. The loss is a function of whole contrast sets, so it knows nothing of workers.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from raystp.errors import ModelError
from raystp.models.baselines import standardiser


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


class ProjectionHead(nn.Module):
    """`LayerNorm(p + Dropout(Linear(GELU(p))))` with `p = Linear(x)`: the published head, for either side."""

    def __init__(self, width: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.project = nn.Linear(width, dim)
        self.refine = nn.Sequential(nn.GELU(), nn.Linear(dim, dim), nn.Dropout(dropout))
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Float[Tensor, "pair width"]) -> Float[Tensor, "pair joint"]:
        """Return the embeddings of rows of features or expression."""
        projected = self.project(x)
        out: Tensor = self.norm(projected + self.refine(projected))
        return out


class Bleep(nn.Module):
    """The two heads, and before the image head a tower that is trained with them, if there is one.

    With a tower the image side reads pixels and the tower returns `d_image` features; without, it reads such features.
    """

    image_mean: Tensor
    image_scale: Tensor

    def __init__(self, d_image: int, genes: int, options: BleepOptions, tower: nn.Module | None = None) -> None:
        super().__init__()
        self.options = options
        self.tower = tower
        self.image_head = ProjectionHead(d_image, options.dim, options.dropout)
        self.spot_head = ProjectionHead(genes, options.dim, options.dropout)
        self.register_buffer("image_mean", torch.zeros(d_image))
        self.register_buffer("image_scale", torch.ones(d_image))

    def standardize(self, features: Float[np.ndarray, "spot image"]) -> None:
        """Let the image head read features as deviations from these (the training spots'), in standard deviations.

        Part of the model from then on, and stored with it; to be called before training. Frozen features need it: their
        scales are their encoder's. Raises ModelError for a model with a tower, whose features move as it learns.
        """
        if self.tower is not None:
            msg = "the features of a tower that is trained move with it and are not standardised: train without a tower"
            raise ModelError(msg)
        for kept, value in zip((self.image_mean, self.image_scale), standardiser(features), strict=True):
            kept.copy_(torch.from_numpy(value))

    def embed_images(self, images: Float[Tensor, "pair ..."]) -> Float[Tensor, "pair joint"]:
        """Return the embeddings of features, or of pixels where there is a tower."""
        out: Tensor = self.image_head(self._features(images))
        return out

    def embed_spots(self, expression: Float[Tensor, "pair gene"]) -> Float[Tensor, "pair joint"]:
        """Return the embeddings of measured expression."""
        out: Tensor = self.spot_head(expression)
        return out

    def forward(self, images: Float[Tensor, "pair ..."], expression: Float[Tensor, "pair gene"]) -> tuple[Tensor, ...]:
        """Return what `loss` needs of each pair: both embeddings, and for `target="input"` both inputs as well."""
        features = self._features(images)
        embedded = (self.image_head(features), self.spot_head(expression))
        return (*embedded, features, expression) if self.options.target == "input" else embedded

    def loss(self, images: Tensor, spots: Tensor, *inputs: Tensor) -> Float[Tensor, ""]:
        """Return `bleep_loss` of one contrast set's rows, as `forward` returns them."""
        return bleep_loss(images, spots, self.options, (inputs[0], inputs[1]) if inputs else None)

    def _features(self, images: Tensor) -> Tensor:
        features: Tensor = images if self.tower is None else self.tower(images)
        return (features - self.image_mean) / self.image_scale


def seeded_bleep(
    d_image: int, genes: int, options: BleepOptions, *, seed: int, tower: nn.Module | None = None
) -> Bleep:
    """Return a fresh model whose heads begin with the same weights for the same seed; other randomness is untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return Bleep(d_image, genes, options, tower)


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
