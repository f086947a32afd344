"""Find the raw counts of an h5ad: a layer, `X`, or `.raw`, whichever holds whole numbers."""

from collections.abc import Iterator

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from raystp.errors import SectionError, some
from raystp.expression.checks import check_values
from raystp.expression.readers.source import SectionSource
from raystp.expression.section_checks.genes import ID_COLUMNS, SYMBOL_COLUMNS
from raystp.expression.section_checks.raw import Notes, RawGenes, warn

COUNTS_LAYER = "counts"
KIND_COLUMNS = ("feature_types", "feature_type")


def find_counts(adata: ad.AnnData, source: SectionSource, notes: Notes) -> tuple[sp.csr_matrix, RawGenes]:
    """Return raw counts and the genes of their columns.

    `counts_layer` chooses; else the first that holds whole numbers of `layers['counts']`, `X` and `.raw`, else the only
    other layer that does, with a warning. Raises SectionError, with where it looked, if there is none.
    """
    if source.counts_layer:
        return _chosen(adata, source.counts_layer, source, notes)
    looked = []
    for name, values, var in _usual(adata):
        matrix = _csr(values, name, source)
        looked.append(name)
        if _is_counts(matrix) or (name == "X" and not matrix.nnz):
            notes["counts_from"] = name
            return matrix, _genes(var)
    layers = [name for name in adata.layers if name != COUNTS_LAYER]
    whole = [name for name in layers if _is_counts(_csr(adata.layers[name], name, source), most_above=1.0)]
    if len(whole) == 1:
        notes["counts_from"] = f"layers[{whole[0]!r}]"
        warn(notes, f"{_and(looked)} holds no raw counts: layers[{whole[0]!r}] holds whole numbers and is used")
        return _csr(adata.layers[whole[0]], whole[0], source), _genes(adata.var)
    looked += [f"layers[{name!r}]" for name in layers]
    if whole:
        msg = (
            f"{source.origin}: {_and(looked[: len(looked) - len(layers)])} holds no raw counts, and "
            f"several layers hold whole numbers: {some(whole)}; choose one with counts_layer"
        )
        raise SectionError(msg)
    raise SectionError(_no_counts(adata, looked, source))


def _no_counts(adata: ad.AnnData, looked: list[str], source: SectionSource) -> str:
    hint = "add the raw counts as layers['counts'], or name their layer in counts_layer"
    for name, values, var in _usual(adata):
        try:
            spots = [str(spot) for spot in adata.obs_names]
            check_values(_csr(values, name, source), spots, [str(gene) for gene in var.index], source.origin)
        except SectionError as error:
            return f"{error}; there are no raw counts in {_and(looked)}: {hint}"
    return f"{source.origin} has no count above 0 in {_and(looked) if looked else 'X, .raw or layers'}: {hint}"


def _usual(adata: ad.AnnData) -> Iterator[tuple[str, object, pd.DataFrame]]:
    if COUNTS_LAYER in adata.layers:
        yield "layers['counts']", adata.layers[COUNTS_LAYER], adata.var
    if adata.X is not None:
        yield "X", adata.X, adata.var
    if adata.raw is not None:
        yield ".raw", adata.raw.X, adata.raw.var


def _chosen(adata: ad.AnnData, name: str, source: SectionSource, notes: Notes) -> tuple[sp.csr_matrix, RawGenes]:
    notes["counts_from"] = name if name == "X" else ".raw" if name in ("raw", ".raw") else f"layers[{name!r}]"
    if name in adata.layers:
        return _csr(adata.layers[name], name, source), _genes(adata.var)
    if name == "X" and adata.X is not None:
        return _csr(adata.X, name, source), _genes(adata.var)
    if name in ("raw", ".raw") and adata.raw is not None:
        return _csr(adata.raw.X, name, source), _genes(adata.raw.var)
    there = [*(["X"] if adata.X is not None else []), *(["raw"] if adata.raw is not None else []), *adata.layers]
    msg = f"{source.origin}: counts_layer is {name!r}, and the file has {some([str(one) for one in there])}"
    raise SectionError(msg)


def _csr(values: object, name: str, source: SectionSource) -> sp.csr_matrix:
    try:
        matrix = sp.csr_matrix(values)  # `read_h5ad` has checked its index
        matrix.sum_duplicates()
        if matrix.dtype.kind not in "biuf":
            msg = f"its type is {matrix.dtype}"
            raise TypeError(msg)
    except (ValueError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        msg = f"{source.origin}: {name} is not a matrix of numbers: {error}"
        raise SectionError(msg) from None
    return matrix


def _is_counts(matrix: sp.csr_matrix, most_above: float = 0.0) -> bool:
    """Return whether all values are whole numbers from 0 on, and the largest is above `most_above`."""
    values = matrix.data
    if not values.size or not np.isfinite(values).all():
        return False
    return bool(values.min() >= 0 and values.max() > most_above and (values == np.rint(values)).all())


def _genes(var: pd.DataFrame) -> RawGenes:
    ids = next((name for name in ID_COLUMNS if name in var), None)
    kinds = next((name for name in KIND_COLUMNS if name in var), None)
    return RawGenes(
        names=[str(name).strip() for name in var.index],
        ids=None if ids is None else _texts(var[ids]),
        kinds=None if kinds is None else _texts(var[kinds]),
        symbols={name: _texts(var[name]) for name in SYMBOL_COLUMNS if name in var},
    )


def _texts(column: pd.Series) -> list[str]:
    return ["" if pd.isna(value) else str(value).strip() for value in column.tolist()]


def _and(names: list[str]) -> str:
    return " and ".join(names)
