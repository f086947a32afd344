"""Configuration of `raystp tile`."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from raystp.config import Location, StepConfig
from raystp.slides.coordinates import TileGeometry
from raystp.steps.run_config import SlideRun
from raystp.units import Microns, MicronsPerPixel, TilePixels

Side = Annotated[float, Field(gt=0)]


class TileRun(SlideRun):
    """The `run` section of `raystp tile`."""

    deadline_s: float = Field(default=1800.0, gt=0)
    """Deadline in seconds for one slide. A worker that exceeds it, because a decoder hangs, is stopped. After three
    such attempts the slide is skipped."""


class TileConfig(StepConfig[TileRun]):
    """Configuration of `raystp tile`: tiles around measured spots, or on a grid over the tissue of other slides."""

    command: ClassVar[str | None] = "tile"

    RENAMED: ClassVar[Mapping[str, str]] = {"side": "tile_um", "pixels": "tile_px", "focus_places": "focus_tiles"}

    where: ClassVar[frozenset[str]] = frozenset({"slides", "root", "spots", "masks"})

    slides: Annotated[str, Location("demo")]
    """A slide table, a folder, glob or prefix of slides, or `demo/<name>` for the table of a demo cohort."""

    root: Annotated[str | None, Location()] = None
    """Folder or URI that relative paths of the table start from. The default is the table's own folder."""

    spots: Annotated[str | None, Location("spots")] = None
    """The measured spots, `spots/<name>`. Without them every slide gets a grid over its tissue."""

    masks: Annotated[str | None, Location()] = None
    """A folder of your own tissue masks, `<slide>.geojson` in level-0 px. The tissue of a slide without a file there is
    detected. You can copy `masks/` of an earlier tile artifact, edit it in QuPath and use it here."""

    mask_frame: Literal["auto", "level0", "bounds"] = "auto"
    """Where coordinates of your masks start on slides with bounds (MRXS, SCN): at the corner of the whole slide
    (`level0`), or at the bounds (`bounds`), as QuPath has it. `auto` recognises it by the tissue under the mask."""

    tile_um: Side | Annotated[tuple[Side, ...], Field(min_length=1)] = 112.0
    """Side of a tile in um of tissue. A list is several concentric tiles around each place, as one artifact. The places
    of a grid are those of the first side; `stride`, `min_tissue` and the overview are about that side."""

    tile_px: int = Field(default=224, ge=16, le=4096)
    """Side of a tile in px, as the encoder reads it. Tissue is read at tile_um / tile_px um/px."""

    stride: float | None = Field(default=None, gt=0)
    """Step of the grid in um. The default is `tile_um`: tiles neither overlap nor leave gaps."""

    min_tissue: float = Field(default=0.5, ge=0, le=1)
    """Least share of tissue under a tile of the grid."""

    allow_glass: float = Field(default=0.25, ge=0, le=1)
    """Share of a section's spots that may lie on bare glass; more is an error, because the picture or the positions are
    wrong. 1 allows any."""

    focus_tiles: int = Field(default=5, ge=0, le=100)
    """Tiles per slide whose sharpness is measured, as a note on the slide's quality; 0 measures none."""

    run: TileRun = Field(default_factory=TileRun)

    def geometry(self, mpp: MicronsPerPixel) -> TileGeometry:
        """Return the geometry of tiles, of the first side, on a slide scanned at `mpp` um/px."""
        return self.geometries(mpp)[0]

    def geometries(self, mpp: MicronsPerPixel) -> list[TileGeometry]:
        """Return the geometry of each side, in the order given."""
        return [TileGeometry(Microns(side), TilePixels(self.tile_px), mpp) for side in self.scales]

    @property
    def scales(self) -> tuple[float, ...]:
        """The sides in um, in the order given."""
        return self.tile_um if isinstance(self.tile_um, tuple) else (self.tile_um,)

    @field_validator("tile_um")
    @classmethod
    def _check_scales(cls, sides: float | tuple[float, ...]) -> float | tuple[float, ...]:
        if not isinstance(sides, tuple):
            return sides
        if len(set(sides)) < len(sides):
            msg = "a side is listed twice"
            raise ValueError(msg)
        return sides if len(sides) > 1 else sides[0]
