"""Read a 10x feature-barcode matrix: one HDF5 file, or three text files (matrix, features, barcodes)."""

import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import h5py
import scipy.io
import scipy.sparse as sp

from raystp.errors import SectionError, some
from raystp.expression.readers.files.folders import Found, find_role, refuse_packed, split_role
from raystp.expression.readers.files.values import single
from raystp.expression.readers.source import SectionSource
from raystp.expression.section_checks.genes import GENE_EXPRESSION
from raystp.expression.sparse import csr_of
from raystp.hdf5 import checked_hdf5, max_declared_bytes
from raystp.storage import StoragePath
from raystp.storage.text_files import decode_text

H5_ROLES = ("filtered_feature_bc_matrix.h5", "filtered_gene_bc_matrices_h5.h5", "raw_feature_bc_matrix.h5")
MTX_ROLES = ("matrix.mtx",)
HDF5 = (".h5", ".hdf5")
FOLDERS = ("filtered_feature_bc_matrix", "filtered_gene_bc_matrices", "raw_feature_bc_matrix", "outs")


@dataclass(frozen=True)
class CountMatrix:
    """Counts of all features."""

    found: Found
    """The file, and what its name has before Space Ranger's own."""
    counts: sp.csr_matrix
    """Spots x features."""
    barcodes: list[str]
    symbols: list[str]
    ids: list[str]
    kinds: list[str]
    """Feature types."""
    chemistry: str
    """What Space Ranger states about the slide, such as `Visium V4 Slide - FFPE v2`."""


def read_matrix(path: StoragePath, source: SectionSource) -> CountMatrix:
    """Read counts from a file `*.h5`, a matrix `*.mtx`, or a folder that holds either."""
    found = find_matrix(path, source)
    if found.path.name.endswith(HDF5):
        return _read_h5(found, source.origin)
    return _read_mtx(found, found.path.parent.names(), source)


def find_matrix(path: StoragePath, source: SectionSource) -> Found:
    """Return the file of the counts; raises SectionError, with what the folder has, where there is none."""
    refuse_packed(path, source.origin)
    if path.name.endswith(HDF5):
        return Found(path, split_role(path.name, H5_ROLES) or "")
    prefix = split_role(path.name, MTX_ROLES)
    if prefix is not None and not path.is_folder():
        return Found(path, prefix)
    if path.exists() and not path.is_folder():
        msg = f"{source.origin} is no matrix of Space Ranger: give *{H5_ROLES[0]}, matrix.mtx(.gz), or a folder"
        raise SectionError(msg)
    names = path.names()
    if found := find_role(path, names, MTX_ROLES, source) or find_role(path, names, H5_ROLES[:2], source):
        return found
    inner = next((name for name in FOLDERS if name in names), None)
    if inner is not None:
        return find_matrix(path / inner, source)
    if found := find_role(path, names, H5_ROLES, source):
        return found
    msg = (
        f"{source.origin}: expected one *{H5_ROLES[0]}, or matrix.mtx(.gz) with its features and barcodes, in {path}; "
        f"it {'is empty' if not names else 'has ' + some(names, 8)}"
    )
    raise SectionError(msg)


def _read_h5(found: Found, origin: str) -> CountMatrix:
    path = found.path
    with checked_hdf5(path, SectionError) as local, h5py.File(local, "r") as file:
        try:
            group = file["matrix"]
            features = group["features"]
            genes, spots = (int(length) for length in group["shape"][:])
            # Stored by columns of genes x spots, which is the same as rows of spots x genes.
            counts = csr_of(group["data"][:], group["indices"][:], group["indptr"][:], shape=(spots, genes))
            columns = [_strings(features[name]) for name in ("name", "id", "feature_type")]
            chemistry = str(single(file.attrs.get("chemistry_description", "")))
            return _matrix(found, counts, _strings(group["barcodes"]), columns, chemistry=chemistry)
        except (
            KeyError,
            ValueError,
            TypeError,
            AttributeError,
            OSError,
            IndexError,
            RuntimeError,
            OverflowError,
        ) as error:
            msg = f"{origin}: {path} is not a feature-barcode matrix of Space Ranger (version 2 or later): {error}"
            raise SectionError(msg) from None


