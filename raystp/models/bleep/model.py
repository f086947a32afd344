"""BLEEP: images and expression in one joint space, where the neighbours of a tile are measured spots.

Two projection heads are trained against each other. Prediction is retrieval and not part of this module. Method: Xie et
al., NeurIPS 2023, arXiv 2306.01859. Where paper and published code differ, the code is the default and the paper's
variant an option. The loss is a function of whole batches and does not depend on workers.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from raystp.errors import ModelError
from raystp.models.bleep.loss import bleep_loss, bleep_loss_part
from raystp.models.bleep.options import BleepOptions
from raystp.models.layers import ProjectionHead, standardiser
from raystp.models.training.plan import RankLayout


class Bleep(nn.Module):
    """The two heads, and optionally an image encoder that is trained with them.

    With an image encoder, `forward` takes pixels and the encoder returns `d_image` features; without one, it takes such
    features. The attribute is `tower`, because stored arrays have its name.
    """

    image_mean: Tensor
    image_scale: Tensor

    def __init__(self, d_image: int, genes: int, options: BleepOptions, encoder: nn.Module | None = None) -> None:
        super().__init__()
        self.options = options
        self.tower = encoder
        self.image_head = ProjectionHead(d_image, options.dim, options.dropout)
        self.spot_head = ProjectionHead(genes, options.dim, options.dropout)
        self.register_buffer("image_mean", torch.zeros(d_image))
        self.register_buffer("image_scale", torch.ones(d_image))

    def standardize(self, features: Float[np.ndarray, "spot image"]) -> None:
        """Set the mean and the deviation of the image features from the training spots; call it before training.

        Both are part of the model and stored with it. Frozen features need it, because their scales are those of their
        encoder. Raises ModelError for a model with an image encoder, whose features change in training.
        """
        if self.tower is not None:
            msg = (
                "the features of an image encoder that is trained with the model change, so they are not standardised: "
                "call standardize() only on a model without `encoder`"
            )
            raise ModelError(msg)
        for buffer, value in zip((self.image_mean, self.image_scale), standardiser(features), strict=True):
            buffer.copy_(torch.from_numpy(value))

    def embed_images(self, images: Float[Tensor, "row ..."]) -> Float[Tensor, "row joint"]:
        """Return the embeddings of features, or of pixels for a model with an image encoder."""
        out: Tensor = self.image_head(self._features(images))
        return out

    def embed_spots(self, expression: Float[Tensor, "row gene"]) -> Float[Tensor, "row joint"]:
        """Return the embeddings of measured expression."""
        out: Tensor = self.spot_head(expression)
        return out

    def forward(self, images: Float[Tensor, "pair ..."], expression: Float[Tensor, "pair gene"]) -> tuple[Tensor, ...]:
        """Return what `loss` needs of each pair: both embeddings, and for `target="input"` both inputs as well."""
        features = self._features(images)
        embedded = (self.image_head(features), self.spot_head(expression))
        return (*embedded, features, expression) if self.options.target == "input" else embedded

    def loss(self, images: Tensor, spots: Tensor, *inputs: Tensor) -> Float[Tensor, ""]:
        """Return `bleep_loss` of the rows of one batch, as `forward` returns them."""
        return bleep_loss(images, spots, self.options, (inputs[0], inputs[1]) if inputs else None)

    def loss_part(self, ranks: RankLayout, images: Tensor, spots: Tensor, *inputs: Tensor) -> Float[Tensor, ""]:
        """Return `bleep_loss_part`: this rank's part of the loss of a batch that is split over ranks."""
        return bleep_loss_part(images, spots, self.options, ranks, inputs=(inputs[0], inputs[1]) if inputs else None)

    def _features(self, images: Tensor) -> Tensor:
        features: Tensor = images if self.tower is None else self.tower(images)
        return (features - self.image_mean) / self.image_scale


def seeded_bleep(
    d_image: int, genes: int, options: BleepOptions, *, seed: int, encoder: nn.Module | None = None
) -> Bleep:
    """Return a new model whose heads have weights drawn from the seed; torch's global generator is left unchanged."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return Bleep(d_image, genes, options, encoder)
