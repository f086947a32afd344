"""GeneQuery: a gene's text is the question, image features are the context, its expression the answer.

The gene is an input and no output column, so that any gene with a text can be asked for, trained on or not. Method:
Xiong et al., arXiv 2411.18391; the form is that of the published code (github.com/xy-always/GeneQuery), described in
one place there for tokens that are the genes of a spot and for tokens that are the spots of a section. What it does by
mistake is not done: padding is masked where attention reads it and left out of the loss, and a text belongs to its gene
by name and not by the order of lines.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from raystp.errors import ModelError
from raystp.models.genequery.options import GeneQueryOptions
from raystp.models.genequery.scaling import min_max, pairs, text_guess
from raystp.models.genequery.transformer import Transformer
from raystp.models.layers import ProjectionHead
from raystp.models.standardise import standardiser


class GeneQuery(nn.Module):
    """Image features and gene texts to scaled expression; its buffers hold the trained genes' texts and the way back.

    With a tower (not in the spot context) the image side reads pixels and the tower returns `d_image` features.
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

    def __init__(
        self, d_image: int, shape: tuple[int, int], options: GeneQueryOptions, tower: nn.Module | None = None
    ) -> None:
        """Make a model for texts of `shape` = (genes, length of a text's vector)."""
        super().__init__()
        if tower is not None and options.context == "spot":
            msg = 'a whole section\'s pixels do not go through a tower at once: context="spot" reads frozen features'
            raise ModelError(msg)
        genes, d_text = shape
        self.options = options
        self.tower = tower
        self.image_head = ProjectionHead(d_image, options.dim, options.dropout)
        self.text_head = nn.Linear(d_text, options.dim)
        self.mix = nn.Sequential(nn.Dropout(options.dropout), nn.ReLU() if options.context == "spot" else nn.GELU())
        self.transformer = Transformer(options) if options.context != "none" else None
        self.answer = nn.Linear(options.width, 1)
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
        """Let the image side read features as deviations from these (the training spots'), in standard deviations.

        Part of the model from then on, and stored with it; to be called before training. Raises ModelError for a model
        with a tower, whose features move as it learns.
        """
        if self.tower is not None:
            msg = "the features of a tower that is trained move with it and are not standardised: train without a tower"
            raise ModelError(msg)
        for kept, value in zip((self.image_mean, self.image_scale), standardiser(features), strict=True):
            kept.copy_(torch.from_numpy(value))

    def standardize_labels(
        self, expression: Float[np.ndarray, "spot gene"], sections: Int64[np.ndarray, "spot"] | None = None
    ) -> None:
        """Take the scaled unit and the way back from the training spots (see `genequery_scale`); call it once, before.

        `sections` numbers each spot's section (None: all one); only `min_max` in the spot context reads it.
        """
        at = np.zeros(len(expression), dtype=np.int64) if sections is None else sections
        pair = pairs(expression, at, self.options.scaling, self.options.context)
        guess = text_guess(self.standard_texts(self.text).cpu().numpy(), pair)
        for kept, value in zip(
            (self.offset, self.scale, self.guess_weight, self.guess_bias), (*pair, *guess), strict=True
        ):
            kept.copy_(torch.from_numpy(value))

    def set_texts(self, texts: Float[np.ndarray, "gene text"]) -> None:
        """Store the texts of the trained genes; all are read as deviations from their mean, by one common scale.

        One scale for all places of a vector: a word that one gene alone has would else weigh more than all others.
        """
        centred = texts.astype(np.float64) - texts.mean(axis=0, dtype=np.float64)
        scale = float(np.sqrt(np.mean(centred**2)))
        self.text.copy_(torch.from_numpy(texts))
        self.text_mean.copy_(torch.from_numpy(texts.mean(axis=0, dtype=np.float64)))
        self.text_scale.fill_(scale if scale > 0 else 1.0)

    def standard_texts(self, texts: Float[Tensor, "gene text"]) -> Float[Tensor, "gene text"]:
        """Return texts as the model reads them."""
        return (texts - self.text_mean) / self.text_scale

    def questions(self, texts: Float[Tensor, "gene text"]) -> Float[Tensor, "gene joint"]:
        """Return the projections of texts, as `encode` gave them."""
        out: Tensor = self.text_head(self.standard_texts(texts))
        return out

    def contexts(self, images: Float[Tensor, "tile ..."]) -> Float[Tensor, "tile joint"]:
        """Return the projections of features, or of pixels where there is a tower."""
        features = images if self.tower is None else self.tower(images)
        out: Tensor = self.image_head((features - self.image_mean) / self.image_scale)
        return out

    def tokens(
        self, images: Float[Tensor, "set #token joint"], texts: Float[Tensor, "#set #token joint"]
    ) -> Float[Tensor, "set token width"]:
        """Return what becomes of each image together with each text: `activation(dropout(sum, or both in a row))`."""
        if self.options.fuse == "add":
            mixed: Tensor = self.mix(images + texts)
        else:
            shape = (max(len(images), len(texts)), max(images.shape[1], texts.shape[1]), -1)
            mixed = self.mix(torch.cat([images.expand(shape), texts.expand(shape)], dim=-1))
        return mixed

    def answers(
        self,
        context: Float[Tensor, "set token width"],
        mask: Bool[Tensor, "set token"] | None = None,
        readers: Float[Tensor, "set reader width"] | None = None,
    ) -> Float[Tensor, "set _"]:
        """Return the scaled answer of each reader, or of each token of the context where there are none."""
        if self.transformer is None:
            read = context if readers is None else readers
        else:
            read = self.transformer(context, mask, readers)
        out: Tensor = self.answer(read)[..., 0]
        return out

    def forward(self, images: Tensor, expression: Tensor, *of_sections: Tensor) -> tuple[Tensor, ...]:
        """Return predictions and targets, both scaled, a row per sample; in the spot context the mask as third.

        Gene context and none: images and expression of spots, as `Pairs.at` gives them. Spot context: what
        `SectionGenes.at` gives.
        """
        if self.options.context != "spot":
            tokens = self.tokens(self.contexts(images)[:, None], self.questions(self.text)[None])
            return self.answers(tokens), self.scaled(expression)
        mask, gene = of_sections
        images = images.masked_fill(~mask[..., None], 0)
        image = self.contexts(images.flatten(0, 1)).reshape(*mask.shape, -1)
        tokens = self.tokens(image, self.questions(self.text[gene])[:, None])
        return self.answers(tokens, mask), self._scaled_sections(expression, mask, gene), mask

    def loss(
        self,
        predicted: Float[Tensor, "sample token"],
        target: Float[Tensor, "sample token"],
        mask: Bool[Tensor, "sample token"] | None = None,
    ) -> Float[Tensor, ""]:
        """Return the mean squared error over all tokens of a set that are no padding (published: padding and all)."""
        if mask is None:
            return functional.mse_loss(predicted, target)
        errors = ((predicted - target) ** 2).masked_fill(~mask, 0)
        return errors.sum() / mask.sum()

    def scaled(self, expression: Float[Tensor, "spot gene"]) -> Float[Tensor, "spot gene"]:
        """Return spots' expression of the trained genes in the unit of the errors."""
        if self.options.scaling == "min_max":
            return min_max(expression)
        return (expression - self.offset) / torch.where(self.scale > 0, self.scale, 1)

    def _scaled_sections(self, expression: Tensor, mask: Tensor, gene: Tensor) -> Tensor:
        if self.options.scaling == "min_max":
            return min_max(expression, mask)
        scale = self.scale[gene][:, None]
        scaled = (expression - self.offset[gene][:, None]) / torch.where(scale > 0, scale, 1)
        return scaled.masked_fill(~mask, 0)

    def ways_back(self, texts: Float[Tensor, "gene text"]) -> tuple[Float[Tensor, "gene"], Float[Tensor, "gene"]]:
        """Guess offset and scale of genes from their texts, inside the range of the trained genes."""
        guess = self.standard_texts(texts) @ self.guess_weight.T + self.guess_bias
        offset = guess[:, 0].clamp(self.offset.min(), self.offset.max())
        varied = self.scale[self.scale > 0]
        if not len(varied):
            return offset, torch.zeros_like(offset)
        return offset, guess[:, 1].clamp(varied.min().log(), varied.max().log()).exp()


def seeded_genequery(
    d_image: int,
    texts: Float[np.ndarray, "gene text"],
    options: GeneQueryOptions,
    *,
    seed: int,
    tower: nn.Module | None = None,
) -> GeneQuery:
    """Return a fresh model for genes of these texts; the same seed begins with the same weights.

    Other randomness is untouched. Raises ModelError where there is no gene, or a text's vector holds no numbers.
    """
    bad = int((~np.isfinite(texts)).any(axis=1).sum())
    if bad or not texts.size:
        msg = f"each gene to be trained has a text of finite numbers, got {texts.shape} and {bad} genes without"
        raise ModelError(msg)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = GeneQuery(d_image, (texts.shape[0], texts.shape[1]), options, tower)
    model.set_texts(texts)
    return model
