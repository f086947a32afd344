"""The um/px of a slide: which source counts, and which values are implausible."""

from dataclasses import dataclass

from raystp.errors import SlideError
from raystp.units import MPP_RANGE, MicronsPerPixel, is_plausible

SQUARE_TOLERANCE = 0.01
"""Pixels whose um/px along x and y differ by more than 1 % are not square."""


@dataclass(frozen=True)
class SlideScale:
    """The um/px at level 0, and its source: `table`, `slide` or `spots`."""

    mpp: MicronsPerPixel
    source: str
    own: float | None = None
    """The slide's own um/px, whichever source counts; None if it gives none, or an implausible one."""


@dataclass(frozen=True)
class ScaleSources:
    """The um/px that each source gives for a slide; None where it gives none."""

    given: float | None = None
    """From the slide table."""

    own: tuple[float, float] | None = None
    """From the slide's own properties, along x and y."""

    derived: float | None = None
    """From the pitch of the measured spots."""

    unused: float | None = None
    """From a tag that is not trusted: the dpi of an image that is no scan."""

    magnification: str | None = None
    """The objective, `20` for 20x: cameras differ, so it does not give the um/px."""


def resolve_scale(where: str, sources: ScaleSources) -> SlideScale:
    """Return the um/px of the first source that gives one: the table, the slide itself, the spots.

    A later source never replaces an implausible value of an earlier one. `where` names the slide in errors.

    Raises:
        SlideError: no source gives a um/px, the value is implausible, or the slide's pixels are not square.
    """
    own = _own_mpp(sources.own)
    if sources.given is not None:
        return SlideScale(_plausible(where, sources.given, "the slide table gives"), "table", own)
    if sources.own is not None:
        across, down = (_plausible(where, mpp, "the slide itself gives") for mpp in sources.own)
        if abs(across / down - 1.0) > SQUARE_TOLERANCE:
            msg = (
                f"{where} gives {across:g} um/px along x and {down:g} along y: its pixels are not square. "
                "If this is wrong, set one um/px in the column `mpp` of the slide table"
            )
            raise SlideError(msg)
        return SlideScale(MicronsPerPixel((across + down) / 2.0), "slide", own)
    if sources.derived is not None:
        return SlideScale(_plausible(where, sources.derived, "the spots' pitch gives"), "spots")
    if sources.unused is not None:
        msg = (
            f"{where} has no um/px of its own but a dpi tag, which would be {sources.unused:g} um/px and is often "
            "wrong; set the right value in the column `mpp` of the slide table"
        )
        raise SlideError(msg)
    if sources.magnification is not None:
        msg = (
            f"{where} has no um/px of its own, only an objective of {sources.magnification}x (20x is about 0.5 um/px); "
            "set the right value in the column `mpp` of the slide table"
        )
        raise SlideError(msg)
    msg = f"{where} has no um/px of its own; set the column `mpp` of the slide table"
    raise SlideError(msg)


def _own_mpp(own: tuple[float, float] | None) -> float | None:
    """Return the mean of a slide's own um/px along x and y; None if either is implausible."""
    return sum(own) / 2.0 if own is not None and all(is_plausible(mpp) for mpp in own) else None


def _plausible(where: str, mpp: float, source: str) -> MicronsPerPixel:
    if is_plausible(mpp):
        return MicronsPerPixel(mpp)
    low, high = MPP_RANGE
    msg = (
        f"{where}: {source} {mpp:g} um/px, but scans have {low:g} to {high:g}; "
        "set the right value in the column `mpp` of the slide table"
    )
    raise SlideError(msg)
