"""The expression of one slide, as every format of `outputs` is written from it.

Coordinates are level-0 px of the whole slide. Matrices stay on disk where they are there: a slide of 10^4 tiles and
2 x 10^4 genes has 0.8 GB of values, and a format reads them in slabs of tiles.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64, Shaped, UInt8
from shapely.geometry.base import BaseGeometry

from raystp.errors import FormatError, some

SLAB_TILES = 4096
"""Tiles that are read at a time."""

SUMMED_TILES = 512
"""Tiles whose values are held in float64 at a time."""

XForm = Literal["float32", "float16", "csr"]
"""How a matrix is stored: dense in one of two precisions, or compressed sparse rows of float32."""

Ngff = Literal["0.4", "0.5"]
Measurements = Literal["geojson", "csv"]


@dataclass(frozen=True)
class Matrix:
    """Values of tiles and columns, read in slabs of tiles.

    `source` has a shape and slices of rows: an array, a dataset of an open HDF5 file, or a sparse dataset of anndata.
    """

    source: Any
    columns: Int64[np.ndarray, " column"] | None = None
    """The columns of the source that count, in their order; None for all."""

    @property
    def shape(self) -> tuple[int, int]:
        """Tiles and columns."""
        tiles, columns = self.source.shape
        return int(tiles), int(columns) if self.columns is None else len(self.columns)

    def rows(self, first: int, end: int) -> Float32[np.ndarray, "tile column"]:
        """Return the values of tiles `first` to `end`."""
        found = self.source[first:end]
        dense = found.toarray() if hasattr(found, "toarray") else found
        return np.asarray(dense if self.columns is None else dense[:, self.columns], np.float32)

    def slabs(self, tiles: int | None = None) -> Iterator[tuple[int, Float32[np.ndarray, "tile column"]]]:
        """Yield the number of the first tile of each slab of so many tiles, and its values."""
        step = tiles or SLAB_TILES
        for first in range(0, self.shape[0], step):
            yield first, self.rows(first, first + step)

    def read(self) -> Float32[np.ndarray, "tile column"]:
        """Return all values; they must fit in memory."""
        values = np.empty(self.shape, np.float32)
        for first, slab in self.slabs():
            values[first : first + len(slab)] = slab
        return values

    def select(self, columns: Sequence[int] | Int64[np.ndarray, " chosen"]) -> "Matrix":
        """Return the matrix of some of these columns."""
        chosen = np.asarray(columns, np.int64)
        return Matrix(self.source, chosen if self.columns is None else self.columns[chosen])


@dataclass(frozen=True)
class MeasuredSpots:
    """The measured spots of a slide, one for each of its tiles, in their order."""

    names: tuple[str, ...]
    centres: Float64[np.ndarray, "tile 2"]
    diameter: float
    """In level-0 px."""
    values: Matrix
    """Expression in the model's unit; NaN for a gene that was not measured."""


@dataclass(frozen=True)
class SlideExpression:
    """Predicted expression of the tiles of one slide, and what a viewer needs beside it."""

    slide: str
    boxes: Float64[np.ndarray, "tile 3"]
    """Top-left corner (x, y) and side of each tile."""
    genes: tuple[str, ...]
    values: Matrix
    mpp: float
    """um/px of the scan."""
    size: tuple[int, int]
    """Width and height of the slide."""
    tiles: Int64[np.ndarray, " tile"]
    """Numbers of the tiles in their table; the formats identify a tile by them."""
    model: str = "model"
    """Short name of the model, for names within the files."""
    tile_px: int = 0
    """Side of a tile in px, as the encoder has read it; 0 where it is not known."""
    encoder: str = ""
    origin: tuple[float, float] = (0.0, 0.0)
    """Corner of the slide's bounds, from which QuPath counts."""
    layers: Mapping[str, Matrix] = field(default_factory=dict)
    """Further values per tile and gene, such as `spread`."""
    per_tile: Mapping[str, Shaped[np.ndarray, " tile"]] = field(default_factory=dict)
    """A value per tile: `distance` to the index, whether it is `far`."""
    measured: MeasuredSpots | None = None
    tissue: BaseGeometry | None = None
    thumbnail: UInt8[np.ndarray, "row col 3"] | None = None
    """The whole slide, at the scale that its size gives."""
    embeddings: Matrix | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Plain JSON values: artifact, fingerprint, protocol. Stored as attribute `raystp`."""

    @property
    def centres(self) -> Float64[np.ndarray, "tile 2"]:
        """Centres of the tiles."""
        return self.boxes[:, :2] + self.boxes[:, 2:] / 2

    def select(self, genes: Sequence[str]) -> "SlideExpression":
        """Return the slide with some of its genes, in the given order; raises FormatError for a gene it has not."""
        column_of = {gene: column for column, gene in enumerate(self.genes)}
        if unknown := [gene for gene in genes if gene not in column_of]:
            msg = f"slide {self.slide!r} has no prediction of {some(unknown)}; it has {len(self.genes)} genes, "
            raise FormatError(msg + f"{some(list(self.genes))}: choose among them with `genes`")
        columns = [column_of[gene] for gene in genes]
        measured = self.measured
        return replace(
            self,
            genes=tuple(genes),
            values=self.values.select(columns),
            layers={name: layer.select(columns) for name, layer in self.layers.items()},
            measured=None if measured is None else replace(measured, values=measured.values.select(columns)),
        )


@dataclass(frozen=True)
class OutputOptions:
    """What a format may be asked for; each uses the part that concerns it."""

    x: XForm = "float32"
    """SpatialData: how matrices are stored."""
    ngff: Ngff = "0.4"
    """OME-Zarr: 0.4 is zarr v2, 0.5 is zarr v3."""
    measurements: Measurements = "geojson"
    """QuPath: objects with measurements, or a table for an open project."""


def most_variable(slide: SlideExpression, count: int) -> list[str]:
    """Return the genes whose prediction varies most over the tiles, the most variable first; ties in their order.

    NaN values are left out; a gene without a value counts as constant.
    """
    tiles = np.zeros(len(slide.genes))
    total, squares = np.zeros_like(tiles), np.zeros_like(tiles)
    for _, slab in slide.values.slabs(SUMMED_TILES):
        known: Bool[np.ndarray, "tile gene"] = np.isfinite(slab)
        filled: Float[np.ndarray, "tile gene"] = np.where(known, slab, 0.0).astype(np.float64)
        tiles += known.sum(axis=0)
        total += filled.sum(axis=0)
        squares += (filled**2).sum(axis=0)
    mean = total / np.maximum(tiles, 1)
    variance = squares / np.maximum(tiles, 1) - mean**2
    order = np.argsort(-np.round(variance, 12), kind="stable")
    return [slide.genes[column] for column in order[:count].tolist()]
