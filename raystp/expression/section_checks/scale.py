"""um/px of the positions, pitch in um, and spot diameter: three facts that must agree."""

from dataclasses import replace

from raystp.errors import SectionError
from raystp.expression.readers.source import SectionSource
from raystp.expression.section_checks.lattice import nearest_distance
from raystp.expression.section_checks.pitch import find_pitch
from raystp.expression.section_checks.raw import Notes, RawSection, Scale, warn
from raystp.expression.section_checks.technology import Technology
from raystp.units import is_plausible

MPP_TOLERANCE = 0.10
"""A given um/px and the one from the spots' pitch may differ by this share; beyond, one of them is wrong."""
MPP_NOTED = 0.03
"""From this difference on, a warning names both."""
DRAWN_UM = (50.0, 72.0)
"""Range of a Visium spot of `spot_diameter_fullres`, in um: 65 in Space Ranger's files, 55 in some converters'."""
MIN_DIAMETER = 0.4
"""Smallest spot diameter in pitches before a warning: 0.55 to 0.65 for Visium, 0.5 to 0.7 for legacy ST."""
MAX_DIAMETER = 1.10
"""Largest spot diameter in pitches: bins touch, printed spots do not; the pitch of detected spots is biased."""


def resolve_scale(raw: RawSection, source: SectionSource, notes: Notes) -> RawSection:
    """Find um/px (given, stored, or by the pitch), the pitch in um, and the spot diameter; note all three.

    Raises SectionError where um/px is unknown or implausible, or where it contradicts the array of Visium.
    """
    technology = _with_given_pitch(raw, source, notes)
    by_pitch = None
    if technology is not None and raw.lattice_pitch_px:
        by_pitch = technology.step_um / raw.lattice_pitch_px
        notes["mpp_by_pitch"] = by_pitch
    mpp = _choose_mpp(raw, source, by_pitch, notes)
    _compare_with_pitch(mpp, by_pitch, technology, source=source, notes=notes)
    pitch_um = find_pitch(raw, source, technology, mpp=mpp, notes=notes)
    diameter_um = _spot_diameter_um(raw, technology, mpp, pitch_um, notes=notes)
    scale = Scale(mpp, pitch_um, diameter_um)
    raw = replace(raw, technology=technology, scale=scale)
    _check_drawn_diameter(raw, source, notes)
    return raw


def _with_given_pitch(raw: RawSection, source: SectionSource, notes: Notes) -> Technology | None:
    technology, given = raw.technology, source.pitch_um
    if technology is None or given is None:
        return technology
    if abs(given / technology.pitch_um - 1) > MPP_NOTED:
        warn(
            notes,
            f"pitch_um {given:g} is given and used; the array looks like {technology.name}, whose spots are "
            f"{technology.pitch_um:.4g} um apart",
        )
    share = given / technology.pitch_um
    return replace(technology, step_um=technology.step_um * share, pitch_um=given)


def _choose_mpp(raw: RawSection, source: SectionSource, by_pitch: float | None, notes: Notes) -> float:
    by_given_pitch = None
    nearest = nearest_distance(raw.places.xy)
    if by_pitch is None and source.pitch_um is not None and nearest:
        by_given_pitch = source.pitch_um / nearest
    known = [
        ("given", source.mpp),
        ("pitch_um", by_given_pitch),
        raw.facts.stored_mpp or ("", None),
        ("pitch", by_pitch),
    ]
    origin, mpp = next(((name, value) for name, value in known if value is not None), ("", None))
    if mpp is None:
        msg = (
            f"{source.origin}: um/px is unknown: the files have none, and spots without array coordinates, too few "
            "spots, or spots on one line have no known pitch; give mpp, the um per pixel of the image the spots are on"
        )
        raise SectionError(msg)
    notes["mpp_from"] = origin
    if not is_plausible(mpp):
        msg = f"{source.origin} has an implausible {mpp:.6g} um/px ({origin}): give mpp"
        raise SectionError(msg)
    stored = raw.facts.stored_mpp
    if stored is not None and origin in ("given", "pitch_um") and abs(stored[1] / mpp - 1) > MPP_NOTED:
        warn(notes, f"mpp {mpp:.4g} ({origin}) is used; the file has {stored[1]:.4g} um/px ({stored[0]})")
    return float(mpp)


def _compare_with_pitch(
    mpp: float, by_pitch: float | None, technology: Technology | None, *, source: SectionSource, notes: Notes
) -> None:
    if by_pitch is None or technology is None or abs(mpp / by_pitch - 1) <= MPP_NOTED:
        return
    pitch = technology.pitch_um * mpp / by_pitch
    origin = notes["mpp_from"]
    stated = f"mpp {mpp:.4g} was given" if origin == "given" else f"um/px is {mpp:.4g} ({origin})"
    contradiction = (
        f"{stated}, but the spots' pitch gives {by_pitch:.4g} um/px: spots of {technology.name} are "
        f"{technology.pitch_um:.4g} um apart, and these would be {pitch:.4g} um apart"
    )
    if technology.mpp_wins or abs(mpp / by_pitch - 1) <= MPP_TOLERANCE:
        warn(notes, f"{contradiction}; {mpp:.4g} is used")
        return
    msg = (
        f"{source.origin}: {contradiction}. Positions must be in pixels of the full-resolution image, and mpp must be "
        "that image's (for a picture of Space Ranger, set image=hires)"
    )
    raise SectionError(msg)


def _spot_diameter_um(
    raw: RawSection, technology: Technology | None, mpp: float, pitch_um: float, *, notes: Notes
) -> float:
    stored = raw.stored_um.get("spot_diameter_um")
    if stored:
        notes["spot_diameter_from"] = "uns['raystp']"
        return stored
    if technology is not None:
        notes["spot_diameter_from"] = "technology"
        return technology.spot_um
    drawn = raw.facts.factors.get("spot_diameter_fullres")
    notes["spot_diameter_from"] = "scalefactors" if drawn else "half the pitch"
    return drawn * mpp if drawn else pitch_um / 2


def _check_drawn_diameter(raw: RawSection, source: SectionSource, notes: Notes) -> None:
    """Compare `spot_diameter_fullres` with the pitch, and with the printed spot where the technology is known."""
    drawn_px = raw.facts.factors.get("spot_diameter_fullres")
    assert raw.scale is not None
    if not drawn_px or raw.stored_um:
        return
    drawn = drawn_px * raw.scale.mpp
    notes["scalefactors_spot_diameter_um"] = drawn
    known = raw.technology is not None and raw.technology.name == "Visium"
    least, most = DRAWN_UM
    if known and not least <= drawn <= most:
        msg = (
            f"{source.origin}: a spot of the scale factors is {drawn:.1f} um across at {raw.scale.mpp:.4g} um/px "
            f"({notes['mpp_from']}), not {least:g} to {most:g}: positions and scale factors belong to different images"
        )
        raise SectionError(msg)
    pitch_px = raw.lattice_pitch_px or nearest_distance(raw.places.xy)
    if pitch_px and raw.technology is None and drawn_px < MIN_DIAMETER * pitch_px:
        warn(
            notes,
            f"spots of {drawn:.1f} um across are {pitch_px * raw.scale.mpp:.1f} um apart, as in no known technology: "
            "positions and scale factors may be of different images",
        )
    if pitch_px and drawn_px > MAX_DIAMETER * pitch_px:
        msg = (
            f"{source.origin}: spots of {drawn:.1f} um across (spot_diameter_fullres) cannot be "
            f"{pitch_px * raw.scale.mpp:.1f} um apart: the positions are not in px of the full-resolution image"
        )
        raise SectionError(msg)
