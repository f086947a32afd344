"""A stored GeneQuery model, ready to predict any genes that have a text from a slide's features."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from raystp.errors import ModelError, some
from raystp.models.arrays import Arrays
from raystp.models.genequery.model import GeneQuery
from raystp.models.genequery.options import GeneQueryOptions
from raystp.models.method import ModelMeta
from raystp.models.predictor import check_rows

Rows = TypeVar("Rows", np.ndarray, Tensor)

VALUES_AT_ONCE = 1 << 25
"""Values of tokens at a time, 128 MB a tensor: limits the memory and does not change the prediction."""

TOLERANCE = 1e-3
"""Two texts of one gene by one encoder differ by less, as a share of the texts' common scale."""


@dataclass(frozen=True)
class GeneQueryPredictor:
    """The model with the names of its trained genes. It uses images and gene texts, never expression."""

    kind: str
    genes: list[str]
    d_image: int
    model: GeneQuery
    text_encoder: Mapping[str, object] = field(default_factory=dict)
    """Name and settings of the text encoder: texts of other genes must come from the same one."""

    @property
    def d_text(self) -> int:
        """Length of a text's vector."""
        return int(self.model.text.shape[1])

    def predict(
        self,
        features: Float[np.ndarray, "tile feature"],
        *,
        genes: Sequence[str] | None = None,
        texts: Float[np.ndarray, "query text"] | None = None,
    ) -> Float32[np.ndarray, "tile query"]:
        """Return expression of `genes` (None: those trained on, in their order) at all tiles of a slide.

        `texts` are the genes' rows, by the encoder of the trained texts; a gene that was trained on needs none. The
        prediction of a gene does not depend on the other genes. For genes not trained on, level and spread are
        estimates (see `scaling`). Raises ModelError if a text is missing or differs from the trained one, and for
        features of another encoder.
        """
        check_rows(features, self.d_image, self.kind)
        if genes is None:
            if texts is not None:
                msg = f"got {len(texts)} texts without the names of their genes: pass the names as `genes`"
                raise ModelError(msg)
            queries, offset, scale = self.model.text, self.model.offset, self.model.scale
        else:
            queries, offset, scale = self._queries(list(genes), texts)
        with torch.inference_mode():
            scaled = self._scaled(features, queries, trained=genes is None)
            return (offset + scale * scaled).cpu().numpy()

    def _scaled(self, features: np.ndarray, queries: Tensor, *, trained: bool) -> Float[Tensor, "tile query"]:
        """Return the scaled predictions; `trained` says that the queries are the trained genes in their order."""
        if not features.size or not len(queries):
            return torch.zeros(len(features), len(queries), device=queries.device)
        parts, texts = _parts(features, VALUES_AT_ONCE // self.d_image), self.model.embed_texts(queries)
        if self.model.options.context == "spot":
            return self._by_gene(torch.cat([self._images(rows) for rows in parts]), texts)
        return torch.cat([self._by_tile(self._images(rows), texts, trained=trained) for rows in parts])

    def _images(self, features: np.ndarray) -> Tensor:
        rows = torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32))
        return self.model.embed_images(rows.to(self.model.text.device))

    def _by_tile(self, images: Tensor, texts: Tensor, *, trained: bool) -> Tensor:
        """Predict tile by tile: the trained genes are the context, and the queries attend to it."""
        model, trained_texts = self.model, self.model.embed_texts(self.model.text)
        size = VALUES_AT_ONCE // ((len(trained_texts) + len(texts)) * _values_per_token(model.options))
        predictions = []
        for rows in _parts(images, size):
            if model.transformer is None:
                predictions.append(model.predictions(model.tokens(model.read_by(texts, rows), texts[None])))
                continue
            part = rows[:, None]
            context = model.tokens(part, trained_texts[None])
            queries = None if trained else model.tokens(part, texts[None])
            predictions.append(model.predictions(context, queries=queries))
        return torch.cat(predictions)

    def _by_gene(self, images: Tensor, texts: Tensor) -> Tensor:
        """Predict gene by gene: at most `context_tiles` tiles are the context, and all tiles attend to it."""
        most = self.model.options.context_tiles
        rows = torch.linspace(0, len(images) - 1, most).round().long() if len(images) > most else None
        size = VALUES_AT_ONCE // (len(images) * _values_per_token(self.model.options))
        predictions = []
        for part in _parts(texts[:, None], size):
            tiles = self.model.tokens(images[None].expand(len(part), -1, -1), part)
            if rows is None:
                predictions.append(self.model.predictions(tiles))
            else:
                predictions.append(self.model.predictions(tiles[:, rows.to(tiles.device)], queries=tiles))
        return torch.cat(predictions).T

    def _queries(self, genes: list[str], texts: np.ndarray | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return text, offset and scale of each gene: the stored ones if it was trained on."""
        model, numbers = self.model, {gene: number for number, gene in enumerate(self.genes)}
        unknown = [gene for gene in genes if gene not in numbers]
        if unknown and texts is None:
            msg = (
                f"{len(unknown)} of {len(genes)} genes were not trained on and have no text: {some(unknown)}; pass "
                f"`texts` of all `genes`, by the text encoder {dict(self.text_encoder)}"
            )
            raise ModelError(msg)
        rows = torch.tensor([numbers.get(gene, 0) for gene in genes], dtype=torch.int64, device=model.text.device)
        stored = model.text[rows]
        if texts is None:
            return stored, model.offset[rows], model.scale[rows]
        _check_texts(texts, len(genes), self.d_text)
        given = torch.from_numpy(np.ascontiguousarray(texts, dtype=np.float32)).to(stored.device)
        known = torch.tensor([gene in numbers for gene in genes], dtype=torch.bool, device=stored.device)
        different = known & ((given - stored).abs().amax(dim=1) > TOLERANCE * model.text_scale)
        if bool(different.any()):
            names = [gene for gene, differs in zip(genes, different.tolist(), strict=True) if differs]
            msg = (
                f"{len(names)} genes were trained with another text than the one given: {some(names)}; pass the texts "
                f"in the order of `genes`, by the text encoder {dict(self.text_encoder)}"
            )
            raise ModelError(msg)
        offset, scale = model.estimated_scaling(given)
        return (
            torch.where(known[:, None], stored, given),
            torch.where(known, model.offset[rows], offset),
            torch.where(known, model.scale[rows], scale),
        )


def open_genequery(arrays: Arrays, meta: ModelMeta) -> GeneQueryPredictor:
    """Return a stored model of its seen genes.

    `meta["options"]` are its `GeneQueryOptions`. Raises ValueError if the genes do not fit the arrays.
    """
    genes, d_text = arrays["text"].shape
    if genes != len(meta["genes"]):
        msg = f"it has texts of {genes} genes and names of {len(meta['genes'])}"
        raise ValueError(msg)
    model = GeneQuery(meta["d_image"], (genes, d_text), GeneQueryOptions(**meta["options"]))
    model.load_state_dict({name: torch.from_numpy(value) for name, value in arrays.items()})
    return GeneQueryPredictor("genequery", meta["genes"], meta["d_image"], model.eval(), meta.get("text_encoder", {}))


def _values_per_token(options: GeneQueryOptions) -> int:
    """Return the values in memory for one context token: the token itself, its key and its value.

    With spatial tokens also the gene's attention to each, before and after the softmax.
    """
    attention = 2 * options.heads * options.tokens if options.context == "tokens" else 0
    return options.width + 2 * options.heads * options.head_dim + attention


def _parts(rows: Rows, size: int) -> list[Rows]:
    size = max(1, size)
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _check_texts(texts: Float[np.ndarray, "query text"], genes: int, width: int) -> None:
    if len(texts) != genes:
        msg = f"got {len(texts)} texts for {genes} genes: pass one row per gene, in the same order"
        raise ModelError(msg)
    check_rows(texts, width, "genequery", "numbers of a gene's text")
