"""What the viewer shows, as plain arrays: slides with their layers, genes, gene sets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float, Int64, UInt8

from raystp.evaluate.report.viewer.scores import GeneIntervals
from raystp.units import Level0Pixels

MEASURED, PREDICTED, SPREAD = "measured", "predicted", "spread"
UNIT = "log1p CP10k"


@dataclass(frozen=True)
class SlideThumbnail:
    """A small image of a slide, and the size of the whole slide that it shows."""

    pixels: UInt8[np.ndarray, "y x 3"]
    width: Level0Pixels
    height: Level0Pixels


@dataclass(frozen=True)
class ReferenceTile:
    """A row of the reference index."""

    section: str
    patient: str
    spot: str
    picture: bytes | None = None
    """JPEG of its tile; None where it is not known."""


@dataclass(frozen=True)
class NearestTiles:
    """The nearest reference tiles of each spot, nearest first."""

    tiles: Int64[np.ndarray, "spot k"]
    """Numbers in `MapContent.references`."""
    distance: Float[np.ndarray, "spot k"]


@dataclass(frozen=True)
class MapSlide:
    """A section or a slide: where its spots or tiles are, and a value of each layer for every spot and gene."""

    name: str
    note: str
    thumbnail: SlideThumbnail
    shape: Literal["circle", "square"]
    """Spots are circles, tiles are squares."""
    xy: Float[np.ndarray, "spot 2"]
    """Centres, in level-0 px."""
    size: Level0Pixels
    """Diameter of a spot, side of a tile."""
    layers: Mapping[str, Float[np.ndarray, "spot gene"]]
    """`measured`, `predicted`, `spread`, `attention`, ...; columns are the panel, NaN is a value that is missing."""
    spots: Sequence[str] | None = None
    """Names of the spots; None for tiles, which are numbered."""
    distance: Float[np.ndarray, "spot"] | None = None
    """To the nearest row of the reference index."""
    far_beyond: float | None = None
    """The distance beyond which a tile is far from the reference."""
    scores: GeneIntervals | None = None
    """PCC of each gene, then of each gene set; None where nothing is measured."""
    nearest: NearestTiles | None = None
    """None for a model that predicts without a reference."""
    pictures: Sequence[bytes] | None = None
    """JPEG of each spot's tile; without them the tile is cut from the thumbnail."""


@dataclass(frozen=True)
class MapContent:
    """The slides of one model, and the genes to choose from."""

    model: str
    slides: Sequence[MapSlide]
    genes: Sequence[str]
    """The panel, in the order of the columns of the layers."""
    first: Sequence[int]
    """Columns of the genes that have a button, most wanted first; the first is shown at the start."""
    importance: Float[np.ndarray, "gene"]
    """Where not all genes fit in the page, those with the highest value are kept (and those in `first`)."""
    sets: Mapping[str, Int64[np.ndarray, "_"]] = field(default_factory=dict)
    """Name of a gene set -> columns; its map is the mean over its genes."""
    unit: str = UNIT
    references: Sequence[ReferenceTile] = ()
    reference_expression: Float[np.ndarray, "reference gene"] | None = None
    """What the reference tiles measured; columns are the panel."""

    @property
    def order(self) -> list[int]:
        """Columns, most wanted first: the order in which genes are stored in the page."""
        rest = np.argsort(-np.nan_to_num(self.importance), kind="stable").tolist()
        return list(dict.fromkeys([*self.first, *rest]))
