"""Configuration of `raystp spots`."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from raystp.config import Location, RunConfig, StepConfig
from raystp.expression.readers.options import MAX_LOST, SQUARE_CELLS, SQUARE_COUNTS, SectionOptions


class SpotsConfig(StepConfig[RunConfig]):
    """Configuration of `raystp spots`."""

    command: ClassVar[str | None] = "spots"
    where: ClassVar[frozenset[str]] = frozenset({"slides", "root"})

    slides: Annotated[str, Location("demo")]
    """The slide table; rows with `layout` and `counts` are measured sections. `demo/<name>`: that of a demo."""

    root: Annotated[str | None, Location()] = None
    """Folder or URI that the table's relative paths start from. The default is the table's own folder."""

    min_counts: float | None = Field(default=None, ge=0)
    """Fewest UMI of a spot; the default is the larger of 10 and 5 % of the section's median. 0 keeps every spot."""

    max_lost: float = Field(default=MAX_LOST, ge=0, le=1)
    """Largest share of the counts without a position, or of the positions in tissue without counts."""

    counts_layer: str | None = None
    """Where an h5ad has its raw counts: a layer, `X` or `raw`; the table's column of this name wins."""

    allow_mirrored: bool = False
    """Accept sections whose positions mirror the array of Visium, as those of a picture that was flipped."""

    bin_um: float | None = Field(default=None, gt=0)
    """Visium HD: side of the bins that are read; the default is 8. The table's column of this name wins."""

    pool_um: float | None = Field(default=None, gt=0)
    """Side of the squares that Visium HD (default 112) and Xenium (100) are pooled to; the table's column wins.

    For Visium HD it is a multiple of the bin, and equal to it to read single bins.
    """

    xenium_from: Literal["transcripts", "cells"] = "transcripts"
    """Xenium: count transcripts with qv of at least 20, or sum the counts of cells at their centroids."""

    square_counts: int = Field(default=SQUARE_COUNTS, ge=0)
    """Xenium: a square is kept if it has at least so many counts, or ..."""

    square_cells: int = Field(default=SQUARE_CELLS, ge=0)
    """... at least so many cells."""

    run: RunConfig = Field(default_factory=RunConfig)

    def section_options(self) -> SectionOptions:
        """Return the choices that the readers take."""
        return SectionOptions(
            min_counts=self.min_counts,
            max_lost=self.max_lost,
            allow_mirrored=self.allow_mirrored,
            bin_um=self.bin_um,
            pool_um=self.pool_um,
            xenium_from=self.xenium_from,
            square_counts=self.square_counts,
            square_cells=self.square_cells,
        )
