"""BLEEP: images and expression in one joint space, where a tile's neighbours among measured spots tell its expression.

Two projection heads are trained against each other; prediction is retrieval, which is not this module's work. Method:
Xie et al., NeurIPS 2023, arXiv 2306.01859; where paper and published code differ, the code is followed and the paper's
way is an option. The loss is a function of whole contrast sets, so it knows nothing of workers.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from raystp.errors import ModelError
from raystp.models.bleep.loss import bleep_loss, bleep_loss_part
from raystp.models.bleep.options import BleepOptions
from raystp.models.layers import ProjectionHead
from raystp.models.standardise import standardiser
from raystp.models.training.plan import RankLayout


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

    def loss_part(self, ranks: RankLayout, images: Tensor, spots: Tensor, *inputs: Tensor) -> Float[Tensor, ""]:
        """Return `bleep_loss_part`: this rank's share of the loss of a set that is split over ranks."""
        return bleep_loss_part(images, spots, self.options, ranks, inputs=(inputs[0], inputs[1]) if inputs else None)

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
