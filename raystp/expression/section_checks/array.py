"""Array coordinates against places: the technology, the pitch in px, and whether the image is mirrored."""

from dataclasses import replace

from raystp.errors import SectionError
from raystp.expression.readers.source import SectionSource
from raystp.expression.section_checks.lattice import SQUARE, ArrayFit, fit_array
from raystp.expression.section_checks.raw import Notes, RawSection, warn
from raystp.expression.section_checks.technology import Technology, looks_hexagonal, technology_of

MAX_STRAYS = 0.02
"""Share of spots that may be off their place on a Visium array, whose positions are computed and not detected."""


def fit_to_array(raw: RawSection, source: SectionSource, notes: Notes) -> RawSection:
    """Fit places to array coordinates; note whether the array is mirrored, and the technology.

    Raises SectionError where the places do not follow the array of a known technology, and for a mirrored Visium.
    """
    array = raw.places.array
    if array is None:
        return raw
    technology = raw.technology
    if technology is None:
        technology, fit = technology_of(array, raw.places.xy)
    else:
        fit = fit_array(array, raw.places.xy, technology.step)
    if fit is None:
        return raw
    exact = technology is not None or looks_hexagonal(array)
    if not fit.follows:
        if exact:
            raise SectionError(f"{source.origin}: {_off_the_array(fit)}")
        warn(notes, f"array_row and array_col are not used: {_off_the_array(fit)}")
        return replace(raw, places=replace(raw.places, array=None))
    if fit.strays > MAX_STRAYS * fit.spots and technology is not None:
        _report_strays(technology, fit, source, notes)
    if fit.stretched:
        warn(
            notes,
            f"the image is stretched: a step of the array is {fit.longer_px:.4g} px along one axis and "
            f"{fit.shorter_px:.4g} px along the other; um/px is between the two",
        )
    notes["mirrored"] = fit.mirrored
    if fit.mirrored:
        _report_mirrored(raw, technology, fit, source=source, notes=notes)
    if technology is None:
        return raw
    notes["technology"] = technology.name
    return replace(raw, technology=technology, lattice_pitch_px=raw.lattice_pitch_px or fit.pitch_px)


def fit_step_px(raw: RawSection) -> float | None:
    """Return the length of a step of a square array, in px."""
    if raw.places.array is None:
        return None
    fit = fit_array(raw.places.array, raw.places.xy, SQUARE)
    return None if fit is None else fit.pitch_px


def _off_the_array(fit: ArrayFit) -> str:
    return (
        f"the spots do not follow their array coordinates: a step is {fit.longer_px:.1f} px along one axis and "
        f"{fit.shorter_px:.1f} px along the other, spots are off by {fit.residual_px:.1f} px (root mean square); check "
        "the columns of the positions, and that places and array coordinates are of the same spots"
    )


def _report_strays(technology: Technology, fit: ArrayFit, source: SectionSource, notes: Notes) -> None:
    message = (
        f"{fit.strays} of {fit.spots} spots are over half a pitch from their place on the array: check that positions "
        "and array coordinates are of the same spots"
    )
    if technology.mpp_wins:  # positions of legacy spots are detected, or placed by hand
        warn(notes, message)
        return
    msg = f"{source.origin}: {message}"
    raise SectionError(msg)


def _report_mirrored(
    raw: RawSection, technology: Technology | None, fit: ArrayFit, *, source: SectionSource, notes: Notes
) -> None:
    """Raise SectionError where no instrument mirrors; else warn.

    Real outputs of Visium are rotated by any multiple of 90 degrees, never mirrored. CytAssist places the printed slide
    face to face with the tissue, and its arrays may be mirrored.
    """
    way = "array columns run along y" if fit.swapped else "array columns run along x"
    message = (
        f"the array is mirrored in the positions ({way}): x and y are swapped, the image is flipped, or row and column "
        "of the array are exchanged"
    )
    may_mirror = raw.facts.mirroring or technology is None or technology.mirrors
    if may_mirror or source.options.allow_mirrored:
        warn(notes, f"{message}; no error, since {'this array may be' if may_mirror else 'allow_mirrored is set'}")
        return
    name = technology.name if technology else "the array"
    msg = (
        f"{source.origin}: {message}. A scan of {name} is rotated, never mirrored: correct the positions, or set "
        "allow_mirrored=true if the image was flipped on purpose"
    )
    raise SectionError(msg)
