"""The distance between neighbouring spots in um, against those of the known technologies.

A wrong um/px shows here and nowhere else: .2 in place of .4167 puts the spots of Visium 48 um apart, and makes every
tile 2.1 times too wide. The pitch is that of the array where the files have one, else the median distance between
nearest centres. Without an array the lattice of the places tells Visium (hexagonal) from the others (square).
"""

from raystp.expression.readers.source import SectionSource
from raystp.expression.section_checks.lattice import lattice_shape, nearest_distance
from raystp.expression.section_checks.raw import Notes, RawSection, warn
from raystp.expression.section_checks.technology import KNOWN_PITCHES, KnownPitch, Technology

PITCH_TOLERANCE = 0.15
"""A pitch in um may differ from the technology's by this share before a warning."""


def find_pitch(
    raw: RawSection, source: SectionSource, technology: Technology | None, *, mpp: float, notes: Notes
) -> float:
    """Return the pitch in um at this um/px and note it; warn, with both numbers, where no technology has it."""
    nearest = nearest_distance(raw.places.xy)
    if nearest:
        notes["nearest_um"] = round(nearest * mpp, 2)
    stored = raw.stored_um.get("pitch_um")
    if technology is not None:
        return _of_technology(raw, technology, nearest, mpp=mpp, notes=notes)
    if not nearest:
        warn(notes, "the section has no two spots, so its pitch is unknown; 100 um is assumed")
        return stored or 100.0
    pitch = nearest * mpp
    notes["pitch_um"] = round(pitch, 2)
    if source.pitch_um is not None or stored:
        what = "of uns['raystp']" if source.pitch_um is None else "by pitch_um"
        _compare(pitch, source.pitch_um or stored or pitch, mpp, notes, what=what)
        return stored or pitch
    shape = lattice_shape(raw.places.xy)
    named = [one for one in KNOWN_PITCHES if one.name in raw.pitches_of]
    known = named or [one for one in KNOWN_PITCHES if shape in (one.lattice, None)]
    off, like = min((abs(pitch / length - 1), one.name) for one in known for length in one.um)
    if off <= PITCH_TOLERANCE:
        notes["pitch_like"] = like
    else:
        warn(notes, _other_pitch(pitch, mpp, named) if named else _unknown_pitch(pitch, mpp, shape, known))
    return pitch


def _of_technology(
    raw: RawSection, technology: Technology, nearest: float | None, *, mpp: float, notes: Notes
) -> float:
    """Return the pitch of a known technology; that of a legacy array follows a given um/px."""
    stored = raw.stored_um.get("pitch_um")
    if raw.lattice_pitch_px:
        pitch = raw.lattice_pitch_px * mpp * technology.pitch_um / technology.step_um
    elif nearest:
        pitch = nearest * mpp
    else:
        return stored or technology.pitch_um
    notes["pitch_um"] = round(pitch, 2)
    if not raw.lattice_pitch_px or not technology.mpp_wins:  # else the scales were compared before
        _compare(pitch, technology.pitch_um, mpp, notes, what=f"of {technology.name}")
    is_fixed = not technology.mpp_wins or notes["mpp_from"] == "pitch" or not raw.lattice_pitch_px
    return stored or (technology.pitch_um if is_fixed else pitch)


def _compare(pitch: float, known: float, mpp: float, notes: Notes, *, what: str) -> None:
    if _is_near(pitch, known):
        return
    warn(
        notes,
        f"spots are {pitch:.4g} um apart at {mpp:.4g} um/px; those {what} are {known:.4g} um apart, which is so at "
        f"{known / pitch * mpp:.4g} um/px: check mpp",
    )


def _is_near(pitch: float, length: float) -> bool:
    return abs(pitch / length - 1) <= PITCH_TOLERANCE


def _other_pitch(pitch: float, mpp: float, known: list[KnownPitch]) -> str:
    return (
        f"spots are {pitch:.4g} um apart at {mpp:.4g} um/px; expected by their files is {_lengths(known)} um: "
        "check mpp, and that the positions are in px of this image"
    )


def _unknown_pitch(pitch: float, mpp: float, shape: str | None, known: list[KnownPitch]) -> str:
    whose = "pooled Xenium's" if shape == "square" else "Visium's"
    would = f"at {100.0 / pitch * mpp:.4g} um/px it would be {whose} 100 um"
    if shape != "hexagonal":
        would += f", at {200.0 / pitch * mpp:.4g} um/px the 200 um of legacy ST"
    on_lattice, lengths = f" on a {shape} lattice" if shape else "", _lengths(known)
    return (
        f"spots are {pitch:.4g} um apart{on_lattice} at {mpp:.4g} um/px, as in no known technology ({lengths}): {would}"
        "; check mpp, and that the positions are in px of this image, or state the distance in the column pitch_um"
    )


def _lengths(known: list[KnownPitch]) -> str:
    return ", ".join(f"{one.name} {' or '.join(f'{length:.4g}' for length in one.um)}" for one in known)
