"""Tiles of a slide whose path is a file of image patches: each patch is a tile, and a spot by its barcode."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from raystp.errors import SlideError
from raystp.expression.schema import read_section
from raystp.slides.coordinates import TileGeometry
from raystp.slides.patches.join import PatchJoin, join_spots
from raystp.slides.patches.mosaic import covered_share
from raystp.slides.patches.scale import PatchScale, scale_by_spots
from raystp.slides.patches.slide import PatchSlide
from raystp.slides.tissue.quality import FOCUS_MPP, SlideQuality, laplacian_variance
from raystp.steps.tile.checks import SectionScale, check_enlarged, check_scale
from raystp.steps.tile.config import TileConfig
from raystp.storage import StoragePath
from raystp.units import Microns, TilePixels, tile_centres

SIDE_TOLERANCE = 0.02
"""A patch may differ from `tile_um` by this share: its side is a whole number of level-0 px, about 100 or more."""

OFF_CENTRE = 0.1
"""Spots further from the centres of their patches than this share of a side (median) get a warning."""


@dataclass(frozen=True)
class PatchTiles:
    """The tiles of a file of patches, in the file's order."""

    boxes: Float64[np.ndarray, "tile 3"]
    names: tuple[str, ...] | None
    """Barcodes; None if the file has none."""
    scale: PatchScale
    quality: SlideQuality
    lost_spots: int
    warnings: list[str]


def tiles_of_patches(
    slide: PatchSlide, config: TileConfig, section: StoragePath | None, scale: SectionScale | None, *, masked: bool
) -> PatchTiles:
    """Return the tiles of a file of patches; `masked` is whether the user gave a mask for this slide.

    Raises:
        SlideError: the config asks for other tiles than the patches, or the file does not fit its section.
        SectionError: the um/px of file and section contradict each other.
    """
    _check_config(slide, config, masked=masked)
    header = slide.header
    names, rows, centres, joined = header.barcodes, np.arange(len(header.corners)), None, None
    if section is not None:
        measured = read_section(section)
        joined = join_spots(slide.where, names, [str(name) for name in measured.obs_names])
        names, rows = joined.names, joined.rows
        centres = np.asarray(measured.obsm["spatial"], np.float64)[joined.spots]
    placed, warnings = _placed(slide, joined, centres, scale)
    corners = header.corners[rows]
    boxes = np.concatenate([corners, np.full((len(corners), 1), float(placed.side))], axis=1)
    if centres is not None:
        warnings += _off_centre(boxes, centres)
    mpp = placed.patch_mpp(header.px)
    _check_side(slide, config, float(mpp) * header.px, float(mpp))
    warnings += check_enlarged(TileGeometry(Microns(config.scales[0]), TilePixels(config.tile_px), mpp))
    quality: SlideQuality = {
        "tissue": round(covered_share(boxes, (slide.width, slide.height)), 6),
        "ink": 0.0,
        "sharpness": _sharpness(slide, rows.tolist(), float(mpp), config.focus_tiles),
        "mask": "none",
    }
    return PatchTiles(boxes, names, placed, quality, 0 if joined is None else len(joined.lost_spots), warnings)


def _check_config(slide: PatchSlide, config: TileConfig, *, masked: bool) -> None:
    """Raise SlideError for options that would choose or cut tiles, which patches are already."""
    options = {
        "a mask in `masks`": masked,
        "`stride`": config.stride is not None,
        "several sizes in `tile_um`": len(config.scales) > 1,
    }
    asked = [name for name, is_set in options.items() if is_set]
    if asked:
        msg = (
            f"{slide.where} is a file of image patches, which are tiles already: {' and '.join(asked)} cannot be "
            "used; remove it, or give the slide itself"
        )
        raise SlideError(msg)


def _placed(
    slide: PatchSlide,
    joined: PatchJoin | None,
    centres: Float64[np.ndarray, "patch 2"] | None,
    scale: SectionScale | None,
) -> tuple[PatchScale, list[str]]:
    """Return the scale, by the spots if the file gives none, and warnings."""
    lost = [] if joined is None else joined.warnings()
    if joined is None or centres is None or scale is None or not slide.header.has_no_scale:
        return slide.scale, [*slide.warnings, *check_scale(slide, scale), *lost]
    corners = slide.header.corners[joined.rows]
    placed = scale_by_spots(slide.where, slide.header.px, centres - corners, given=slide.mpp, section_mpp=scale.mpp)
    return placed, lost


def _check_side(slide: PatchSlide, config: TileConfig, side_um: float, mpp: float) -> None:
    """Raise SlideError if patches are not as wide as the tiles of the config."""
    tile_um = config.scales[0]
    if abs(side_um / tile_um - 1.0) <= SIDE_TOLERANCE:
        return
    msg = (
        f"{slide.where}: its patches are {side_um:.4g} um wide ({slide.header.px} px of {mpp:.4g} um/px), and tile_um "
        f"is {tile_um:g}: run `raystp tile` with tile_um={side_um:.4g} for such files; if the width is wrong, correct "
        "the column `mpp` of the slide table"
    )
    raise SlideError(msg)


def _off_centre(boxes: Float64[np.ndarray, "tile 3"], centres: Float64[np.ndarray, "tile 2"]) -> list[str]:
    """Return a warning if spots are not at the centres of their patches."""
    distance = float(np.median(np.linalg.norm(tile_centres(boxes) - centres, axis=1)))
    side = float(boxes[0, 2])
    if distance <= max(OFF_CENTRE * side, 2.0):
        return []
    return [
        f"spots are {distance:.1f} px (median) from the centres of their patches, which are {side:g} px wide: the "
        "positions may be in another image's pixels; tiles are joined by barcode and have the patches' places"
    ]


def _sharpness(slide: PatchSlide, rows: list[int], mpp: float, count: int) -> float | None:
    """Return the median sharpness of some patches, at the um/px of a slide's own (see `quality.sharpness`)."""
    px = TilePixels(max(1, round(slide.header.px * min(1.0, mpp / FOCUS_MPP))))
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(np.int64)).tolist()
    measured = []
    for position in chosen:
        try:
            measured.append(laplacian_variance(slide.read_patch(rows[position], px)))
        except SlideError:
            continue  # a damaged patch: `embed` names it
    return round(float(np.median(measured)), 2) if measured else None
