"""A stored GeneQuery model, ready to answer: a slide's features in, expression of any genes with a text out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from raystp.errors import ModelError, some
from raystp.models.arrays import Arrays
from raystp.models.genequery.model import GeneQuery
from raystp.models.genequery.options import GeneQueryOptions

Rows = TypeVar("Rows", np.ndarray, Tensor)

NUMBERS = 1 << 25
"""Numbers of tokens that are held in one go, 128 MB a tensor: bounds the memory, never the answer."""

TOLERANCE = 1e-3
"""Two texts of one gene by one encoder differ by less, as a share of the texts' common scale."""


@dataclass(frozen=True)
class GeneQueryPredictor:
    """The model with its trained genes' names; it reads images and texts, never expression."""

    kind: str
    genes: list[str]
    d_image: int
    model: GeneQuery
    text_encoder: Mapping[str, Any] = field(default_factory=dict)
    """What the texts' encoder said of itself: texts of other genes must come from the same."""

    @property
    def d_text(self) -> int:
        """Length of a text's vector."""
        return int(self.model.text.shape[1])

    def predict(
        self,
        features: Float[np.ndarray, "tile feature"],
        *,
        genes: Sequence[str] | None = None,
        texts: Float[np.ndarray, "asked text"] | None = None,
    ) -> Float32[np.ndarray, "tile asked"]:
        """Return log1p CP10k of `genes` (None: those trained on, in their order) at all tiles of a slide.

        `texts` are the genes' rows, by the encoder of the trained texts; a gene that was trained on needs none. What a
        gene is answered does not depend on which others are asked for. Of genes not trained on, level and spread are
        guessed (see `genequery_scale`). Raises ModelError where a text lacks or contradicts the trained one, and for
        features of another encoder.
        """
        _check_rows(features, self.d_image, "image features")
        if genes is None:
            if texts is not None:
                msg = f"{len(texts)} texts came without the names of their genes: name them as `genes`"
                raise ModelError(msg)
            asked, offset, scale = self.model.text, self.model.offset, self.model.scale
        else:
            asked, offset, scale = self._asked(list(genes), texts)
        with torch.inference_mode():
            scaled = self._scaled(features, asked, every=genes is None)
            return (offset + scale * scaled).cpu().numpy()

    def _scaled(self, features: np.ndarray, asked: Tensor, *, every: bool) -> Float[Tensor, "tile asked"]:
        if not features.size or not len(asked):
            return torch.zeros(len(features), len(asked), device=asked.device)
        images = torch.cat([self._images(rows) for rows in _pieces(features, NUMBERS // self.d_image)])
        questions = self.model.questions(asked)
        if self.model.options.context == "spot":
            return self._by_gene(images, questions)
        return self._by_tile(images, questions, every=every)

    def _images(self, features: np.ndarray) -> Tensor:
        rows = torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32))
        return self.model.contexts(rows.to(self.model.text.device))

    def _by_tile(self, images: Tensor, questions: Tensor, *, every: bool) -> Tensor:
        """Return answers where genes attend: those trained on are the context, whoever is asked for reads it."""
        model, trained = self.model, self.model.questions(self.model.text)
        size = NUMBERS // ((len(trained) + len(questions)) * _per_token(model.options))
        answers = []
        for part in _pieces(images[:, None], size):
            if model.transformer is None:
                answers.append(model.answers(model.tokens(part, questions[None])))
                continue
            context = model.tokens(part, trained[None])
            readers = None if every else model.tokens(part, questions[None])
            answers.append(model.answers(context, readers=readers))
        return torch.cat(answers)

    def _by_gene(self, images: Tensor, questions: Tensor) -> Tensor:
        """Return answers where a slide's tiles attend: at most `context_tiles` of them are the context, all read it."""
        most = self.model.options.context_tiles
        anchors = torch.linspace(0, len(images) - 1, most).round().long() if len(images) > most else None
        size = NUMBERS // (len(images) * _per_token(self.model.options))
        answers = []
        for part in _pieces(questions[:, None], size):
            whole = self.model.tokens(images[None].expand(len(part), -1, -1), part)
            if anchors is None:
                answers.append(self.model.answers(whole))
            else:
                answers.append(self.model.answers(whole[:, anchors.to(whole.device)], readers=whole))
        return torch.cat(answers).T

    def _asked(self, genes: list[str], texts: np.ndarray | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return text, offset and scale of each gene: the stored ones where it was trained on."""
        model, at = self.model, {gene: place for place, gene in enumerate(self.genes)}
        unknown = [gene for gene in genes if gene not in at]
        if unknown and texts is None:
            msg = (
                f"{len(unknown)} of {len(genes)} genes were not trained on and have no text: {some(unknown)}; give "
                f"`texts` of all genes asked for, by the text encoder {dict(self.text_encoder)}"
            )
            raise ModelError(msg)
        rows = torch.tensor([at.get(gene, 0) for gene in genes], dtype=torch.int64, device=model.text.device)
        stored = model.text[rows]
        if texts is None:
            return stored, model.offset[rows], model.scale[rows]
        _check_texts(texts, len(genes), self.d_text)
        given = torch.from_numpy(np.ascontiguousarray(texts, dtype=np.float32)).to(stored.device)
        known = torch.tensor([gene in at for gene in genes], dtype=torch.bool, device=stored.device)
        apart = known & ((given - stored).abs().amax(dim=1) > TOLERANCE * model.text_scale)
        if bool(apart.any()):
            names = [gene for gene, differs in zip(genes, apart.tolist(), strict=True) if differs]
            msg = (
                f"{len(names)} genes were trained with another text than the one given: {some(names)}; texts come from "
                f"the text encoder {dict(self.text_encoder)}, and in the genes' order"
            )
            raise ModelError(msg)
        offset, scale = model.ways_back(given)
        return (
            torch.where(known[:, None], stored, given),
            torch.where(known, model.offset[rows], offset),
            torch.where(known, model.scale[rows], scale),
        )


def genequery_meta(genes: Sequence[str], model: GeneQuery, text_encoder: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `save_model` is to keep beside `model.state_dict()`; the image encoder is for the caller to add."""
    if len(genes) != len(model.text):
        msg = f"the model was trained on {len(model.text)} genes, and {len(genes)} names are to be stored with it"
        raise ModelError(msg)
    return {
        "genes": list(genes),
        "d_image": len(model.image_mean),
        "options": dict(vars(model.options)),
        "text_encoder": dict(text_encoder),
    }


def ready_genequery(arrays: Arrays, meta: Mapping[str, Any]) -> GeneQueryPredictor:
    """Return the model that `load_model` read; `meta["options"]` are its `GeneQueryOptions`.

    A tower that was trained with it is left out: it runs where pixels are. Raises ModelError where the arrays are not
    those of such a model.
    """
    try:
        genes, d_text = arrays["text"].shape
        if genes != len(meta["genes"]):
            msg = f"{genes} texts for {len(meta['genes'])} genes"
            raise RuntimeError(msg)
        model = GeneQuery(meta["d_image"], (genes, d_text), GeneQueryOptions(**meta["options"]))
        model.load_state_dict({n: torch.from_numpy(v) for n, v in arrays.items() if not n.startswith("tower.")})
    except (RuntimeError, TypeError, KeyError, ValueError) as error:
        msg = f"the stored arrays or options are not those of a genequery model ({error}): a damaged or altered file"
        raise ModelError(msg) from None
    return GeneQueryPredictor("genequery", meta["genes"], meta["d_image"], model.eval(), meta.get("text_encoder", {}))


def _per_token(options: GeneQueryOptions) -> int:
    """Return the numbers that a token of the context takes while it is read: itself, its key and its value."""
    return options.width + 2 * options.heads * options.head_dim


def _pieces(rows: Rows, size: int) -> list[Rows]:
    size = max(1, size)
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _check_rows(values: Float[np.ndarray, "row column"], width: int, what: str) -> None:
    if values.shape[1] != width:
        msg = f"the genequery model reads {width} {what}, got {values.shape[1]}: they are of another encoder"
        raise ModelError(msg)
    bad = int((~np.isfinite(values).all(axis=1)).sum())
    if bad:
        msg = (
            f"the {what} for the genequery model hold nan or infinity in {bad} of {len(values)} rows: "
            "leave those rows out"
        )
        raise ModelError(msg)


def _check_texts(texts: Float[np.ndarray, "asked text"], genes: int, width: int) -> None:
    if len(texts) != genes:
        msg = f"{genes} genes are asked for with {len(texts)} texts: one row a gene, in the same order"
        raise ModelError(msg)
    _check_rows(texts, width, "numbers of a gene's text")
