"""BLEEP on whole cases: the slide as a bag of tiles, and the case's expression, in one joint space.

The slide side is an attention pool of tile embeddings (ABMIL, Ilse et al. 2018) and BLEEP's image head; the expression
side is BLEEP's head. Design: the contrastive model of Gustafsson and Rantalainen (arXiv 2410.00945), of which the
poster states the form; widths and training are choices of ours. A bag of one tile is BLEEP with one more layer.
"""

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from raystp.models.bags.heads import TileHeads, attention_weights, pool_embeddings
from raystp.models.bleep.options import BagBleepOptions
from raystp.models.contrastive.loss import contrastive_loss, contrastive_loss_part
from raystp.models.layers import ProjectionHead, scale_features
from raystp.models.training.plan import RankLayout


class BagBleep(nn.Module):
    """Embeds bags of tiles and expression; its buffers hold the scaling of features and labels."""

    feature_mean: Tensor
    feature_scale: Tensor
    label_mean: Tensor
    label_scale: Tensor

    def __init__(self, d_image: int, genes: int, options: BagBleepOptions) -> None:
        super().__init__()
        self.options = options
        widths = (options.embedding, options.hidden)
        self.tile = TileHeads(d_image, 0, groups=1, heads=1, widths=widths, gated=options.gate)
        self.image_head = ProjectionHead(options.embedding, options.dim, options.dropout)
        self.spot_head = ProjectionHead(genes, options.dim, options.dropout)
        for name, width in (("feature", d_image), ("label", genes)):
            self.register_buffer(f"{name}_mean", torch.zeros(width))
            self.register_buffer(f"{name}_scale", torch.ones(width))

    def standardize(self, features: Float[np.ndarray, "tile feature"], labels: Float[np.ndarray, "bag gene"]) -> None:
        """Set the scaling of tiles and labels from the training cases (`scale_features`); call it before training.

        Labels of whole cases are much alike, so only their deviations from the training mean are embedded.
        """
        scaling = self.options.feature_scaling
        scale_features((self.feature_mean, self.feature_scale), features, scaling)
        scale_features((self.label_mean, self.label_scale), labels, scaling)

    def embed_tiles(self, features: Float[Tensor, "*rows feature"]) -> Float[Tensor, "*rows 1 width"]:
        """Return the tiles' embeddings before pooling."""
        standard = (features - self.feature_mean) / self.feature_scale
        out: Tensor = functional.relu(self.tile.embed(standard[..., None, :]))
        return out

    def embed_pooled(self, pooled: Float[Tensor, "bag width"]) -> Float[Tensor, "bag joint"]:
        """Return the joint embeddings of pooled tiles; a tile alone is pooled too."""
        out: Tensor = self.image_head(pooled)
        return out

    def embed_spots(self, labels: Float[Tensor, "bag gene"]) -> Float[Tensor, "bag joint"]:
        """Return the joint embeddings of expression."""
        out: Tensor = self.spot_head((labels - self.label_mean) / self.label_scale)
        return out

    def forward(
        self,
        features: Float[Tensor, "bag tile feature"],
        mask: Float[Tensor, "bag tile"],
        labels: Float[Tensor, "bag gene"],
    ) -> tuple[Float[Tensor, "bag joint"], Float[Tensor, "bag joint"]]:
        """Return the embeddings of bags and of their labels; the mask is 0 at padding."""
        embedded = self.embed_tiles(features.masked_fill(mask[..., None] == 0, 0.0))
        weights = attention_weights(self.tile.logits(embedded), mask)
        return self.embed_pooled(pool_embeddings(weights, embedded)[:, 0]), self.embed_spots(labels)

    def loss(self, bags: Tensor, labels: Tensor) -> Float[Tensor, ""]:
        """Return `contrastive_loss` of the rows of one batch."""
        return contrastive_loss(bags, labels, self.options)

    def loss_part(self, ranks: RankLayout, bags: Tensor, labels: Tensor) -> Float[Tensor, ""]:
        """Return `contrastive_loss_part`: this rank's part of the loss of a batch that is split over ranks."""
        return contrastive_loss_part(bags, labels, self.options, ranks)

    def embed_bag(self, parts: Iterable[Float[Tensor, "part feature"]]) -> Float[Tensor, " joint"]:
        """Return the embedding of one bag from parts of its tiles, one part in memory at a time; in float64 sums.

        The softmax is rescaled when its maximum rises, so the result does not depend on the parts.
        """
        width, device = self.options.embedding, self.label_mean.device
        top = torch.full((), -torch.inf, dtype=torch.float64, device=device)
        weight, total = torch.zeros_like(top), torch.zeros(width, dtype=torch.float64, device=device)
        for part in parts:
            embedded = self.embed_tiles(part)
            logits = self.tile.logits(embedded)[:, 0].double()
            higher = torch.maximum(top, logits.max())
            factor, own = (top - higher).exp(), (logits - higher).exp()
            weight, total = weight * factor + own.sum(), total * factor + own @ embedded[:, 0].double()
            top = higher
        return self.embed_pooled((total / weight).float()[None])[0]


def seeded_bag_bleep(d_image: int, genes: int, options: BagBleepOptions, *, seed: int) -> BagBleep:
    """Return a new model with weights drawn from the seed; torch's global generator is left unchanged."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return BagBleep(d_image, genes, options)
