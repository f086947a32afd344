"""Parse Space Ranger's output (Visium: 55 um spots, 100 um apart): counts, tissue positions, scale factors.

Counts: `*filtered_feature_bc_matrix.h5`, the folder of the three text files, or the `outs` folder that holds either and
`spatial/`. Positions: `tissue_positions.csv` (with a header) or `tissue_positions_list.csv` (without), or parquet; the
pixel ROW comes before the pixel COLUMN. Each name may have a sample's prefix before it and `.gz` behind it, as in GEO.

um/px comes from the pitch of all spots of the array. `spot_diameter_fullres` is no measure of it: by that pitch it is
64.9 um in a real output (Vis5A of GSE161318), where the printed spot is 55 um. It is used as a cross-check only.
"""

import json

from raystp.errors import RaystpError, SectionError, some
from raystp.expression.readers.files.folders import Found, find_role, refuse_packed, split_role
from raystp.expression.readers.files.values import numbers
from raystp.expression.readers.matrices import CountMatrix, find_matrix, read_matrix
from raystp.expression.readers.source import SectionSource
from raystp.expression.readers.tissue_positions import read_tissue_positions
from raystp.expression.readers.visium_hd.recognise import refuse_bins, refuse_visium_hd
from raystp.expression.section_checks.join import suffix_libraries
from raystp.expression.section_checks.raw import LibraryFacts, Notes, RawGenes, RawSection
from raystp.expression.section_checks.technology import VISIUM
from raystp.storage import StoragePath
from raystp.storage.text_files import decode_text

POSITION_ROLES = (
    "tissue_positions.csv",
    "tissue_positions_list.csv",
    "tissue_positions.parquet",
    "tissue_positions_list.txt",
    "tissue_positions.tsv",
)
FACTORS_ROLE = "scalefactors_json.json"
MIRRORING_CHEMISTRY = ("cytassist", "visium v4", "visium v5")
MIRRORING_FILES = ("cytassist_image.tiff", "aligned_tissue_image.jpg")


def parse_space_ranger(source: SectionSource, notes: Notes) -> RawSection:
    """Parse a section; raises SectionError where a file is not of this layout, and for Visium HD."""
    refuse_visium_hd(source)
    matrix = read_matrix(source.counts, source)
    refuse_bins(matrix.barcodes, source)
    found, beside = _find_positions(source, matrix.found)
    places = read_tissue_positions(found.path, source.origin)
    refuse_bins(places.names, source)
    factors = _read_factors(found, beside, source)
    notes["counts_from"] = matrix.found.path.name
    return RawSection(
        counts=matrix.counts,
        spots=matrix.barcodes,
        genes=RawGenes(names=matrix.symbols, ids=matrix.ids, kinds=matrix.kinds),
        places=places,
        libraries=suffix_libraries(matrix.barcodes),
        technology=VISIUM,
        facts=LibraryFacts(factors=factors, mirroring=_may_mirror(matrix, beside)),
    )


def files_beside(source: SectionSource) -> list[StoragePath]:
    """Return the files that are read and found by their names: counts, positions, scale factors."""
    try:
        counts = find_matrix(source.counts, source)
        found, names = _find_positions(source, counts)
    except RaystpError:
        return []  # the section fails when it is read
    factors = _factors_file(found, names)
    return [counts.path, found.path] + ([factors] if factors is not None else [])


def read_factors(path: StoragePath) -> dict[str, float]:
    """Return scale factors that are numbers; null and text are left out."""
    try:
        values = json.loads(decode_text(path.read_bytes(), str(path), SectionError))
    except (ValueError, RecursionError) as error:
        msg = f"{path} is not a JSON object of scale factors: {error}"
        raise SectionError(msg) from None
    if not isinstance(values, dict):
        msg = f"{path} is not a JSON object of scale factors: it is a {type(values).__name__}"
        raise SectionError(msg)
    return numbers(values)


def find_in_spatial(path: StoragePath, source: SectionSource) -> tuple[Found, list[str]]:
    """Return the positions file that is given or is in the given folder, and the names beside it."""
    refuse_packed(path, source.origin)
    if not path.is_folder():
        path.size()
        prefix = split_role(path.name, POSITION_ROLES)
        return Found(path, prefix or ""), path.parent.names()
    names = path.names()
    found = find_role(path, names, POSITION_ROLES, source)
    if found is None and "spatial" in names:
        return find_in_spatial(path / "spatial", source)
    if found is None:
        msg = f"{source.origin}: no {' or '.join(POSITION_ROLES[:2])} in {path}; there are {some(names, 8)}"
        raise SectionError(msg)
    return found, names


def _find_positions(source: SectionSource, counts: Found) -> tuple[Found, list[str]]:
    """Return the given positions; else those in `spatial/` beside the counts, or with the same prefix beside them."""
    if source.positions is not None:
        return find_in_spatial(source.positions, source)
    folder = counts.path.parent
    for candidate in (folder, folder.parent):
        names = candidate.names()
        if "spatial" in names:
            return find_in_spatial(candidate / "spatial", source)
        same = [name for name in names if split_role(name, POSITION_ROLES) == counts.prefix]
        if same:
            return Found(candidate / same[0], counts.prefix), names
    files = " or ".join(POSITION_ROLES[:2])
    msg = f"{source.origin} has no positions: give its spatial folder, or the file {files} in it"
    raise SectionError(msg)


def _read_factors(found: Found, names: list[str], source: SectionSource) -> dict[str, float]:
    """Return the scale factors beside the positions, under the same prefix; none without the file."""
    path = _factors_file(found, names)
    factors = read_factors(path) if path is not None else {}
    if "bin_size_um" in factors:
        refuse_bins([f"s_{factors['bin_size_um']:03.0f}um_00000_00000-1"], source)
    return factors


def _factors_file(found: Found, names: list[str]) -> StoragePath | None:
    candidates = (f"{found.prefix}{FACTORS_ROLE}", f"{found.prefix}{FACTORS_ROLE}.gz")
    return next((found.path.parent / name for name in candidates if name in names), None)


def _may_mirror(matrix: CountMatrix, names: list[str]) -> bool:
    """Return whether the section is of CytAssist, which places the printed slide face to face with the tissue."""
    by_chemistry = any(word in matrix.chemistry.casefold() for word in MIRRORING_CHEMISTRY)
    return by_chemistry or any(name.endswith(MIRRORING_FILES) for name in names)
