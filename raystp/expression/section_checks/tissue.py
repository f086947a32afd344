"""Which places are in tissue, and which spots were measured."""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool

from raystp.errors import SectionError, some
from raystp.expression.checks import check_values
from raystp.expression.readers.source import SectionSource
from raystp.expression.section_checks.raw import Notes, RawSection, note_dropped, rows_where, totals, warn

LEAST_UMI = 10.0
LEAST_SHARE = 0.05
"""Default of `min_counts`: the larger of 10 UMI and 5 % of the section's median. 20 of HER2ST's 36 sections hold 1 or 2
spots with fewer than 10 UMI, of which CP10k makes 9.2 of one UMI. Bins of 8 um with a hundred UMI stay."""
MANY_DROPPED = 0.10

_INSIDE = frozenset({"1", "1.0", "true", "t", "yes", "y", "in", "inside", "in tissue", "in_tissue", "tissue"})
_OUTSIDE = frozenset(
    {"0", "0.0", "false", "f", "no", "n", "out", "outside", "off", "off tissue", "off_tissue", "not in tissue"}
)
_EMPTY = frozenset({"", "nan", "none", "na", "n/a", "null", "<na>"})


def check_in_tissue(raw: RawSection, source: SectionSource, notes: Notes) -> RawSection:
    """Read the flag of each place as yes or no; absent or void flags mean that every place is in tissue."""
    stored = raw.places.in_tissue
    if stored is None:
        return raw
    words = [_word(value) for value in stored]
    known = [word for word in words if word not in _EMPTY]
    if not known:
        warn(notes, "in_tissue is empty for every spot: all spots are used")
        return replace(raw, places=replace(raw.places, in_tissue=None))
    strange = sorted({word for word in known if word not in _INSIDE | _OUTSIDE})
    if strange or len(known) < len(words):
        fault = f"has {some(strange)}" if strange else f"is empty for {len(words) - len(known)} of {len(words)} spots"
        msg = f"{source.origin}: in_tissue {fault}; expected 1 or 0, true or false, yes or no, for each spot"
        raise SectionError(msg)
    inside = [word in _INSIDE for word in words]
    if not any(inside):
        if not raw.flag_may_be_void:
            msg = (
                f"{source.origin}: none of its {len(words)} places is in tissue (the flag is 0 everywhere): check the "
                "tissue detection, or set the flag to 1 for the spots to use"
            )
            raise SectionError(msg)
        warn(notes, f"in_tissue is 0 for all {len(words)} spots, so it has no meaning here: all spots are used")
        return replace(raw, places=replace(raw.places, in_tissue=None))
    return replace(raw, places=replace(raw.places, in_tissue=list(inside)))


def in_tissue(raw: RawSection) -> Bool[np.ndarray, "place"]:
    """Return the checked flags."""
    flags = raw.places.in_tissue
    return np.ones(len(raw.places.names), bool) if flags is None else np.asarray(flags, bool)


def check_raw_counts(raw: RawSection, source: SectionSource, _notes: Notes) -> RawSection:
    """Refuse counts that are not finite, negative, or not whole; zeros are not stored."""
    counts = raw.counts.copy()
    counts.sum_duplicates()
    counts.eliminate_zeros()
    check_values(counts, raw.spots, raw.genes.names, source.origin)
    return replace(raw, counts=counts)


def drop_unmeasured(raw: RawSection, source: SectionSource, notes: Notes) -> RawSection:
    """Drop spots without a count, and those with fewer than `min_counts`; count them and their UMI.

    Raises SectionError where no spot is left.
    """
    depth = totals(raw.counts)
    note_dropped(notes, "empty", [raw.spots[row] for row in rows_where(depth == 0).tolist()])
    measured = depth[depth > 0]
    least = source.options.min_counts
    if least is None and measured.size:
        median = float(np.median(measured))
        least = max(LEAST_UMI, LEAST_SHARE * median)
    least = least or 0.0
    low = (depth > 0) & (depth < least)
    names = [raw.spots[row] for row in rows_where(low).tolist()]
    note_dropped(notes, "low_counts", names)
    if names:
        notes["dropped_low_counts_umi"] = float(depth[low].sum())
        notes["min_counts"] = least
    if measured.size and len(names) > MANY_DROPPED * measured.size:
        warn(
            notes, f"{len(names)} of {measured.size} spots have fewer than {least:g} UMI (min_counts) and are left out"
        )
    kept = rows_where((depth != 0) & ~low)
    if not kept.size:
        most = f"the most is {depth.max():g}" if depth.size else "there are no spots"
        msg = (
            f"{source.origin} has no spot left: of {len(depth)} spots in tissue, {int((depth == 0).sum())} have no "
            f"count and {len(names)} fewer than {least:g} UMI ({most}); lower min_counts, or set it to 0"
        )
        raise SectionError(msg)
    return replace(raw.take(kept), places=raw.places.take(kept))


def _word(value: object) -> str:
    """Return a flag as a lower-case word, without the marks of bytes, numbers and booleans."""
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return text.strip().strip("\"'").casefold()
