"""One line about a section that was read: its size, its pitch and um/px, and what was dropped."""

from raystp.expression.sections import SectionEntry

NEAREST_NOTED = 0.03
"""The median distance of nearest centres is printed too if it differs by more from the array's pitch: places jitter."""
DROPPED = {
    "dropped_off_tissue": "off tissue",
    "dropped_no_place": "without a position",
    "dropped_no_counts": "without counts",
    "dropped_empty": "empty",
    "dropped_outside_image": "outside of the image",
    "dropped_sparse_squares": "with too few counts and cells",
    "dropped_partial_squares": "less than half in tissue",
}
"""Note of a section -> the reason in words."""


def section_summary(entry: SectionEntry) -> str:
    """Return the line, without the section's name; the manifest's notes have all details."""
    notes = entry["notes"]
    parts = [f"{entry['spots']:,} spots x {entry['genes']:,} genes", _pitch(notes), _scale(entry["mpp"], notes)]
    dropped = [f"{notes[key]} {words}" for key, words in DROPPED.items() if notes.get(key)]
    if notes.get("dropped_low_counts"):
        total = f"{notes.get('dropped_low_counts_umi', 0):,.0f} UMI together"
        dropped.append(f"{notes['dropped_low_counts']} below {notes.get('min_counts', 0):g} UMI ({total})")
    parts.append(f"dropped {', '.join(dropped)}" if dropped else "")
    parts.append(f"{notes['dropped_features']} other features left out" if notes.get("dropped_features") else "")
    parts.append(f"{notes['dropped_controls']} control probes left out" if notes.get("dropped_controls") else "")
    parts.append(f"{notes['renamed_genes']} genes renamed" if notes.get("renamed_genes") else "")
    parts.append(f"counts from {notes['counts_from']}" if "counts_from" in notes else "")
    parts.append(f"pooled {notes['pooled']}" if "pooled" in notes else "")
    if "alignment_residual_um" in notes:
        off_um = f"{notes['alignment_residual_um']:.3g} um off (root mean square)"
        parts.append(f"H&E aligned by {notes['alignment_points']} points, {off_um}")
    return "; ".join(part for part in parts if part)


def _pitch(notes: dict[str, object]) -> str:
    if "pitch_um" not in notes:
        return "pitch unknown"
    like = f" (like {notes['pitch_like']})" if notes.get("pitch_like") else ""
    name = f" ({notes['technology']})" if notes.get("technology") else like
    mirrored = ", mirrored array" if notes.get("mirrored") else ""
    pitch, nearest = notes["pitch_um"], notes.get("nearest_um")
    differs = isinstance(nearest, float) and isinstance(pitch, float) and abs(nearest / pitch - 1) > NEAREST_NOTED
    median = f", median of nearest centres {nearest:.4g} um" if differs else ""
    return f"spots {pitch:.4g} um apart{name}{median}{mirrored}"


def _scale(mpp: float, notes: dict[str, object]) -> str:
    source = {"given": "given", "pitch": "by their pitch"}.get(str(notes.get("mpp_from")), str(notes.get("mpp_from")))
    by_pitch = notes.get("mpp_by_pitch")
    other = f", {by_pitch:.4f} by their pitch" if isinstance(by_pitch, float) and notes["mpp_from"] != "pitch" else ""
    return f"{mpp:.4f} um/px ({source}{other})"
