"""Where a measured section is on disk, and what the slide table states about it."""

from dataclasses import dataclass, field

from raystp.expression.readers.options import SectionOptions
from raystp.storage import StoragePath


@dataclass(frozen=True)
class SectionSource:
    """The files of a measured section, and what the slide table states about it."""

    section: str
    slide: str
    patient: str
    layout: str
    """A key of `LAYOUTS`."""
    counts: StoragePath
    """The count matrix: a file, or for most layouts also a folder."""
    positions: StoragePath | None = None
    """The spots' positions, where the layout keeps them in a file of their own."""
    mpp: float | None = None
    """um per pixel of the pixels that the positions are in; None: from the spots' pitch, where the layout has one."""
    spot_px: float | None = None
    """`legacy_st` without positions: pixels per array step, position = (array coordinate - 1) * spot_px."""
    pitch_um: float | None = None
    """Distance between neighbouring spots; None: that of the technology."""
    library: str | None = None
    """Which library of a file with several; None: the one named like the section or the slide."""
    image: str | None = None
    """Which picture the slide is: `fullres` (None), or Space Ranger's `hires` or `lowres`."""
    counts_layer: str | None = None
    """Where the raw counts of an h5ad are: a layer's name, `X` or `raw`; None: find them."""
    image_px: tuple[int, int] | None = None
    """Columns and rows of the slide; None: not known, or not needed by the layout."""
    options: SectionOptions = field(default_factory=SectionOptions)

    @property
    def origin(self) -> str:
        """The section's name in messages."""
        return f"section '{self.section}' ({self.counts})"
