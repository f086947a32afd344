"""Attention regression: bulk expression from all tiles of a slide, with attention and local predictions as maps.

The prediction for a bag of tile features is the attention-weighted mean of the local predictions of its tiles. So each
gene has two maps: attention, and local prediction. Method: Graziani et al. 2022. Their published code trains one model
per gene and leaves dropout on after training; here it is then off. One model of all genes is the cheaper design of
Gustafsson and Rantalainen. The loss is a function of whole batches of bags and does not depend on workers.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from raystp.models.attention.options import AttentionOptions
from raystp.models.bags.heads import TileHeads, attention_weights, pool_embeddings, pool_lin, pool_predictions
from raystp.models.layers import scale_features, standardiser
from raystp.models.training.options import FitOptions
from raystp.models.training.samples import mean_squared_error


class AttentionRegression(nn.Module):
    """Predicts standardised expression of bags of tiles; its buffers hold the scaling of features and labels."""

    feature_mean: Tensor
    feature_scale: Tensor
    label_mean: Tensor
    label_scale: Tensor

    def __init__(self, d_image: int, genes: int, options: AttentionOptions) -> None:
        super().__init__()
        self.options = options
        own_trunks, own_heads = options.trunk == "per_gene", options.heads == "per_gene"
        heads = 0 if options.pooling != "attention" else genes if own_heads else 1
        widths = (options.embedding, options.hidden)
        groups = genes if own_trunks else 1
        self.tile = TileHeads(d_image, genes, groups=groups, heads=heads, widths=widths, gated=options.gate)
        self.dropout = nn.Dropout(options.dropout)
        for name, width in (("feature", d_image), ("label", genes)):
            self.register_buffer(f"{name}_mean", torch.zeros(width))
            self.register_buffer(f"{name}_scale", torch.ones(width))

    def standardize(self, features: Float[np.ndarray, "tile feature"]) -> None:
        """Set the scaling of the features from training tiles (`scale_features`); call it before training.

        It is part of the model and stored with it.
        """
        scale_features((self.feature_mean, self.feature_scale), features, self.options.feature_scaling)

    def standardize_labels(self, labels: Float[np.ndarray, "bag gene"]) -> None:
        """Set the mean and the deviation of the labels from the training bags; predictions are in the labels' units."""
        for buffer, value in zip((self.label_mean, self.label_scale), standardiser(labels), strict=True):
            buffer.copy_(torch.from_numpy(value))

    def embed(self, features: Float[Tensor, "*rows feature"]) -> Float[Tensor, "*rows group joint"]:
        """Return the tiles' embeddings, one per trunk."""
        standard = (features - self.feature_mean) / self.feature_scale
        embedded: Tensor = self.tile.embed(standard[..., None, :])
        return functional.relu(embedded) if self.options.level == "embedding" else embedded

    def tiles(
        self, features: Float[Tensor, "tile feature"]
    ) -> tuple[Float[Tensor, "tile head"], Float[Tensor, "tile gene"]]:
        """Return each tile's logits and its local predictions, in standard deviations of the labels.

        The logits are those of the attention; under the pooling `exp` they are the local predictions themselves.
        """
        embedded = self.embed(features)
        local = self.tile.predictions(embedded)
        if self.options.level == "instance":
            local = self._clamp(local)
        return self.logits(embedded, local), local

    def logits(
        self, embedded: Float[Tensor, "*rows group joint"], local: Float[Tensor, "*rows gene"]
    ) -> Float[Tensor, "*rows _"]:
        """Return the logits of the tiles' weights, one for all genes or one for each."""
        return local if self.options.pooling == "exp" else self.tile.logits(embedded)

    def forward(
        self,
        features: Float[Tensor, "bag tile feature"],
        mask: Float[Tensor, "bag tile"],
        labels: Float[Tensor, "bag gene"],
    ) -> tuple[Float[Tensor, "bag gene"], Float[Tensor, "bag gene"]]:
        """Return predictions and labels of each bag, both standardised; the mask is 0 at padding."""
        embedded = self.embed(features.masked_fill(mask[..., None] == 0, 0.0))
        if self.options.level == "embedding":
            weights = attention_weights(self.tile.logits(embedded), mask)
            pooled = self.dropout(pool_embeddings(weights, embedded))
            predicted = self.tile.pooled_predictions(pooled)
        else:
            local = self._clamp(self.tile.predictions(self.dropout(embedded)))
            if self.options.pooling == "max":
                predicted = local.masked_fill(mask[..., None] == 0, -torch.inf).amax(dim=1)
            elif self.options.pooling == "lin":
                predicted = pool_lin(local, mask)
            else:
                predicted = pool_predictions(attention_weights(self.logits(embedded, local), mask), local)
        return self._clamp(predicted), (labels - self.label_mean) / self.label_scale

    def loss(self, predicted: Float[Tensor, "bag gene"], labels: Float[Tensor, "bag gene"]) -> Float[Tensor, ""]:
        """Return the mean squared error over all bags of a batch and all genes (the published loss of each gene).

        A label of nan is missing and has no error.
        """
        return mean_squared_error(predicted, labels)

    def optimizer(self, parameters: Iterable[nn.Parameter], options: FitOptions) -> torch.optim.Optimizer:
        """Return the optimiser that the options name, with the learning rate and the decay of the fit.

        The loss is a mean over genes, so the gradient of a gene's own weights is divided by the number of genes. SGD
        corrects this: their learning rate is multiplied by that number, their decay divided by it. So each gene with
        its own trunk trains as it would alone.
        """
        if self.options.chosen_optimizer == "adamw":  # not sensitive to the scale of a gradient
            return torch.optim.AdamW(parameters, lr=options.lr, weight_decay=options.weight_decay)
        genes, trained = len(self.label_mean), list(parameters)
        own = {id(value) for name, value in self.named_parameters() if self._gene_axis(name) is not None}
        groups: list[dict[str, object]] = [
            {"params": [value for value in trained if (id(value) in own) == is_own], "lr": lr, "weight_decay": decay}
            for is_own, lr, decay in (
                (False, options.lr, options.weight_decay),
                (True, options.lr * genes, options.weight_decay / genes),
            )
        ]
        return torch.optim.SGD([group for group in groups if group["params"]], momentum=0.9, nesterov=True)

    def for_genes(self, genes: Sequence[int]) -> "AttentionRegression":
        """Return a model of some genes, in that order, with the same predictions for them."""
        rows = torch.tensor(list(genes), dtype=torch.int64, device=self.label_mean.device)
        state = {
            name: value.index_select(self._gene_axis(name), rows) if self._gene_axis(name) is not None else value
            for name, value in self.state_dict().items()
        }
        smaller = seeded_attention(len(self.feature_mean), len(rows), self.options, seed=0).to(rows.device)
        smaller.load_state_dict(state)
        return smaller.train(self.training)

    def _gene_axis(self, name: str) -> int | None:
        """Return the axis of genes of a stored tensor; None if it has none."""
        if name.startswith("label_") or (name.startswith("tile.") and self.options.trunk == "per_gene"):
            return 0
        own_attention = self.options.heads == "per_gene" and name.startswith("tile.attend.")
        return 1 if name.startswith("tile.local.") or own_attention else None

    def _clamp(self, values: Tensor) -> Tensor:
        return values.clamp(-self.options.clamp, self.options.clamp)


def seeded_attention(d_image: int, genes: int, options: AttentionOptions, *, seed: int) -> AttentionRegression:
    """Return a new model with weights drawn from the seed; torch's global generator is left unchanged."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return AttentionRegression(d_image, genes, options)
