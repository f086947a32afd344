"""Two heads that embed images and expression in one joint space, with the features' scaling and the loss.

The loss is a function of whole batches and does not depend on workers.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from raystp.models.contrastive.loss import contrastive_loss, contrastive_loss_part
from raystp.models.contrastive.options import ContrastiveOptions
from raystp.models.layers import ProjectionHead, scale_features
from raystp.models.training.plan import RankLayout


class ContrastiveHeads(nn.Module):
    """The two heads."""

    image_mean: Tensor
    image_scale: Tensor

    def __init__(self, d_image: int, genes: int, options: ContrastiveOptions) -> None:
        super().__init__()
        self.options = options
        self.image_head = ProjectionHead(d_image, options.dim, options.dropout)
        self.spot_head = ProjectionHead(genes, options.dim, options.dropout)
        self.register_buffer("image_mean", torch.zeros(d_image))
        self.register_buffer("image_scale", torch.ones(d_image))

    def standardize(self, features: Float[np.ndarray, "spot image"]) -> None:
        """Set the scaling of the image features from the training spots (`scale_features`); call it before training.

        It is part of the model and stored with it. Features need it, because their scales are those of their encoder.
        An encoder that is trained along starts with these features.
        """
        scale_features((self.image_mean, self.image_scale), features, self.options.feature_scaling)

    def embed_images(self, images: Float[Tensor, "row image"]) -> Float[Tensor, "row joint"]:
        """Return the embeddings of features."""
        out: Tensor = self.image_head(self._features(images))
        return out

    def embed_spots(self, expression: Float[Tensor, "row gene"]) -> Float[Tensor, "row joint"]:
        """Return the embeddings of measured expression."""
        out: Tensor = self.spot_head(expression)
        return out

    def forward(
        self, images: Float[Tensor, "pair image"], expression: Float[Tensor, "pair gene"]
    ) -> tuple[Tensor, ...]:
        """Return what `loss` needs of each pair: both embeddings, and for `target="input"` both inputs as well."""
        features = self._features(images)
        embedded = (self.image_head(features), self.spot_head(expression))
        return (*embedded, features, expression) if self.options.target == "input" else embedded

    def loss(self, images: Tensor, spots: Tensor, *inputs: Tensor) -> Float[Tensor, ""]:
        """Return `contrastive_loss` of the rows of one batch, as `forward` returns them."""
        return contrastive_loss(images, spots, self.options, (inputs[0], inputs[1]) if inputs else None)

    def loss_part(self, ranks: RankLayout, images: Tensor, spots: Tensor, *inputs: Tensor) -> Float[Tensor, ""]:
        """Return `contrastive_loss_part`: this rank's part of the loss of a batch that is split over ranks."""
        given = (inputs[0], inputs[1]) if inputs else None
        return contrastive_loss_part(images, spots, self.options, ranks, inputs=given)

    def _features(self, images: Tensor) -> Tensor:
        return (images - self.image_mean) / self.image_scale
