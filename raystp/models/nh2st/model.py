"""NH2ST: expression from a patch, trained together with two contrasts to its measured neighbourhood.

A patch's features are encoded, and decoded to expression; only that part predicts. In training, cross-attention in both
directions fuses the patch with its measured expression. Through a hypergraph it also fuses the patches of the
neighbourhood with their expression. The fused sides are contrasted. Method: Qu et al., MICCAI 2025, arXiv 2506.23827,
re-implemented from a description of the published code, which has no licence. The image encoder is not part of it.
"""

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from raystp.errors import ModelError
from raystp.models.layers import scale_features
from raystp.models.nh2st.attention import CrossAttention
from raystp.models.nh2st.contrast import contrast
from raystp.models.nh2st.hypergraph import HypergraphNetwork, incidence, mean_of_present, spread
from raystp.models.nh2st.options import LR_EVERY, LR_FACTOR, Nh2stOptions
from raystp.models.training.options import FitOptions
from raystp.models.training.plan import ONE_RANK, RankLayout
from raystp.models.training.samples import mean_squared_error


class Nh2st(nn.Module):
    """The encoders, the hypergraph networks, one cross-attention that is used four times, and the decoder.

    `misses_genes`: whether any training section has not measured a gene. It is set before training, alike on all ranks.
    """

    image_mean: Tensor
    image_scale: Tensor
    label_mean: Tensor

    def __init__(self, d_image: int, genes: int, options: Nh2stOptions) -> None:
        super().__init__()
        if d_image % options.tokens:
            msg = (
                f"features of length {d_image} cannot be divided into {options.tokens} tokens: set nh2st.tokens to a "
                "divisor of the length"
            )
            raise ModelError(msg)
        self.options, dim = options, options.dim
        self.misses_genes = False
        self.encode_image = nn.Linear(d_image, dim)
        self.encode_expression = nn.Sequential(nn.Linear(genes, dim), nn.Linear(dim, dim))
        self.image_graph = HypergraphNetwork(d_image, 2 * dim, dim)
        self.gene_graph = HypergraphNetwork(dim, 2 * dim, dim)
        self.fusion = self._attention()
        self.decode = nn.Sequential(nn.Linear(dim, dim // 2), nn.Linear(dim // 2, genes))
        mapped = options.form == "mended" and options.tokens > 1
        self.encode_token = nn.Linear(d_image // options.tokens, dim) if mapped else None
        # With `unit` a row of all tokens has a norm of about 1; the layer of tokens reads one of them at a time.
        self.token_factor = options.tokens**0.5 if options.feature_scaling == "unit" else 1.0
        self.context = self._attention() if options.neighbours_at_inference else None
        self.register_buffer("image_mean", torch.zeros(d_image))
        self.register_buffer("image_scale", torch.ones(d_image))
        self.register_buffer("label_mean", torch.zeros(genes))

    def standardize(self, features: Float[np.ndarray, "spot image"]) -> None:
        """Set the scaling of the image features from the training spots (`scale_features`); call it before training.

        It is part of the model and stored with it. Frozen features need it, because their scales are those of their
        encoder. Each channel of a map has one mean and one deviation for all tokens.
        """
        options = self.options
        scale_features((self.image_mean, self.image_scale), features, options.feature_scaling, tokens=options.tokens)

    def center_labels(self, mean: Float[np.ndarray, "gene"]) -> None:
        """Set the training mean of each gene; call it before training. It is part of the model and stored with it.

        The prediction is this mean plus a deviation, and the expression encoder gets deviations. With
        `labels="published"` this does nothing: all means are then learned through the features.
        """
        if self.options.labels == "centred":
            self.label_mean.copy_(torch.from_numpy(mean))

    def forward(  # noqa: PLR0917 -- the samples' `at` returns them in this order
        self,
        features: Float[Tensor, "sample image"],
        near_features: Float[Tensor, "sample node image"],
        expression: Float[Tensor, "sample gene"],
        near_expression: Float[Tensor, "sample node gene"],
        mask: Bool[Tensor, "sample node"],
    ) -> tuple[Tensor, ...]:
        """Return what `loss` needs: prediction, target, z_p, z_g, n_p, n_g. The first node of a sample is its spot.

        A gene that is missing is nan in `expression`, and has its training mean in `near_expression`.
        """
        image, near = self._standard(features), self._standard(near_features)
        averaged = spread(incidence(near, mask, self.options.nearest))
        image_nodes = self.image_graph(near, averaged)
        encoded = self.encode_expression(near_expression - self.label_mean)
        gene_nodes = self.gene_graph(encoded, averaged)
        hidden = self.encode_image(image)
        prediction = self._decoded(hidden, image_nodes, mask)
        if self.options.form == "faithful":
            own = torch.where(torch.isnan(expression), near_expression[:, 0], expression)
            genes = self.encode_expression(own - self.label_mean)
            pooled = mean_of_present(image_nodes, mask), mean_of_present(gene_nodes, mask)
            views = [*self._fused_vectors(hidden, genes), *self._fused_vectors(*pooled)]
        else:
            views = [
                *self._fused_query(image, near, encoded, mask),
                *self._fused_neighbours(image_nodes, gene_nodes, mask),
            ]
        return (prediction, expression, *views)

    def loss(self, prediction: Tensor, target: Tensor, *views: Tensor) -> Float[Tensor, ""]:
        """Return `nh2st_loss` of the rows of one batch, as `forward` returns them."""
        return self.loss_part(ONE_RANK, prediction, target, *views)

    def loss_part(self, ranks: RankLayout, prediction: Tensor, target: Tensor, *views: Tensor) -> Float[Tensor, ""]:
        """Return this rank's part of the loss of a batch that is split over ranks; its mean over ranks is the loss."""
        z_p, z_g, n_p, n_g = views
        start, share = 0, 1.0
        if ranks.gather is not None:  # this rank's image sides against the gene sides of all ranks
            start, z_g, n_g = ranks.rank * len(z_p), ranks.gather(z_g.float()), ranks.gather(n_g.float())
            if self.misses_genes:
                counts = (~torch.isnan(target)).sum(dim=1, keepdim=True).float()
                share = float(counts.sum() * ranks.world / ranks.gather(counts).sum().clamp(min=1))
        return nh2st_loss((prediction, target), (z_p, z_g), (n_p, n_g), self.options, start=start, share=share)

    def predict(
        self,
        features: Float[Tensor, "sample image"],
        near_features: Float[Tensor, "sample node image"] | None = None,
        mask: Bool[Tensor, "sample node"] | None = None,
    ) -> Float[Tensor, "sample gene"]:
        """Return the predicted expression; the neighbours' features are used with `neighbours_at_inference` only."""
        hidden, image_nodes = self.encode_image(self._standard(features)), None
        if self.context is not None:
            if near_features is None or mask is None:
                msg = "this NH2ST model uses the neighbours' features too: pass `near_features` and `mask` to predict"
                raise ModelError(msg)
            near = self._standard(near_features)
            image_nodes = self.image_graph(near, spread(incidence(near, mask, self.options.nearest)))
        return self._decoded(hidden, image_nodes, mask)

    def optimizer(self, parameters: Iterable[nn.Parameter], options: FitOptions) -> torch.optim.Optimizer:
        """Return the published optimiser, Adam."""
        return torch.optim.Adam(parameters, lr=options.lr, weight_decay=options.weight_decay)

    def learning_rate(self, epoch: int, options: FitOptions) -> float:
        """Return the learning rate of an epoch (from 0): a function of the epoch alone, so a resumed run has it too."""
        return float(options.lr * LR_FACTOR ** (epoch // LR_EVERY))

    def _attention(self) -> CrossAttention:
        options = self.options
        return CrossAttention(
            options.dim,
            heads=options.heads,
            depth=options.depth,
            mlp_ratio=options.mlp_ratio,
            dropout=options.dropout,
        )

    def _standard(self, features: Tensor) -> Tensor:
        return (features - self.image_mean) / self.image_scale

    def _decoded(self, hidden: Tensor, image_nodes: Tensor | None, mask: Tensor | None) -> Tensor:
        if self.context is not None and image_nodes is not None:
            hidden = self.context(hidden[:, None], image_nodes, mask)[:, 0]
        out: Tensor = self.label_mean + self.decode(hidden)
        return out

    def _fused_vectors(self, image: Tensor, genes: Tensor) -> tuple[Tensor, Tensor]:
        """Fuse two vectors as published: the image attends to the genes, then the genes attend to the result."""
        first, second = self._fused(image[:, None], genes[:, None])
        return first[:, 0], second[:, 0]

    def _fused_query(self, image: Tensor, near: Tensor, genes: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Fuse the patch's tokens with the nodes' expression; the genes' side is taken at the patch's own node."""
        if self.encode_token is None:
            first, second = self._fused(self.encode_image(near), genes, mask, mask)
            return first[:, 0], second[:, 0]
        tokens = self.encode_token(image.view(len(image), self.options.tokens, -1) * self.token_factor)
        first, second = self._fused(tokens, genes, None, mask)
        return first.mean(dim=1), second[:, 0]

    def _fused_neighbours(self, image_nodes: Tensor, gene_nodes: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        first, second = self._fused(image_nodes, gene_nodes, mask, mask)
        return mean_of_present(first, mask), mean_of_present(second, mask)

    def _fused(
        self, images: Tensor, genes: Tensor, image_mask: Tensor | None = None, gene_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        first = self.fusion(images, genes, gene_mask)
        return first, self.fusion(genes, first, image_mask)


def seeded_nh2st(d_image: int, genes: int, options: Nh2stOptions, *, seed: int) -> Nh2st:
    """Return a new model with weights drawn from the seed; torch's global generator is left unchanged."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return Nh2st(d_image, genes, options)


def nh2st_loss(
    prediction: tuple[Float[Tensor, "sample gene"], Float[Tensor, "sample gene"]],
    query: tuple[Float[Tensor, "sample dim"], Float[Tensor, "all dim"]],
    neighbour: tuple[Float[Tensor, "sample dim"], Float[Tensor, "all dim"]],
    options: Nh2stOptions,
    *,
    start: int = 0,
    share: float = 1.0,
) -> Float[Tensor, ""]:
    """Return `MSE + weight_query contrast(z_p, z_g) + weight_neighbour contrast(n_p, n_g)`, image sides first.

    As in the published code (the paper's own formula is not known); see `contrast`. The gene sides may have more rows
    than the image sides, which are then their rows from `start` on: the mean over equal parts of a batch is its loss.
    The error is over the measured values (a target of nan is missing); `share` is the number of these in a part, in
    units of the mean over the parts.
    """
    error = mean_squared_error(prediction[0].float(), prediction[1].float()) * share
    of_query = contrast(*query, options.temperature_query, negatives=options.negatives, start=start)
    of_neighbour = contrast(*neighbour, options.temperature_neighbour, negatives=options.negatives, start=start)
    return error + options.weight_query * of_query + options.weight_neighbour * of_neighbour
