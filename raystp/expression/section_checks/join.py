"""Which spots are meant, and which place belongs to which spot."""

import re
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from raystp.errors import SectionError, some
from raystp.expression.readers.source import SectionSource
from raystp.expression.section_checks.raw import LibraryFacts, Notes, RawSection, note_dropped, rows_where, warn
from raystp.expression.section_checks.tissue import in_tissue

ALL_LIBRARIES = "all"

WARN_LOST = 0.02
"""Share of spots without a partner from which there is a warning; HER2ST's sections lack 0 to 1.6 %."""

_SUFFIX = re.compile(r"^(.+)-(\d+)$")


def suffix_libraries(barcodes: list[str]) -> list[str] | None:
    """Return the suffix of each barcode where an aggregate has several (`-1`, `-2`); else None."""
    parts = [_SUFFIX.match(name) for name in barcodes]
    suffixes = [match[2] for match in parts if match]
    return suffixes if len(suffixes) == len(barcodes) and len(set(suffixes)) > 1 else None


def choose_library(raw: RawSection, source: SectionSource, notes: Notes) -> RawSection:
    """Keep the spots of the library on this slide: the given one, or the one named like the section or the slide.

    Raises SectionError, with the libraries, where none of these names is one of them.
    """
    named = list(dict.fromkeys(raw.libraries)) if raw.libraries is not None else []
    libraries = named or list(raw.facts_of)
    if not libraries:
        if source.library:
            warn(notes, f"library {source.library!r} is not used: the files name no library")
        return raw
    if source.library == ALL_LIBRARIES:
        warn(notes, f"the spots of all {len(libraries)} libraries ({some(libraries)}) are used as one section")
        return replace(raw, facts=_facts(raw, libraries[0], notes))
    chosen = _chosen(libraries, source)
    raw = replace(raw, facts=_facts(raw, chosen, notes))
    if len(libraries) == 1:
        return raw
    notes["library"] = chosen
    if raw.libraries is None:
        warn(notes, f"the file has {len(libraries)} libraries, but no column of obs that tells whose each spot is")
        return raw
    mask = np.asarray([library == chosen for library in raw.libraries], bool)
    notes["dropped_other_libraries"] = int((~mask).sum())
    kept = rows_where(mask)
    beside = raw.libraries if raw.own_places else suffix_libraries(raw.places.names) or [chosen]
    if chosen not in beside or len(beside) == 1:  # positions of one library, whatever suffix they have
        return raw.take(kept)
    there = np.asarray([library == chosen for library in beside], bool)
    return replace(raw.take(kept), places=raw.places.take(rows_where(there)))


def _chosen(libraries: list[str], source: SectionSource) -> str:
    wanted = [source.library] if source.library else [source.section, source.slide]
    chosen = next((library for name in wanted for library in libraries if _same(name, library)), None)
    if chosen is None and len(libraries) == 1 and not source.library:
        return libraries[0]
    if chosen is None:
        named = f"none is {source.library!r}" if source.library else "none has the name of the section or the slide"
        count = "1 library" if len(libraries) == 1 else f"{len(libraries)} libraries"
        msg = (
            f"{source.origin} has {count} ({some(libraries)}), and {named}: name the one on this slide in the column "
            "`library` of the slide table"
        )
        raise SectionError(msg)
    return chosen


def _facts(raw: RawSection, chosen: str, notes: Notes) -> LibraryFacts:
    """Return what the files state about a library; of others, only what all of them share."""
    facts = list(raw.facts_of.values())
    if not facts:
        return raw.facts
    if chosen in raw.facts_of:
        return raw.facts_of[chosen]
    if all(one == facts[0] for one in facts):
        return facts[0]
    warn(notes, f"scale factors are of {some(list(raw.facts_of))}, not of {chosen!r}: they are not used")
    return LibraryFacts()


def match_suffixes(raw: RawSection, source: SectionSource, notes: Notes) -> RawSection:
    """Compare barcodes without `-1`, `-2` where one side has none, or where the table chose that library.

    Barcodes are the same in every library, so a different suffix can mean another section: it is refused otherwise.
    """
    keys, places = raw.keys or raw.spots, raw.places.names
    if raw.own_places or not keys or not places or set(keys) & set(places):
        return raw
    bare_keys, suffix = _without_suffix(keys)
    bare_places, other = _without_suffix(places)
    if suffix == other or bare_keys is None or bare_places is None or not set(bare_keys) & set(bare_places):
        return raw
    if suffix and other and not (source.library and _same(source.library, suffix)):
        msg = (
            f"{source.origin}: barcodes of the counts end in -{suffix}, those of the positions in -{other}, so the "
            f"counts may be of another library: if they are of this one, set `library` to {suffix} in the slide table"
        )
        raise SectionError(msg)
    warn(notes, f"barcodes are compared without their suffix: counts have {keys[0]!r}, positions {places[0]!r}")
    return replace(raw, keys=bare_keys, places=replace(raw.places, names=bare_places))


