"""The two forms of a 10x feature-barcode matrix: one HDF5 file, or three text files."""

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import scipy.io
import scipy.sparse as sp

from raystp.errors import SectionError, some
from raystp.expression.hdf5 import ALLOWANCE, EXPANSION, checked_hdf5
from raystp.storage import StoragePath

GENE_EXPRESSION = "Gene Expression"
H5_ENDING = "filtered_feature_bc_matrix.h5"


@dataclass(frozen=True)
class CountMatrix:
    """Counts of a section, genes only."""

    counts: sp.csr_matrix
    """Spots x genes."""
    barcodes: list[str]
    symbols: list[str]
    ids: list[str]
    other_features: int
    """Features that were left out because they are not gene expression (antibodies, probes)."""


def read_matrix(place: StoragePath, where: str) -> CountMatrix:
    """Read the counts at a file `*.h5`, in a folder with the mtx triple, or in an `outs` folder that holds either."""
    if place.name.endswith(".h5"):
        return _read_h5(place, where)
    names = place.names()
    if any(name in names for name in ("matrix.mtx", "matrix.mtx.gz")):
        return _read_triple(place, names, where)
    within = [name for name in names if name.endswith(H5_ENDING)]
    if len(within) == 1:
        return _read_h5(place / within[0], where)
    if not within and "filtered_feature_bc_matrix" in names:
        return read_matrix(place / "filtered_feature_bc_matrix", where)
    msg = (
        f"{where}: wanted is one *{H5_ENDING}, or matrix.mtx(.gz) with its features and barcodes, in {place}; "
        f"there {'is nothing' if not names else 'are ' + some(names, 8)}"
    )
    raise SectionError(msg)


def _read_h5(place: StoragePath, where: str) -> CountMatrix:
    with checked_hdf5(place) as path, h5py.File(path, "r") as file:
        try:
            group = file["matrix"]
            features = group["features"]
            genes, spots = (int(length) for length in group["shape"][:])
            # Stored by columns of genes x spots, which is the same as rows of spots x genes.
            counts = sp.csr_matrix((group["data"][:], group["indices"][:], group["indptr"][:]), shape=(spots, genes))
            counts.check_format(full_check=True)
            texts = {name: _texts(features[name]) for name in ("id", "name", "feature_type")}
            return _of_genes(counts, _texts(group["barcodes"]), texts)
        except (KeyError, ValueError, TypeError, AttributeError, OSError) as error:
            msg = f"{where}: {place} is not a feature-barcode matrix of Space Ranger (version 2 or later): {error}"
            raise SectionError(msg) from None


def _read_triple(folder: StoragePath, names: list[str], where: str) -> CountMatrix:
    paths = {role: _only(folder, names, role, where) for role in ("matrix.mtx", "features.tsv", "barcodes.tsv")}
    try:
        with paths["matrix.mtx"].local() as path:
            _check_mtx(path, where)
            counts = sp.csr_matrix(scipy.io.mmread(path).T)
        features, barcodes = _read_columns(paths["features.tsv"]), _read_columns(paths["barcodes.tsv"])
        kinds = features[2] if features.shape[1] > 2 else pd.Series(GENE_EXPRESSION, index=features.index)  # noqa: PLR2004 -- genes.tsv of old has two
        texts = {"id": features[0].tolist(), "name": features[1].tolist(), "feature_type": kinds.tolist()}
        return _of_genes(counts, barcodes[0].tolist(), texts)
    except (KeyError, ValueError, OverflowError, OSError, EOFError, zlib.error) as error:
        msg = f"{where}: {folder} does not hold an mtx triple of Space Ranger: {error}"
        raise SectionError(msg) from None


def _of_genes(counts: Any, barcodes: list[str], features: dict[str, list[str]]) -> CountMatrix:
    """Keep the features that are genes; raises ValueError where the parts do not fit."""
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


def _texts(dataset: Any) -> list[str]:
    return [text.decode() if isinstance(text, bytes) else str(text) for text in dataset[:].tolist()]


def _only(folder: StoragePath, names: list[str], role: str, where: str) -> StoragePath:
    roles = [role, "genes.tsv"] if role == "features.tsv" else [role]
    found = [name for name in names if name.removesuffix(".gz") in roles]
    if not found:
        msg = f"{where}: no {role}(.gz) beside the matrix in {folder}; there are {some(names, 8)}"
        raise SectionError(msg)
    return folder / found[0]


def _check_mtx(path: Path, where: str) -> None:
    """Refuse a header that claims more than the file can hold, before anything is allocated for it."""
    rows, columns, stored = (int(length) for length in scipy.io.mminfo(path)[:3])
    limit = EXPANSION * path.stat().st_size + ALLOWANCE
    if 16 * stored + 8 * (rows + columns) > limit:
        msg = (
            f"{where}: {path.name} claims {stored} values in {rows} x {columns} in a file of {path.stat().st_size} "
            "bytes: a damaged or hostile file; it was not read"
        )
        raise SectionError(msg)


def _read_columns(place: StoragePath) -> pd.DataFrame:
    with place.local() as path:
        return pd.read_csv(path, sep="\t", header=None, dtype=str, keep_default_na=False)
