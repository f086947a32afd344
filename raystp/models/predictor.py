"""Interfaces of opened models, for all methods.

A direct model turns a slide's tile features into expression. A contrastive model embeds features and measured
expression in one joint space; the neighbour search there is not part of it. Features come from the encoder that the
model's meta names, or from the image encoder that was trained with the model (`arrays.encoder_weights`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64

from raystp.errors import ModelError
from raystp.models.arrays import Arrays

NeighbourArrays = tuple[Int64[np.ndarray, "_ _"], Bool[np.ndarray, "_ _"]]
"""Rows and mask, `[tile, node]`, as `models.neighbours` returns them."""

_VALUES_AT_ONCE = 1 << 24
"""Values checked at a time: limits the memory to 16 MiB."""


@runtime_checkable
class OpenModel(Protocol):
    """Properties of every opened model."""

    @property
    def kind(self) -> str:
        """Name of its method."""
        ...

    @property
    def genes(self) -> list[str]:
        """Genes, in the order of the columns."""
        ...

    @property
    def d_image(self) -> int:
        """Length of the image features."""
        ...


@runtime_checkable
class DirectPredictor(OpenModel, Protocol):
    """A model that predicts expression from features alone."""

    def predict(self, features: Float[np.ndarray, "tile feature"]) -> Float32[np.ndarray, "tile gene"]:
        """Return expression of `genes` at all tiles of one slide, in the unit of the model's labels.

        Raises ModelError for features that do not fit.
        """
        ...


@runtime_checkable
class NeighbourPredictor(OpenModel, Protocol):
    """A direct model that can also read the features of each tile's neighbours."""

    @property
    def needs_neighbours(self) -> bool:
        """Whether `predict` needs `neighbours`."""
        ...

    def predict(
        self, features: Float[np.ndarray, "tile feature"], *, neighbours: NeighbourArrays | None = None
    ) -> Float32[np.ndarray, "tile gene"]:
        """Return expression of `genes` at all tiles of one slide, in the unit of the model's labels."""
        ...


@runtime_checkable
class MapPredictor(OpenModel, Protocol):
    """A direct model that also predicts a whole bag of tiles, and maps of where that prediction comes from."""

    def predict(self, features: Float[np.ndarray, "tile feature"]) -> Float32[np.ndarray, "tile gene"]:
        """Return the local prediction of each tile."""
        ...

    def predict_bag(self, features: Float[np.ndarray, "tile feature"]) -> Float32[np.ndarray, " gene"]:
        """Return the prediction for all tiles together."""
        ...

    def maps(
        self, features: Float[np.ndarray, "tile feature"], genes: Sequence[str] | None = None
    ) -> dict[str, Float32[np.ndarray, "tile gene"]]:
        """Return maps of a slide: a row per tile, a column per gene."""
        ...

    def removable(
        self, features: Float[np.ndarray, "tile feature"], gene: str
    ) -> tuple[Float32[np.ndarray, "tile 2"], Callable[[Float[np.ndarray, "_ 2"]], float]]:
        """Return the terms of one gene's prediction per tile, and the function from any of them to a prediction."""
        ...


@runtime_checkable
class ContrastivePredictor(OpenModel, Protocol):
    """A model that predicts through neighbours among embedded spots."""

    def embed_images(self, features: Float[np.ndarray, "query feature"]) -> Float32[np.ndarray, "query joint"]:
        """Return the embeddings of tiles; raises ModelError for features that do not fit."""
        ...

    def embed_spots(self, expression: Float[np.ndarray, "spot gene"]) -> Float32[np.ndarray, "spot joint"]:
        """Return the embeddings of measured spots, columns in the order of `genes`; raises ModelError for others."""
        ...


@runtime_checkable
class BagEmbedder(ContrastivePredictor, Protocol):
    """A contrastive model of whole cases: it also embeds a bag of tiles as one row."""

    def embed_bag(self, features: Float[np.ndarray, "tile feature"]) -> Float32[np.ndarray, " joint"]:
        """Return the embedding of all tiles together; raises ModelError for no tiles, and for unfit features."""
        ...


@dataclass(frozen=True)
class SpotSections:
    """Where measured spots are."""

    group: Int64[np.ndarray, "spot"]
    """Number of each spot's section."""
    boxes: Float64[np.ndarray, "spot 3"]
    """Tiles (x, y, side) in level-0 px."""


@runtime_checkable
class SectionPredictor(ContrastivePredictor, Protocol):
    """A contrastive model that can also read the section of each spot that it embeds."""

    @property
    def needs_sections(self) -> bool:
        """Whether `embed_spots` needs `sections`."""
        ...

    def embed_spots(
        self, expression: Float[np.ndarray, "spot gene"], *, sections: SpotSections | None = None
    ) -> Float32[np.ndarray, "spot joint"]:
        """Return the embeddings of measured spots; `sections` are whole, and do not mix."""
        ...


Predictor = DirectPredictor | NeighbourPredictor | MapPredictor | ContrastivePredictor

Retriever = Callable[[ContrastivePredictor, Arrays, Mapping[str, Any]], DirectPredictor]
"""A contrastive model, its reference rows and its record -> a model that predicts from features alone."""


def checked_rows(
    values: Float[np.ndarray, "row column"], width: int, kind: str, what: str = "image features"
) -> Float32[np.ndarray, "row column"]:
    """Return the values as contiguous float32; raises ModelError as `check_rows` does."""
    check_rows(values, width, kind, what)
    return np.ascontiguousarray(values, dtype=np.float32)


def check_rows(values: Float[np.ndarray, "row column"], width: int, kind: str, what: str = "image features") -> None:
    """Raise ModelError for another width, nan or infinity. Checks block by block, to limit the memory."""
    if values.shape[1] != width:
        other = "encoder or gene panel" if what == "genes" else "encoder"
        msg = (
            f"the {kind} model reads {width} {what}, got {values.shape[1]}: they are from another {other}; "
            "compute them with that of the model"
        )
        raise ModelError(msg)
    size = max(1, _VALUES_AT_ONCE // max(1, width))
    blocks = (values[start : start + size] for start in range(0, len(values), size))
    bad = sum(int((~np.isfinite(block).all(axis=1)).sum()) for block in blocks)
    if bad:
        msg = f"{bad} of {len(values)} rows of {what} for the {kind} model hold nan or infinity: remove those rows"
        raise ModelError(msg)
