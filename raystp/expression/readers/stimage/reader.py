"""Parse a section of STimage-1K4M: `<tech>/coord/<slide>_coord.csv` and `<tech>/gene_exp/<slide>_count.csv`.

Places have a row per spot, named `<slide>_<spot>`, with the columns `yaxis`, `xaxis` (y first) and `r`, in px of the
image. Counts have a row per spot and a column per gene. um/px is stated nowhere: it is the radius of the technology's
spots in um, divided by `r`, and the pitch is compared with the technology's. The technology is the name of the folder
(`Visium`, `ST` or `VisiumHD`), else the lattice of the places tells Visium from ST.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from raystp.errors import SectionError, some
from raystp.expression.readers.files.delimited import read_cells, to_numbers
from raystp.expression.readers.files.folders import refuse_packed
from raystp.expression.readers.source import SectionSource
from raystp.expression.readers.stimage.counts import read_count_table
from raystp.expression.section_checks.lattice import lattice_shape
from raystp.expression.section_checks.raw import LibraryFacts, Notes, RawGenes, RawPlaces, RawSection, warn
from raystp.expression.section_checks.technology import VISIUM
from raystp.storage import StoragePath

RADIUS_UM = {"Visium": 27.5, "ST": 50.0}
"""Radius of a spot by technology; a bin of Visium HD has none."""
PITCHES_OF = {"ST": ("legacy ST",), "VisiumHD": ("bins of Visium HD",)}
"""Names of `KNOWN_PITCHES`."""
TECHNOLOGIES = (*RADIUS_UM, "VisiumHD")
COLUMNS = ("yaxis", "xaxis", "r")
COUNTS_END, PLACES_END = "_count.csv", "_coord.csv"
EQUAL_RADII = 0.01
"""Radii of one section that differ by more get a warning."""


@dataclass(frozen=True)
class _Places:
    places: RawPlaces
    radius_px: float
    spread: float
    """Largest radius over smallest, less 1."""


def parse_stimage(source: SectionSource, notes: Notes) -> RawSection:
    """Parse a section; raises SectionError where a file is not of this layout, or its radius is no number above 0."""
    refuse_packed(source.counts, source.origin)
    table = read_count_table(source.counts, source.origin)
    notes["counts_from"] = source.counts.name
    found = _read_places(_places_file(source), source.origin)
    if found.spread > EQUAL_RADII:
        warn(
            notes, f"the radius r of its spots differs by {found.spread:.1%}; the median, {found.radius_px:g}, is used"
        )
    technology = _technology(source, found.places.xy, notes)
    radius_um = RADIUS_UM.get(technology or "")
    stored = None if radius_um is None else (f"radius r of {technology}, {radius_um:g} um", radius_um / found.radius_px)
    is_visium = technology == "Visium"  # whose spots are known to be 55 um across
    return RawSection(
        counts=table.counts,
        spots=table.spots,
        genes=RawGenes(names=table.genes),
        places=found.places,
        technology=VISIUM if is_visium else None,
        pitches_of=PITCHES_OF.get(technology or "", ()),
        facts=LibraryFacts({} if is_visium else {"spot_diameter_fullres": 2 * found.radius_px}, stored),
    )


def files_beside_counts(source: SectionSource) -> list[StoragePath]:
    """Return the file of places, where the slide table does not give it."""
    if source.positions is not None or not source.counts.name.endswith(COUNTS_END):
        return []
    return [_places_beside(source.counts)]


def _places_file(source: SectionSource) -> StoragePath:
    if source.positions is not None:
        refuse_packed(source.positions, source.origin)
        return source.positions
    if not source.counts.name.endswith(COUNTS_END):
        msg = (
            f"{source.origin}: {source.counts.name} does not end in {COUNTS_END}, so its places are not found by its "
            f"name: give the file *{PLACES_END} in the column `positions`"
        )
        raise SectionError(msg)
    return _places_beside(source.counts)


def _places_beside(counts: StoragePath) -> StoragePath:
    return counts.parent.parent / "coord" / f"{counts.name.removesuffix(COUNTS_END)}{PLACES_END}"


def _read_places(path: StoragePath, origin: str) -> _Places:
    cells = read_cells(path, COLUMNS, f"a table of places ({', '.join(COLUMNS)})", origin)
    header = cells.header or []
    absent = [name for name in COLUMNS if name not in header]
    if absent:
        msg = f"{origin}: {path} has no column {some(absent)}; it has {some(header or cells.rows[0], 8)}"
        raise SectionError(msg)
    y, x, radius = (to_numbers(cells.column(name), name, path, origin) for name in COLUMNS)
    names = cells.column(next(name for name in header if name not in COLUMNS)) if len(header) > len(COLUMNS) else []
    if not names:
        msg = f"{origin}: {path} does not name its spots: expected their names in the first column"
        raise SectionError(msg)
    if not (np.isfinite(radius).all() and (radius > 0).all()):
        bad = radius[~(np.isfinite(radius) & (radius > 0))]
        msg = f"{origin}: {path} has the radius r {bad[0]:g}; expected px above 0 for each spot"
        raise SectionError(msg)
    spread = float(radius.max() / radius.min() - 1)
    return _Places(RawPlaces(names, np.column_stack([x, y])), float(np.median(radius)), spread)


def _technology(source: SectionSource, xy: Float64[np.ndarray, "spot 2"], notes: Notes) -> str | None:
    """Return the technology by the folder, else by the lattice; None where neither tells."""
    folder = source.counts.parent.parent.name.casefold()
    named = next((name for name in TECHNOLOGIES if name.casefold() == folder), None)
    if named is None:
        named = {"hexagonal": "Visium", "square": "ST"}.get(lattice_shape(xy) or "")
        if named:
            warn(
                notes, f"its folder is not named {' or '.join(TECHNOLOGIES)}: by the lattice of its spots it is {named}"
            )
    return named
