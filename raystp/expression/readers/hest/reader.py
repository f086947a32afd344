"""Parse HEST's `st/<id>.h5ad` (v1.1 to 1.3): an h5ad in scverse's form, with um/px in `metadata/<id>.json`.

The file itself has no um/px: HEST estimates it from the distances of spots (`pixel_size_um_estimated`). Its
`pixel_size_um_embedded` is often wrong, and is not read. Sections of Xenium and Visium HD are pooled to squares named
`003x004`. Those of Xenium keep control probes, which are left out and counted. Those of Visium HD have rows numbered
after the empty ones were dropped: `array_row` and `array_col` of pooled sections are no lattice, and are not used.
Some sections of Visium are of CytAssist, which may mirror the array, and no field of the file says which.
"""

import json
import re
from dataclasses import replace

from raystp.errors import SectionError
from raystp.expression.readers.files.controls import is_control
from raystp.expression.readers.files.values import number
from raystp.expression.readers.scverse import parse_scverse
from raystp.expression.readers.source import SectionSource
from raystp.expression.section_checks.genes import take_genes
from raystp.expression.section_checks.raw import LibraryFacts, Notes, RawSection
from raystp.storage import StoragePath
from raystp.storage.text_files import decode_text

MPP = "pixel_size_um_estimated"
POOLED_PITCHES = ("pooled Xenium", "pooled Visium HD")
"""Names of `KNOWN_PITCHES`."""
MAX_SIDECAR = 1 << 20
"""Bytes of a sample's JSON at most; they have about 1 KB."""

_POOLED = re.compile(r"^\d{3,}x\d{3,}$")
"""A square of a pooled section; spots of legacy ST are named without leading zeros, as `10x13`."""


def parse_hest(source: SectionSource, notes: Notes) -> RawSection:
    """Parse a section; raises SectionError as the layout `scverse`, and for a damaged JSON file beside it."""
    raw = _without_controls(parse_scverse(source, notes), source, notes)
    if raw.spots and all(_POOLED.match(name) for name in raw.spots):
        notes["pooled"] = "to squares by HEST"
        raw = replace(raw, places=replace(raw.places, array=None), pitches_of=POOLED_PITCHES)
    stored = _stored_mpp(source)
    facts_of = {name: _with_sidecar(facts, stored) for name, facts in raw.facts_of.items()}
    return replace(raw, facts_of=facts_of, facts=_with_sidecar(raw.facts, stored))


def sidecars(source: SectionSource) -> list[StoragePath]:
    """Return the JSON file of the sample, if it is there: `metadata/<id>.json` beside the folder of the h5ad."""
    name = f"{source.counts.name.removesuffix('.h5ad')}.json"
    path = source.counts.parent.parent / "metadata" / name
    return [path] if path.exists() else []


def _stored_mpp(source: SectionSource) -> tuple[str, float] | None:
    """Return where the um/px is stored and its value; None without the file, or where its value is null."""
    found = sidecars(source)
    if not found:
        return None
    path = found[0]
    size = path.size()
    try:
        if size > MAX_SIDECAR:
            msg = f"it has {size:,} bytes, and such a file has about 1,000"
            raise ValueError(msg)
        about = json.loads(decode_text(path.read_bytes(), str(path), SectionError))
        if not isinstance(about, dict):
            msg = f"it holds a {type(about).__name__}, not an object"
            raise TypeError(msg)
    except (ValueError, TypeError, RecursionError) as error:
        msg = f"{source.origin}: {path} is not HEST's JSON about a sample: {error}; remove it and give mpp"
        raise SectionError(msg) from None
    mpp = number(about.get(MPP))
    return None if mpp is None else (f"metadata/{path.name}", mpp)


def _with_sidecar(facts: LibraryFacts, stored: tuple[str, float] | None) -> LibraryFacts:
    """Return the facts with the um/px of the sidecar, where the file has none; the array may be mirrored."""
    return replace(facts, stored_mpp=facts.stored_mpp or stored, mirroring=True)


def _without_controls(raw: RawSection, source: SectionSource, notes: Notes) -> RawSection:
    kept = [column for column, name in enumerate(raw.genes.names) if not is_control(name)]
    dropped = len(raw.genes.names) - len(kept)
    if not dropped:
        return raw
    notes["dropped_controls"] = dropped
    if not kept:
        msg = f"{source.origin} has no genes: all of its {dropped} features are control probes"
        raise SectionError(msg)
    return replace(raw, counts=raw.counts[:, kept], genes=take_genes(raw.genes, kept))