def _without_suffix(names: list[str]) -> tuple[list[str] | None, str]:
    """Return names without their common suffix, and the suffix; no names where they have several suffixes."""
    parts = [_SUFFIX.match(name) for name in names]
    suffixes = {match[2] if match else "" for match in parts}
    if len(suffixes) != 1:
        return None, ""
    return [match[1] if match else name for match, name in zip(parts, names, strict=True)], suffixes.pop()


def check_names_once(raw: RawSection, source: SectionSource, _notes: Notes) -> RawSection:
    """Refuse a spot that is listed twice: which counts, or which place, are its own?"""
    for names, side in ((raw.keys or raw.spots, "counts"), (raw.places.names, "positions")):
        if len(set(names)) < len(names):
            duplicates = [name for name, count in Counter(names).items() if count > 1]
            msg = f"{source.origin} lists {len(duplicates)} spots more than once in its {side}: {some(duplicates)}"
            raise SectionError(msg)
    return raw


def join_places(raw: RawSection, source: SectionSource, notes: Notes) -> RawSection:
    """Join counts and places in tissue by name; the result has one place per spot, in the order of the counts.

    Raises SectionError where no name is on both sides, or where over `max_lost` of either side has no partner.
    """
    keys = raw.keys or raw.spots
    inside = in_tissue(raw)
    outside = {raw.places.names[row] for row in rows_where(~inside).tolist()}
    row_of = {raw.places.names[row]: row for row in rows_where(inside).tolist()}
    known = set(keys)
    both = [row for row, key in enumerate(keys) if key in row_of]
    off_tissue = [raw.spots[row] for row, key in enumerate(keys) if key in outside]
    no_place = [raw.spots[row] for row, key in enumerate(keys) if key not in row_of and key not in outside]
    no_counts = [name for name in row_of if name not in known]
    # A raw matrix has counts off tissue too; a filtered one has none, so there they are of another section.
    filtered = not raw.own_places and len(off_tissue) < len(outside) / 2
    lost = _Lost(off_tissue + no_place if filtered else no_place, no_counts, len(both))
    _check_lost(raw, source, lost, notes)
    note_dropped(notes, "off_tissue", off_tissue)
    note_dropped(notes, "no_place", no_place)
    note_dropped(notes, "no_counts", no_counts)
    places = raw.places.take(np.asarray([row_of[keys[row]] for row in both], np.int64))
    return replace(raw.take(np.asarray(both, np.int64)), places=replace(places, in_tissue=None), keys=None)


def check_positions_differ(raw: RawSection, source: SectionSource, _notes: Notes) -> RawSection:
    """Refuse spots that share a place: places that were never filled in, or several sections in one file."""
    inside = in_tissue(raw)
    for stored, kind in ((raw.places.xy, "position"), (raw.places.array, "array_row and array_col")):
        if stored is None:
            continue
        values = stored[inside]
        finite = values[np.isfinite(values).all(axis=1)]
        shared = len(finite) - len(np.unique(finite, axis=0))
        if shared > max(1.0, 0.02 * len(finite)):
            msg = (
                f"{source.origin}: {shared} of {len(finite)} spots have the same {kind} as another spot: the file "
                "holds several sections, or its positions are not filled in"
            )
            raise SectionError(msg)
    return raw


@dataclass(frozen=True)
class _Lost:
    """Spots without a partner, and the number of those with one."""

    counts: list[str]
    places: list[str]
    both: int


def _check_lost(raw: RawSection, source: SectionSource, lost: _Lost, notes: Notes) -> None:
    counts, places = lost.both + len(lost.counts), lost.both + len(lost.places)
    if counts and places and not lost.both:
        msg = (
            f"{source.origin}: no spot has both counts and a position in tissue; counts have "
            f"{some(lost.counts, 3)}, positions have {some(lost.places, 3)}: check that the two files belong to one "
            "section"
        )
        raise SectionError(msg)
    most = source.options.max_lost
    sides = (
        (lost.counts, counts, "spots with counts have no position in tissue"),
        (lost.places, places, "positions in tissue have no counts"),
    )
    for names, size, what in sides:
        fault = (
            f"{len(names)} of {size} {what} ({some(names, 3)}); {lost.both} spots have both, of {counts} with counts "
            f"and {places} positions in tissue"
        )
        if len(names) > max(most * size, 1.0):
            msg = (
                f"{source.origin}: {fault}: the two files are of different sections, or set max_lost (now {most:g}) to "
                "accept it"
            )
            raise SectionError(msg)
        if len(names) > WARN_LOST * size and not raw.own_places and len(names) > 1:
            warn(notes, fault)


def _same(name: str, library: str) -> bool:
    return name.strip().lstrip("-").casefold() == library.strip().lstrip("-").casefold()
