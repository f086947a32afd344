"""GeneQuery: predict a gene from its text (the query) and from image features (the context).

The gene is an input and not an output column. So any gene with a text can be predicted, seen in training or not.
Method: Xiong et al., arXiv 2411.18391, in the form of the published code (github.com/xy-always/GeneQuery). One model
covers both of its variants: tokens are the genes of a spot, or the spots of a section. Two errors of that code are
corrected. Padding is masked in the attention and left out of the loss. A text belongs to a gene by the gene's name, not
by the order of lines.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from raystp.errors import ModelError
from raystp.models.genequery.options import GeneQueryOptions
from raystp.models.genequery.scaling import fit_scaling_to_texts, gene_scaling, min_max
from raystp.models.genequery.token_attention import TokenAttention
from raystp.models.layers import ProjectionHead, scale_features
from raystp.models.training.samples import mean_squared_error
from raystp.models.transformer import Transformer


class GeneQuery(nn.Module):
    """Predicts scaled expression from image features and gene texts; its buffers hold texts and scaling of the genes.

    The attributes `answer`, `guess_weight` and `guess_bias` have the names of the stored arrays: the output layer, and
    the estimate of a gene's scaling from its text.
    """

    image_mean: Tensor
    image_scale: Tensor
    text: Tensor
    text_mean: Tensor
    text_scale: Tensor
    offset: Tensor
    scale: Tensor
    guess_weight: Tensor
    guess_bias: Tensor

    def __init__(self, d_image: int, shape: tuple[int, int], options: GeneQueryOptions) -> None:
        """Make a model for texts of `shape` = (genes, length of a text's vector)."""
        super().__init__()
        if d_image % options.image_tokens:
            msg = (
                f"features of length {d_image} cannot be divided into {options.tokens} tokens: set genequery.tokens to "
                "the number that `embed` keeps of each place"
            )
            raise ModelError(msg)
        genes, d_text = shape
        self.options = options
        self.image_head = ProjectionHead(d_image // options.image_tokens, options.dim, options.dropout)
        self.text_head = nn.Linear(d_text, options.dim)
        self.mix = nn.Sequential(nn.Dropout(options.dropout), nn.ReLU() if options.context == "spot" else nn.GELU())
        self.transformer = Transformer(options) if options.context in ("gene", "spot") else None
        twice = options.token_dropout == "twice" and self.transformer is not None
        self.entry = nn.Dropout(options.dropout if twice else 0.0)
        self.answer = nn.Linear(options.width, 1)
        self.read = (
            TokenAttention(options.dim, heads=options.heads, head_dim=options.head_dim)
            if options.context == "tokens"
            else None
        )
        for name, value in {
            "image_mean": torch.zeros(d_image),
            "image_scale": torch.ones(d_image),
            "text": torch.zeros(genes, d_text),
            "text_mean": torch.zeros(d_text),
            "text_scale": torch.ones(()),
            "offset": torch.zeros(genes),
            "scale": torch.ones(genes),
            "guess_weight": torch.zeros(2, d_text),
            "guess_bias": torch.zeros(2),
        }.items():
            self.register_buffer(name, value)

    def standardize(self, features: Float[np.ndarray, "spot image"]) -> None:
        """Set the scaling of the image features from the training spots (`scale_features`); call it before training.

        It is part of the model and stored with it.
        """
        options = self.options
        buffers = self.image_mean, self.image_scale
        scale_features(buffers, features, options.feature_scaling, tokens=options.image_tokens, is_read_by_token=True)

    def standardize_labels(
        self, expression: Float[np.ndarray, "spot gene"], sections: Int64[np.ndarray, "spot"] | None = None
    ) -> None:
        """Set the scaling of the genes from the training spots (see `scaling`); call it once, before training.

        `sections` numbers each spot's section (None: all one). It is used only by `min_max` in the spot context.
        """
        at = np.zeros(len(expression), dtype=np.int64) if sections is None else sections
        scaling = gene_scaling(expression, at, self.options.scaling, self.options.context)
        fitted = fit_scaling_to_texts(self.standard_texts(self.text).cpu().numpy(), scaling)
        for buffer, value in zip(
            (self.offset, self.scale, self.guess_weight, self.guess_bias), (*scaling, *fitted), strict=True
        ):
            buffer.copy_(torch.from_numpy(value))

    def set_texts(self, texts: Float[np.ndarray, "gene text"]) -> None:
        """Store the texts of the trained genes; all are standardised by their mean and one common scale.

        With one scale for each dimension, a word in the text of a single gene would have more weight than all others.
        """
        centred = texts.astype(np.float64) - texts.mean(axis=0, dtype=np.float64)
        scale = float(np.sqrt(np.mean(centred**2)))
        self.text.copy_(torch.from_numpy(texts))
        self.text_mean.copy_(torch.from_numpy(texts.mean(axis=0, dtype=np.float64)))
        self.text_scale.fill_(scale if scale > 0 else 1.0)

    def standard_texts(self, texts: Float[Tensor, "gene text"]) -> Float[Tensor, "gene text"]:
        """Return standardised texts."""
        return (texts - self.text_mean) / self.text_scale

    def embed_texts(self, texts: Float[Tensor, "gene text"]) -> Float[Tensor, "gene joint"]:
        """Return the projections of texts, as the text encoder returns them."""
        out: Tensor = self.text_head(self.standard_texts(texts))
        return out

    def embed_images(self, images: Float[Tensor, "tile image"]) -> Float[Tensor, "tile ... joint"]:
        """Return the projections of features.

        With `context="tokens"` a row of features is spatial tokens, one after the other, and so many rows are returned.
        """
        standard = (images - self.image_mean) / self.image_scale
        if self.read is not None:
            standard = standard.view(len(standard), self.options.tokens, -1)
        out: Tensor = self.image_head(standard)
        return out

    def read_by(
        self, texts: Float[Tensor, "gene joint"], images: Float[Tensor, "tile ... joint"]
    ) -> Float[Tensor, "tile _ joint"]:
        """Return what each gene reads of each tile: its own mean of the spatial tokens, or the one vector for all."""
        if self.read is None:
            return images[:, None]
        out: Tensor = self.read(images, texts)
        return out

    def tokens(
        self, images: Float[Tensor, "batch #token joint"], texts: Float[Tensor, "#batch #token joint"]
    ) -> Float[Tensor, "batch token width"]:
        """Return one token per image and text: `activation(dropout(x))`, x their sum or their concatenation."""
        if self.options.fuse == "add":
            mixed: Tensor = self.mix(images + texts)
        else:
            shape = (max(len(images), len(texts)), max(images.shape[1], texts.shape[1]), -1)
            mixed = self.mix(torch.cat([images.expand(shape), texts.expand(shape)], dim=-1))
        return mixed

    def predictions(
        self,
        context: Float[Tensor, "batch token width"],
        mask: Bool[Tensor, "batch token"] | None = None,
        queries: Float[Tensor, "batch query width"] | None = None,
    ) -> Float[Tensor, "batch _"]:
        """Return the scaled prediction of each query token, or without queries that of each context token."""
        if self.transformer is None:
            tokens = context if queries is None else queries
        else:
            tokens = self.transformer(self.entry(context), mask, None if queries is None else self.entry(queries))
        out: Tensor = self.answer(tokens)[..., 0]
        return out

    def forward(self, images: Tensor, expression: Tensor, *of_sections: Tensor) -> tuple[Tensor, ...]:
        """Return predictions and targets, both scaled, a row per sample; in the spot context also the mask.

        Without a spot context, the arguments are images and expression of spots, as `PairDataset.at` returns them. In
        the spot context they are those of `SectionGenes.at`.
        """
        if self.options.context != "spot":
            texts = self.embed_texts(self.text)
            tokens = self.tokens(self.read_by(texts, self.embed_images(images)), texts[None])
            return self.predictions(tokens), self.scaled(expression)
        mask, gene = of_sections
        images = images.masked_fill(~mask[..., None], 0)
        image = self.embed_images(images.flatten(0, 1)).reshape(*mask.shape, -1)
        tokens = self.tokens(image, self.embed_texts(self.text[gene])[:, None])
        return self.predictions(tokens, mask), self._scaled_sections(expression, mask, gene), mask

    def loss(
        self,
        predicted: Float[Tensor, "sample token"],
        target: Float[Tensor, "sample token"],
        mask: Bool[Tensor, "sample token"] | None = None,
    ) -> Float[Tensor, ""]:
        """Return the mean squared error over all tokens of a batch except padding (published: with padding).

        A target of nan is missing and has no error.
        """
        if mask is None:
            return mean_squared_error(predicted, target)
        return mean_squared_error(predicted, target.masked_fill(~mask, torch.nan))

    def scaled(self, expression: Float[Tensor, "spot gene"]) -> Float[Tensor, "spot gene"]:
        """Return spots' expression of the trained genes in the unit of the errors; a missing gene stays nan."""
        if self.options.scaling == "min_max":
            missing = torch.isnan(expression)
            return min_max(expression, ~missing).masked_fill(missing, torch.nan)
        return (expression - self.offset) / torch.where(self.scale > 0, self.scale, 1)

    def _scaled_sections(self, expression: Tensor, mask: Tensor, gene: Tensor) -> Tensor:
        if self.options.scaling == "min_max":
            missing = torch.isnan(expression)
            return min_max(expression, mask & ~missing).masked_fill(missing, torch.nan)
        scale = self.scale[gene][:, None]
        scaled = (expression - self.offset[gene][:, None]) / torch.where(scale > 0, scale, 1)
        return scaled.masked_fill(~mask, 0)

    def estimated_scaling(
        self, texts: Float[Tensor, "gene text"]
    ) -> tuple[Float[Tensor, "gene"], Float[Tensor, "gene"]]:
        """Return offset and scale of genes as estimated from their texts, inside the range of the trained genes."""
        estimate = self.standard_texts(texts) @ self.guess_weight.T + self.guess_bias
        offset = estimate[:, 0].clamp(self.offset.min(), self.offset.max())
        varied = self.scale[self.scale > 0]
        if not len(varied):
            return offset, torch.zeros_like(offset)
        return offset, estimate[:, 1].clamp(varied.min().log(), varied.max().log()).exp()


def seeded_genequery(
    d_image: int,
    texts: Float[np.ndarray, "gene text"],
    options: GeneQueryOptions,
    *,
    seed: int,
) -> GeneQuery:
    """Return a new model for genes of these texts, with weights drawn from the seed.

    torch's global generator is left unchanged. Raises ModelError for no genes, and for texts with nan or infinity.
    """
    bad = int((~np.isfinite(texts)).any(axis=1).sum())
    if bad or not texts.size:
        msg = (
            "each gene needs a text vector of finite numbers, got vectors of shape "
            f"{texts.shape} with nan or infinity for {bad} genes: compute the texts again, or remove those genes"
        )
        raise ModelError(msg)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = GeneQuery(d_image, (texts.shape[0], texts.shape[1]), options)
    model.set_texts(texts)
    return model