def _read_mtx(found: Found, names: list[str], source: SectionSource) -> CountMatrix:
    folder, origin = found.path.parent, source.origin
    features = _columns(_beside(found, names, ("features.tsv", "genes.tsv"), origin))
    barcodes = _columns(_beside(found, names, ("barcodes.tsv",), origin))
    try:
        counts = _read_mtx_counts(found.path, origin)
        ids = [row[0] for row in features]
        symbols = [row[1] if len(row) > 1 else row[0] for row in features]
        kinds = [row[2] if len(row) > 2 else GENE_EXPRESSION for row in features]  # noqa: PLR2004 -- genes.tsv has two
        return _matrix(found, counts, [row[0] for row in barcodes], [symbols, ids, kinds], chemistry="")
    except (KeyError, ValueError, TypeError, IndexError, OverflowError, OSError, EOFError, zlib.error) as error:
        msg = f"{origin}: {folder} does not hold the matrix, features and barcodes of Space Ranger: {error}"
        raise SectionError(msg) from None


def _read_mtx_counts(path: StoragePath, origin: str) -> sp.csr_matrix:
    """Read the matrix, transposed to spots x features; scipy needs a name with its right ending."""
    with path.local() as local, tempfile.TemporaryDirectory() as folder:
        with local.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        link = Path(folder) / ("matrix.mtx.gz" if packed else "matrix.mtx")
        link.symlink_to(local.resolve())
        _check_mtx_size(link, path.name, origin)
        return sp.csr_matrix(scipy.io.mmread(link).T)


def _matrix(
    found: Found, counts: sp.csr_matrix, barcodes: list[str], columns: list[list[str]], *, chemistry: str
) -> CountMatrix:
    """Return the matrix; raises ValueError where the lengths do not fit."""
    symbols, ids, kinds = columns
    lengths = (len(barcodes), len(symbols), len(ids), len(kinds))
    if lengths != (counts.shape[0], *[counts.shape[1]] * 3):
        msg = f"{counts.shape[0]} spots x {counts.shape[1]} features, but {lengths[0]} barcodes and {lengths[1]} names"
        raise ValueError(msg)
    return CountMatrix(found, counts, barcodes, symbols, ids, kinds, chemistry)


def _strings(dataset: h5py.Dataset) -> list[str]:
    return [text.decode() if isinstance(text, bytes) else str(text) for text in dataset[:].tolist()]


def _beside(found: Found, names: list[str], roles: tuple[str, ...], origin: str) -> StoragePath:
    """Return the file of another role with the same prefix."""
    folder = found.path.parent
    for role in roles:
        for name in (f"{found.prefix}{role}", f"{found.prefix}{role}.gz"):
            if name in names:
                return folder / name
    msg = f"{origin}: no {found.prefix}{roles[0]}(.gz) beside the matrix in {folder}; there are {some(names, 8)}"
    raise SectionError(msg)


def _check_mtx_size(path: Path, name: str, origin: str) -> None:
    """Reject a header that declares more than the file can hold, before memory is allocated for it."""
    rows, columns, stored = (int(length) for length in scipy.io.mminfo(path)[:3])
    size = path.stat().st_size
    if 16 * stored + 8 * (rows + columns) > max_declared_bytes(size):
        msg = (
            f"{origin}: {name} declares {stored} values in {rows} x {columns} in a file of {size} "
            "bytes: a damaged or hostile file; it was not read"
        )
        raise SectionError(msg)


def _columns(path: StoragePath) -> list[list[str]]:
    """Return the tab-separated cells of each line."""
    text = decode_text(path.read_bytes(), str(path), SectionError)
    return [[cell.strip().strip('"') for cell in line.split("\t")] for line in text.split("\n") if line.strip()]
