"""The um/px of image patches, and of the slide that they were cut from.

With both attributes the file itself gives them. The column `mpp` of the slide table may then state either again. Of a
file without them `mpp` is the um/px of the images, since nothing else is known of it.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from raystp.errors import SlideError
from raystp.slides.patches.header import MPP, SIDE, PatchHeader
from raystp.slides.readers.scale import ScaleSources, SlideScale, resolve_scale
from raystp.units import Level0Pixels, MicronsPerPixel

TOLERANCE = 0.03
"""Two sources of a um/px may differ by this share, as for slides."""


@dataclass(frozen=True)
class PatchScale:
    """The um/px of level 0 and its source, and the side of a patch in level-0 px."""

    level0: SlideScale
    side: Level0Pixels
    warnings: tuple[str, ...] = ()

    def patch_mpp(self, px: int) -> MicronsPerPixel:
        """Return the um/px of images of `px` px."""
        return MicronsPerPixel(self.level0.mpp * self.side / px)


def patch_scale(where: str, header: PatchHeader, sources: ScaleSources) -> PatchScale:
    """Return the scale of patches by the file and the slide table; `where` names the file in errors.

    Raises:
        SlideError: the file has no um/px and the table has none, a value is implausible, or they contradict each other.
    """
    given = sources.given
    if header.side is not None and header.mpp is not None:
        return _of_file(where, header, header.side, given)
    if given is None:
        msg = (
            f"{where}: its images have no attribute {' and no '.join(header.missing)}, so their um/px is not known; "
            f"set the column `mpp` of the slide table to the um/px of the patches (HEST's have 0.5)"
        )
        raise SlideError(msg)
    resolve_scale(where, ScaleSources(given=given))  # refuses an implausible one
    if header.side is not None:
        return PatchScale(_resolved(where, given * header.px / header.side), Level0Pixels(header.side))
    if header.mpp is not None:
        level0 = resolve_scale(where, ScaleSources(own=(header.mpp, header.mpp)))
        return PatchScale(level0, Level0Pixels(header.px * given / header.mpp))
    warning = (
        f"its images have no attribute {SIDE} and no {MPP}: corners are taken as px of {given:g} um/px, the patches' "
        "own, so distances between them may be wrong by one factor"
    )
    return PatchScale(_resolved(where, given), Level0Pixels(float(header.px)), (warning,))


def _of_file(where: str, header: PatchHeader, side: float, given: float | None) -> PatchScale:
    """Return the scale of a file that gives its own; the slide table may state it again."""
    own, of_images = header.mpp, header.patch_mpp
    assert own is not None  # the caller's condition
    assert of_images is not None
    level0 = resolve_scale(where, ScaleSources(own=(own, own)))
    if given is not None and not (is_close(given, own) or is_close(given, of_images)):
        msg = (
            f"{where}: the slide table gives {given:g} um/px, and the file has {of_images:.4g} um/px for its patches, "
            f"cut from a slide of {own:.4g} um/px; correct the column `mpp`, or leave it empty"
        )
        raise SlideError(msg)
    return PatchScale(level0, Level0Pixels(side))


def scale_by_spots(
    where: str, px: int, offsets: Float64[np.ndarray, "patch 2"], *, given: float, section_mpp: float
) -> PatchScale:
    """Return the scale of patches of `px` px without attributes, from their spots.

    `offsets` are the spots' centres minus the corners, in level-0 px. A spot is at the centre of its patch, so the side
    is twice the median offset.

    Raises:
        SlideError: no side follows, or `given` is neither the um/px of the images nor of the section.
    """
    side = round(2.0 * float(np.median(offsets)))
    if side < 1 or np.ptp(np.median(offsets, axis=0)) > TOLERANCE * side + 1.0:
        across, down = np.median(offsets, axis=0).tolist()
        msg = (
            f"{where}: spots are {across:.1f} px right of the corners of their patches and {down:.1f} px below them, "
            "so they are not at the patches' centres: is this the file of this section?"
        )
        raise SlideError(msg)
    of_images = section_mpp * side / px
    if not (is_close(given, of_images) or is_close(given, section_mpp)):
        msg = (
            f"{where}: the slide table gives {given:g} um/px; by the spots a patch is {side} px wide at "
            f"{section_mpp:.4g} um/px, so its images have {of_images:.4g}; correct the column `mpp`"
        )
        raise SlideError(msg)
    return PatchScale(SlideScale(MicronsPerPixel(section_mpp), "spots"), Level0Pixels(float(side)))


def is_close(mpp: float, other: float) -> bool:
    """Return whether two um/px agree; see `TOLERANCE`."""
    return abs(mpp / other - 1.0) <= TOLERANCE


def _resolved(where: str, mpp: float) -> SlideScale:
    return resolve_scale(where, ScaleSources(given=mpp))
