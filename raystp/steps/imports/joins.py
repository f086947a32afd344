"""Which tiles of an imported slide are those of its measured spots, and whether both are in one frame."""

from typing import Any

import numpy as np
from jaxtyping import Float64
from scipy.spatial import cKDTree

from raystp.errors import SectionError, some
from raystp.expression.schema import read_section
from raystp.interop.features.tiles import TileVectors
from raystp.slides.open import Slide
from raystp.steps.tile.checks import MPP_TOLERANCE, SectionScale, check_scale
from raystp.storage import StoragePath
from raystp.units import tile_centres

OFF_CENTRE = 0.1
"""Spots further from the centres of the tiles of their names than this share of a side (median) get a warning."""


def around_spots(
    tiles: TileVectors, section: StoragePath, within: float
) -> tuple[TileVectors, list[str | None], list[str]]:
    """Return the tiles around measured spots, in the order of the file, with their spots, and notes on what is left.

    A tile is that of the nearest spot, at most `within` level-0 px away. Raises SectionError where no spot has a tile.
    """
    measured = read_section(section)
    centres = np.asarray(measured.obsm["spatial"], np.float64)
    spots, count = [str(name) for name in measured.obs_names], len(tiles.boxes)
    distance, nearest = (
        cKDTree(tile_centres(tiles.boxes)).query(centres) if count else (np.full(len(spots), np.inf),) * 2
    )
    of_tile: dict[int, int] = {}
    for spot in np.argsort(distance, kind="stable")[: int((distance <= within).sum())].tolist():
        of_tile.setdefault(int(nearest[spot]), spot)
    if not of_tile:
        closest = f"the nearest is {distance.min():.1f} px away" if count else "there is no tile"
        msg = (
            f"none of the {len(spots)} spots of {section} has a tile centred within {within:g} px ({closest}): these "
            "tiles were not made around the spots, or are in px of another image; a larger spot_px accepts others"
        )
        raise SectionError(msg)
    rows = sorted(of_tile)
    said = [f"{len(rows)} of {len(spots)} spots have a tile; {count - len(rows)} tiles without a spot are left out"]
    return (
        _taken(tiles, rows),
        [spots[of_tile[row]] for row in rows],
        said if len(rows) < max(len(spots), count) else [],
    )


def of_spots(tiles: TileVectors, section: StoragePath) -> tuple[TileVectors, list[str | None], list[str]]:
    """Return the tiles whose names are those of measured spots, and notes on what is left or lies elsewhere.

    Slides of Visium all have the same names of spots, so the places are compared too.

    Raises SectionError where no name is that of a spot.
    """
    measured = read_section(section)
    spots = {str(name): row for row, name in enumerate(measured.obs_names)}
    names = [str(name) for name in tiles.spots or ()]
    rows = [row for row, name in enumerate(names) if name in spots]
    if not rows:
        msg = (
            f"none of the {len(names)} tiles is named as a spot of {section}: the tiles have {some(names, 2)}, the "
            f"section {some(sorted(spots), 2)}; give the spots of this data set"
        )
        raise SectionError(msg)
    left = len(names) - len(rows)
    said = [f"{len(rows)} of {len(spots)} spots have a tile, by name; {left} tiles without a spot are left out"]
    centres = np.asarray(measured.obsm["spatial"], np.float64)[[spots[names[row]] for row in rows]]
    found = _taken(tiles, rows)
    notes = [*(said if left or len(rows) < len(spots) else []), *_off_centre(found, centres)]
    return found, [names[row] for row in rows], notes


def _off_centre(tiles: TileVectors, centres: Float64[np.ndarray, "tile 2"]) -> list[str]:
    """Return a warning where spots are not at the centres of the tiles of their names."""
    distance = float(np.median(np.linalg.norm(tile_centres(tiles.boxes) - centres, axis=1)))
    side = float(np.median(tiles.boxes[:, 2]))
    if distance <= max(OFF_CENTRE * side, 2.0):
        return []
    return [
        f"spots are {distance:.1f} px (median) from the centres of the tiles of their names, which are {side:g} px "
        "wide: are these files of this section? Slides of Visium all have the same names of spots"
    ]


def scale_notes(slide: Slide | None, mpp: float, section_mpp: float | None, name: str) -> list[str]:
    """Return a warning where um/px contradicts that of the measured section; `slide` is None where it is not at hand.

    Raises SectionError where the slide's own um/px contradicts it, and the slide table gives none.
    """
    if slide is not None:
        return check_scale(slide, None if section_mpp is None else SectionScale(section_mpp, None))
    if section_mpp is None or abs(mpp / section_mpp - 1.0) <= MPP_TOLERANCE:
        return []
    return [
        f"{mpp:.4g} um/px is used for slide {name!r}, but its measured section has {section_mpp:.4g}: correct the "
        "column `mpp` of the slide table, or the tiles have a wrong side in um"
    ]


def _taken(tiles: TileVectors, rows: list[int]) -> TileVectors:
    values: dict[str, Any] = {"boxes": tiles.boxes[rows], "vectors": tiles.vectors[rows]}
    return TileVectors(**{**tiles.__dict__, **values, "spots": None})
