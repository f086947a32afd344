"""Find the files of one bin size in the output of Space Ranger 3 and 4.

`outs/binned_outputs/square_008um/` has the matrix, and `spatial/` with the positions and the scale factors.
"""

from dataclasses import dataclass

from raystp.errors import RaystpError, SectionError, some
from raystp.expression.readers.files.folders import Found, find_role, refuse_packed, split_role
from raystp.expression.readers.source import SectionSource
from raystp.expression.readers.visium_hd.recognise import FOLDER, SEGMENTED
from raystp.storage import StoragePath

DEFAULT_BIN_UM = 8.0
MATRIX_ROLES = ("filtered_feature_bc_matrix.h5", "raw_feature_bc_matrix.h5")
POSITION_ROLES = ("tissue_positions.parquet",)
FACTORS_ROLE = "scalefactors_json.json"


@dataclass(frozen=True)
class BinFiles:
    """The files of one bin size."""

    matrix: StoragePath
    is_filtered: bool
    """Whether the matrix has only bins in tissue."""
    positions: StoragePath
    factors: StoragePath | None

    @property
    def folder_um(self) -> float | None:
        """The side of the bins by the name of their folder; None for another name."""
        match = FOLDER.match(self.matrix.parent.name)
        return float(match[1]) if match else None


def find_bins(source: SectionSource) -> BinFiles:
    """Return the files of the wanted bin size; raises SectionError, with what is there, where one is absent."""
    path = source.counts
    refuse_packed(path, source.origin)
    _refuse_segmented(path, source)
    if path.exists() and not path.is_folder():
        prefix = split_role(path.name, MATRIX_ROLES)
        if prefix is None:
            msg = f"{source.origin} is no matrix of bins: give *{MATRIX_ROLES[0]}, its folder square_*um, or outs"
            raise SectionError(msg)
        return _with_positions(Found(path, prefix), source)
    folder = _bin_folder(path, source)
    found = find_role(folder, folder.names(), MATRIX_ROLES, source)
    if found is None:
        msg = f"{source.origin}: no *{MATRIX_ROLES[0]} in {folder}; there are {some(folder.names(), 8)}"
        raise SectionError(msg)
    return _with_positions(found, source)


def files_of_bins(source: SectionSource) -> list[StoragePath]:
    """Return the files that are read; none where they are not found, and the section fails."""
    try:
        files = find_bins(source)
    except RaystpError:
        return []
    return [files.matrix, files.positions] + ([files.factors] if files.factors is not None else [])


def _refuse_segmented(path: StoragePath, source: SectionSource) -> None:
    if path.name.endswith(SEGMENTED):
        msg = (
            f"{source.origin} has segmented cells of Visium HD, which are not read as spots: give outs, binned_outputs "
            "or one square_*um, whose bins are pooled"
        )
        raise SectionError(msg)


def _bin_folder(path: StoragePath, source: SectionSource) -> StoragePath:
    """Return the folder of the wanted bin size in, or below, the given folder."""
    names = path.names()
    for inner in ("outs", "binned_outputs"):
        if inner in names:
            return _bin_folder(path / inner, source)
    sizes = [name for name in names if FOLDER.match(name)]
    if not sizes:
        return path
    wanted = source.options.bin_um or DEFAULT_BIN_UM
    name = f"square_{wanted:03.0f}um"
    if name not in sizes:
        msg = f"{source.origin}: no {name} in {path}; there are {some(sizes)}: set bin_um to the side of one of these"
        raise SectionError(msg)
    return path / name


def _with_positions(matrix: Found, source: SectionSource) -> BinFiles:
    given = source.positions
    if given is not None and not given.is_folder():
        given.size()
        if not given.name.endswith(".parquet"):
            msg = f"{source.origin}: {given} is no table of bins: give spatial/{POSITION_ROLES[0]}, or its folder"
            raise SectionError(msg)
        positions = Found(given, split_role(given.name, POSITION_ROLES) or "")
    else:
        positions = _find_positions(given or matrix.path.parent, matrix, source)
    folder = positions.path.parent
    names = (f"{positions.prefix}{FACTORS_ROLE}", f"{positions.prefix}{FACTORS_ROLE}.gz")
    factors = next((folder / name for name in names if name in folder.names()), None)
    return BinFiles(matrix.path, split_role(matrix.path.name, MATRIX_ROLES[:1]) is not None, positions.path, factors)


def _find_positions(folder: StoragePath, matrix: Found, source: SectionSource) -> Found:
    for candidate in (folder / "spatial", folder):
        found = find_role(candidate, candidate.names(), POSITION_ROLES, source)
        if found is not None:
            return found
    msg = (
        f"{source.origin}: no spatial/{POSITION_ROLES[0]} beside {matrix.path.name} in {folder}; there are "
        f"{some(folder.names(), 8) or 'no files'}: give its spatial folder in the column `positions`"
    )
    raise SectionError(msg)
