"""Compare measured spots with the tissue: spots in tissue lie on tissue, or the picture is not the one of the spots.

A picture that was flipped, turned or shifted, positions with x and y swapped, and another section's picture all put
spots on bare glass. A section that fills its whole image has no glass to see this by.
"""

import numpy as np
from jaxtyping import Bool, Float64

from raystp.errors import SectionError
from raystp.slides.coordinates import Area
from raystp.slides.tissue.masks import TissueMask
from raystp.units import Level0Pixels

DOUBTFUL_GLASS = 0.05
"""Share of spots on bare glass above which a section gets a warning."""

BETTER = 1.0 / 3.0
"""Another orientation is named if it has less than this part of the spots that are on glass."""

DISC = np.array(
    [(0.0, 0.0)]
    + [
        (reach * np.cos(angle), reach * np.sin(angle))
        for reach in (0.5, 1.0)
        for angle in np.linspace(0.0, 2.0 * np.pi, 8, endpoint=False)
    ]
)
"""Points of a disc of radius 1: its centre, and eight on each of two circles."""


def check_on_tissue(
    tissue: TissueMask,
    centres: Float64[np.ndarray, "spot 2"],
    diameter: Level0Pixels,
    *,
    slide: Area,
    allow_glass: float,
) -> list[str]:
    """Return a warning if some of the measured spots are on bare glass, with the orientation that fits better.

    A spot is on bare glass if no part of its disc is on tissue: detected, or in the user's mask.

    Raises:
        SectionError: more than `allow_glass` of the spots are on bare glass.
    """
    if not len(centres):
        return []
    ground = tissue.detected | tissue.mask
    share = glass_share(ground, tissue.area, centres, diameter)
    if share <= min(DOUBTFUL_GLASS, allow_glass):
        return []
    doubt = f"{share:.0%} of the {len(centres)} spots are on bare glass"
    if not ground.any():
        doubt += ": no tissue is found on the slide; the image is empty, grey or not H&E"
        remedy = "Give an RGB image of the section, or a mask (`masks`)"
    else:
        doubt += _hint(tissue, centres, diameter, slide)
        remedy = (
            "The picture is flipped, mirrored, shifted, has x and y swapped, or is another section's: give the picture "
            "that the positions were measured on. If the section has spots beside the tissue, raise allow_glass"
        )
    if share <= allow_glass:
        return [doubt]
    msg = f"{doubt}; allow_glass={allow_glass:g} is allowed. {remedy}"
    raise SectionError(msg)


def glass_share(
    tissue: Bool[np.ndarray, "row col"], area: Area, centres: Float64[np.ndarray, "spot 2"], diameter: Level0Pixels
) -> float:
    """Return the share of spots without tissue under their disc; `tissue` covers `area`, and all else is glass."""
    rows, columns = tissue.shape
    on_tissue = np.zeros(len(centres), np.bool_)
    for offset in DISC * (diameter / 2.0):
        column = np.floor((centres[:, 0] + offset[0] - area.x) * (columns / area.width))
        row = np.floor((centres[:, 1] + offset[1] - area.y) * (rows / area.height))
        inside = np.flatnonzero((column >= 0) & (column < columns) & (row >= 0) & (row < rows))
        on_tissue[inside] |= tissue[row[inside].astype(np.int64), column[inside].astype(np.int64)]
    return float(1.0 - on_tissue.mean())


def orientations(centres: Float64[np.ndarray, "spot 2"], slide: Area) -> dict[str, Float64[np.ndarray, "spot 2"]]:
    """Return where the spots would be if the picture was turned or mirrored, or x and y were swapped."""
    x, y = centres[:, 0], centres[:, 1]
    across, down = slide.width - x, slide.height - y
    turned_across, turned_down = slide.width - y, slide.height - x
    places = {
        "if the picture is mirrored left to right": (across, y),
        "if the picture is flipped top to bottom": (x, down),
        "if the picture is turned by 180 degrees": (across, down),
        "with x and y swapped": (y, x),
        "if the picture is turned by 90 degrees clockwise": (turned_across, x),
        "if the picture is turned by 90 degrees anticlockwise": (y, turned_down),
        "with x and y swapped and the picture turned by 180 degrees": (turned_across, turned_down),
    }
    return {name: np.stack(place, axis=1) for name, place in places.items()}


def _hint(tissue: TissueMask, centres: Float64[np.ndarray, "spot 2"], diameter: Level0Pixels, slide: Area) -> str:
    """Return the orientation with clearly fewer spots on glass, as the end of a sentence; empty if there is none."""
    others = orientations(centres, slide)
    if any(tissue.area.origin):
        others["if the positions start at the slide's bounds"] = centres + tissue.area.origin
    ground = tissue.detected | tissue.mask
    share = glass_share(ground, tissue.area, centres, diameter)
    shares = {name: glass_share(ground, tissue.area, place, diameter) for name, place in others.items()}
    best = min(shares, key=shares.__getitem__)
    return f"; {best} it is {shares[best]:.0%}" if shares[best] < BETTER * share else ""
