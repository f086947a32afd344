"""Read a 10x feature-barcode matrix: one HDF5 file, or three text files (matrix, features, barcodes)."""

import zlib
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import scipy.io
import scipy.sparse as sp

from raystp.errors import SectionError, some
from raystp.expression.hdf5 import checked_hdf5, max_declared_bytes
from raystp.storage import StoragePath

GENE_EXPRESSION = "Gene Expression"
H5_SUFFIX = "filtered_feature_bc_matrix.h5"


@dataclass(frozen=True)
class CountMatrix:
    """Counts of a section, genes only."""

    counts: sp.csr_matrix
    """Spots x genes."""
    barcodes: list[str]
    symbols: list[str]
    ids: list[str]
    other_features: int
    """Number of features left out because they are not gene expression (antibodies, probes)."""


def read_matrix(path: StoragePath, origin: str) -> CountMatrix:
    """Read counts from a file `*.h5`, a folder with three text files, or an `outs` folder that holds either."""
    if path.name.endswith(".h5"):
        return _read_h5(path, origin)
    names = path.names()
    if any(name in names for name in ("matrix.mtx", "matrix.mtx.gz")):
        return _read_mtx_folder(path, names, origin)
    h5_files = [name for name in names if name.endswith(H5_SUFFIX)]
    if len(h5_files) == 1:
        return _read_h5(path / h5_files[0], origin)
    if not h5_files and "filtered_feature_bc_matrix" in names:
        return read_matrix(path / "filtered_feature_bc_matrix", origin)
    msg = (
        f"{origin}: expected one *{H5_SUFFIX}, or matrix.mtx(.gz) with its features and barcodes, in {path}; "
        f"it {'is empty' if not names else 'has ' + some(names, 8)}"
    )
    raise SectionError(msg)


def _read_h5(path: StoragePath, origin: str) -> CountMatrix:
    with checked_hdf5(path) as local, h5py.File(local, "r") as file:
        try:
            group = file["matrix"]
            features = group["features"]
            genes, spots = (int(length) for length in group["shape"][:])
            # Stored by columns of genes x spots, which is the same as rows of spots x genes.
            counts = sp.csr_matrix((group["data"][:], group["indices"][:], group["indptr"][:]), shape=(spots, genes))
            counts.check_format(full_check=True)
            columns = {name: _strings(features[name]) for name in ("id", "name", "feature_type")}
            return _select_genes(counts, _strings(group["barcodes"]), columns)
        except (KeyError, ValueError, TypeError, AttributeError, OSError) as error:
            msg = f"{origin}: {path} is not a feature-barcode matrix of Space Ranger (version 2 or later): {error}"
            raise SectionError(msg) from None


def _read_mtx_folder(folder: StoragePath, names: list[str], origin: str) -> CountMatrix:
    paths = {role: _find_file(folder, names, role, origin) for role in ("matrix.mtx", "features.tsv", "barcodes.tsv")}
    try:
        with paths["matrix.mtx"].local() as local:
            _check_mtx_size(local, origin)
            counts = sp.csr_matrix(scipy.io.mmread(local).T)
        features, barcodes = _read_columns(paths["features.tsv"]), _read_columns(paths["barcodes.tsv"])
        kinds = features[2] if features.shape[1] > 2 else pd.Series(GENE_EXPRESSION, index=features.index)  # noqa: PLR2004 -- genes.tsv of old versions has two
        columns = {"id": features[0].tolist(), "name": features[1].tolist(), "feature_type": kinds.tolist()}
        return _select_genes(counts, barcodes[0].tolist(), columns)
    except (KeyError, ValueError, OverflowError, OSError, EOFError, zlib.error) as error:
        msg = f"{origin}: {folder} does not hold the matrix, features and barcodes of Space Ranger: {error}"
        raise SectionError(msg) from None


def _select_genes(counts: sp.csr_matrix, barcodes: list[str], features: dict[str, list[str]]) -> CountMatrix:
    """Keep the features that are genes; raises ValueError where the lengths do not fit."""
    lengths = (len(barcodes), *(len(values) for values in features.values()))
    if lengths != (counts.shape[0], *[counts.shape[1]] * len(features)):
        msg = f"{counts.shape[0]} spots x {counts.shape[1]} features, but {lengths[0]} barcodes and {lengths[1]} names"
        raise ValueError(msg)
    kept = np.flatnonzero(np.asarray(features["feature_type"]) == GENE_EXPRESSION)
    return CountMatrix(
        counts=counts if len(kept) == counts.shape[1] else counts[:, kept],
        barcodes=barcodes,
        symbols=[features["name"][column] for column in kept.tolist()],
        ids=[features["id"][column] for column in kept.tolist()],
        other_features=counts.shape[1] - len(kept),
    )


def _strings(dataset: h5py.Dataset) -> list[str]:
    return [text.decode() if isinstance(text, bytes) else str(text) for text in dataset[:].tolist()]


def _find_file(folder: StoragePath, names: list[str], role: str, origin: str) -> StoragePath:
    roles = [role, "genes.tsv"] if role == "features.tsv" else [role]
    found = [name for name in names if name.removesuffix(".gz") in roles]
    if not found:
        msg = f"{origin}: no {role}(.gz) beside the matrix in {folder}; there are {some(names, 8)}"
        raise SectionError(msg)
    return folder / found[0]


def _check_mtx_size(path: Path, origin: str) -> None:
    """Reject a header that declares more than the file can hold, before memory is allocated for it."""
    rows, columns, stored = (int(length) for length in scipy.io.mminfo(path)[:3])
    size = path.stat().st_size
    if 16 * stored + 8 * (rows + columns) > max_declared_bytes(size):
        msg = (
            f"{origin}: {path.name} declares {stored} values in {rows} x {columns} in a file of {size} "
            "bytes: a damaged or hostile file; it was not read"
        )
        raise SectionError(msg)


def _read_columns(path: StoragePath) -> pd.DataFrame:
    with path.local() as local:
        return pd.read_csv(local, sep="\t", header=None, dtype=str, keep_default_na=False)
