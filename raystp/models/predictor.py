"""A stored model, ready to answer: one small contract for all kinds.

A `DirectPredictor` model turns a tile's features into expression. A `ContrastivePredictor` one turns features, and
measured expression, into one joint space; who is near whom there, and what that says of expression, is not its affair.
Features come from the encoder that the model's meta names, or from the model's own tower (`arrays.tower_weights`),
which runs where pixels are.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32

from raystp.errors import ModelError
from raystp.models.arrays import TOWER, Arrays
from raystp.models.attention.predictor import AttentionPredictor, ready_attention
from raystp.models.baselines.ridge import predict_ridge
from raystp.models.baselines.simple import predict_gene_mean, predict_knn
from raystp.models.bleep.loss import BleepOptions
from raystp.models.bleep.model import Bleep
from raystp.models.genequery.predictor import GeneQueryPredictor, ready_genequery
from raystp.models.nh2st.predictor import Nh2stPredictor, ready_nh2st

UNSEEN_TEXT = "unseen_text"
"""Array of a stored GeneQuery model: the texts of the genes that were held back from its training."""


@dataclass(frozen=True)
class DirectPredictor:
    """A model that answers by itself."""

    kind: str
    genes: list[str]
    d_image: int
    arrays: Arrays
    apply: Callable[[Arrays, Float[np.ndarray, "query feature"]], Float32[np.ndarray, "query gene"]]

    def predict(self, features: Float[np.ndarray, "query feature"]) -> Float32[np.ndarray, "query gene"]:
        """Return the expression of `genes` at each query; raises ModelError for features of another encoder."""
        return self.apply(self.arrays, _checked(features, self.d_image, f"the {self.kind} model", "image features"))


@dataclass(frozen=True)
class ContrastivePredictor:
    """A model that answers through neighbours among embedded spots."""

    kind: str
    genes: list[str]
    d_image: int
    heads: Bleep

    def embed_images(self, features: Float[np.ndarray, "query feature"]) -> Float32[np.ndarray, "query joint"]:
        """Return the embeddings of tiles; raises ModelError for features of another encoder."""
        rows = _checked(features, self.d_image, f"the {self.kind} model", "image features")
        with torch.inference_mode():
            out: np.ndarray = self.heads.embed_images(torch.from_numpy(rows)).numpy()
        return out

    def embed_spots(self, expression: Float[np.ndarray, "spot gene"]) -> Float32[np.ndarray, "spot joint"]:
        """Return the embeddings of measured spots, their columns the model's `genes`; raises ModelError for others."""
        rows = _checked(expression, len(self.genes), f"the {self.kind} model", "genes")
        with torch.inference_mode():
            out: np.ndarray = self.heads.embed_spots(torch.from_numpy(rows)).numpy()
        return out


@dataclass(frozen=True)
class GeneQuestions:
    """GeneQuery with the questions that it is asked: genes that it was trained on, and genes that it was not."""

    kind: str
    genes: list[str]
    d_image: int
    answering: GeneQueryPredictor
    texts: Float32[np.ndarray, "gene text"]

    def predict(self, features: Float[np.ndarray, "tile feature"]) -> Float32[np.ndarray, "tile gene"]:
        """Return log1p CP10k of `genes` at all tiles of a slide; raises ModelError for features of another encoder."""
        return self.answering.predict(features, genes=self.genes, texts=self.texts)


Predictor = DirectPredictor | ContrastivePredictor | GeneQuestions | Nh2stPredictor | AttentionPredictor


def _gene_mean(arrays: Arrays, meta: Mapping[str, Any]) -> Predictor:
    return DirectPredictor("gene_mean", meta["genes"], meta["d_image"], arrays, predict_gene_mean)


def _knn(arrays: Arrays, meta: Mapping[str, Any]) -> Predictor:
    return DirectPredictor("knn", meta["genes"], meta["d_image"], arrays, predict_knn)


def _ridge(arrays: Arrays, meta: Mapping[str, Any]) -> Predictor:
    return DirectPredictor("ridge", meta["genes"], meta["d_image"], arrays, predict_ridge)


def _bleep(arrays: Arrays, meta: Mapping[str, Any]) -> Predictor:
    heads = Bleep(meta["d_image"], len(meta["genes"]), BleepOptions(**meta["options"]))
    heads.load_state_dict({n: torch.from_numpy(v) for n, v in arrays.items() if not n.startswith(TOWER)})
    return ContrastivePredictor("bleep", meta["genes"], meta["d_image"], heads.eval())


def _genequery(arrays: Arrays, meta: Mapping[str, Any]) -> Predictor:
    own = {name: value for name, value in arrays.items() if name != UNSEEN_TEXT}
    answering = ready_genequery(own, {**meta, "genes": meta["seen"]})
    rows = dict(zip(meta["seen"], arrays["text"], strict=True))
    rows |= dict(zip(meta["unseen"], arrays.get(UNSEEN_TEXT, ()), strict=True))
    texts = np.stack([rows[gene] for gene in meta["genes"]])
    return GeneQuestions("genequery", meta["genes"], meta["d_image"], answering, texts)


MODELS: dict[str, Callable[[Arrays, Mapping[str, Any]], Predictor]] = {
    "attention": ready_attention,
    "bleep": _bleep,
    "gene_mean": _gene_mean,
    "genequery": _genequery,
    "knn": _knn,
    "nh2st": ready_nh2st,
    "ridge": _ridge,
}
"""Kind -> how a stored model of it is made ready. `fit_log_total` is not here: it reads measured counts, not tiles."""


def predictor(kind: str, arrays: Arrays, meta: Mapping[str, Any]) -> Predictor:
    """Return the model that `load_model` read, ready to answer; for BLEEP `meta["options"]` are its `BleepOptions`.

    Raises ModelError for an unknown kind, and where the arrays are not those of the kind.
    """
    if kind not in MODELS:
        msg = f"no such kind of model; there are {', '.join(sorted(MODELS))}, got {kind!r}"
        raise ModelError(msg)
    try:
        return MODELS[kind](arrays, meta)
    except (RuntimeError, TypeError, KeyError, ValueError) as error:
        msg = f"the stored arrays or options are not those of a {kind} model ({error}): a damaged or altered file"
        raise ModelError(msg) from None


def _checked(
    values: Float[np.ndarray, "row column"], width: int, model: str, what: str
) -> Float32[np.ndarray, "row column"]:
    if values.shape[1] != width:
        msg = f"{model} reads {width} {what}, got {values.shape[1]}: they are of another encoder or gene panel"
        raise ModelError(msg)
    bad = int((~np.isfinite(values).all(axis=1)).sum())
    if bad:
        msg = f"the {what} for {model} hold nan or infinity in {bad} of {len(values)} rows: leave those rows out"
        raise ModelError(msg)
    return np.ascontiguousarray(values, dtype=np.float32)
