"""The um/px of a slide: whose word counts, and which words no microscope can have meant."""

from dataclasses import dataclass

from raystp.errors import SlideError
from raystp.units import MPP_RANGE, MicronsPerPixel, is_plausible

SQUARE_TOLERANCE = 0.01
"""Pixels whose um/px along x and y differ by more than 1 % are not square."""


@dataclass(frozen=True)
class SlideScale:
    """The um/px in force at level 0, and whose word it is: `table`, `slide` or `spots`."""

    mpp: MicronsPerPixel
    source: str


@dataclass(frozen=True)
class ScaleClaims:
    """What is said about a slide's um/px; None where nothing is."""

    given: float | None = None
    """The slide table's."""

    own: tuple[float, float] | None = None
    """The slide's own property, along x and y."""

    derived: float | None = None
    """What the pitch of the measured spots says."""


def in_force(where: str, claims: ScaleClaims) -> SlideScale:
    """Return the um/px that counts: the table's, else the slide's own, else the spots'.

    A word that counts is not passed over for being wrong: an implausible one is a SlideError that says what was seen.
    Raises SlideError too where there is none, or where the slide's own pixels are not square. `where` names the slide.
    """
    if claims.given is not None:
        return SlideScale(_plausible(where, claims.given, "the slide table gives"), "table")
    if claims.own is not None:
        across, down = (_plausible(where, mpp, "the slide itself claims") for mpp in claims.own)
        if abs(across / down - 1.0) > SQUARE_TOLERANCE:
            msg = (
                f"{where} claims {across:g} um/px along x and {down:g} along y: its pixels are not square; "
                "if it is wrong, give one um/px in the column `mpp` of the slide table"
            )
            raise SlideError(msg)
        return SlideScale(MicronsPerPixel((across + down) / 2.0), "slide")
    if claims.derived is not None:
        return SlideScale(_plausible(where, claims.derived, "the spots' pitch gives"), "spots")
    msg = f"{where} has no um/px of its own; give one in the column `mpp` of the slide table"
    raise SlideError(msg)


def _plausible(where: str, mpp: float, says: str) -> MicronsPerPixel:
    if is_plausible(mpp):
        return MicronsPerPixel(mpp)
    low, high = MPP_RANGE
    msg = (
        f"{where}: {says} {mpp:g} um/px, a scan has {low:g} to {high:g}; "
        "give the right one in the column `mpp` of the slide table"
    )
    raise SlideError(msg)
