"""Raw counts of a section -> the labels of its spots over a panel, of any kind that `labels.Labels` names.

Published labels: hest-bench takes log1p of the counts (`totals: none`); TRIPLEX selects its genes first, scales to
their total, takes log1p and then the mean over the 3 x 3 neighbourhood (`totals: panel, smooth: array_3x3`); mclSTExp
trains on `totals: panel, log: log10`; st-benching on `log: log10, absent: zero`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float32, Float64, Int
from scipy.spatial import cKDTree

from raystp.expression.labels import Labels
from raystp.expression.normalise import CP10K, scaled_counts

Values = Float64[np.ndarray, "spot gene"]

NEAR_PITCHES = 1.6
"""Between the diagonal of a square array (1.41) and the second ring of a hexagonal one (1.73)."""


@dataclass(frozen=True)
class SpotArray:
    """Where the measured spots of a section are on its array."""

    places: Float64[np.ndarray, "spot 2"]
    """Array column and row; those of legacy arrays may have fractions. Without array coordinates: (x, y) in pitches."""
    has_coordinates: bool

    def neighbourhood_mean(self, values: Values) -> Values:
        """Return the mean over each spot and its neighbours: the measured spots of the 3 x 3 places around it.

        Array coordinates are rounded; a neighbour differs by at most 1 in each. On a hexagonal array, whose columns are
        numbered in steps of two, these are four of the six nearest. Without coordinates, neighbours are within 1.6
        pitches: 8 of a square array, 6 of a hexagonal one. A spot at the border averages what was measured.
        """
        places = np.rint(self.places) if self.has_coordinates else self.places
        tree = cKDTree(places)
        reach, norm = (1.0, np.inf) if self.has_coordinates else (NEAR_PITCHES, 2.0)
        first, second = tree.query_pairs(reach, p=norm, output_type="ndarray").T
        own = np.arange(len(places))
        rows, columns = np.concatenate([first, second, own]), np.concatenate([second, first, own])
        graph = sp.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(places), len(places)))
        mean: Values = (graph @ values) / np.diff(graph.indptr)[:, None]
        return mean


def label_values(
    counts: sp.csr_matrix, columns: Int[np.ndarray, "gene"], labels: Labels, array: SpotArray | None = None
) -> Float32[np.ndarray, "spot gene"]:
    """Return the labels of all spots of a section; `columns` are those of the panel's genes, -1 where not measured.

    `array` is read by smoothed labels. Raises SectionError for a spot without counts, if totals are of all genes.
    """
    measured = columns >= 0
    picked = _scaled(counts, columns[measured], labels)
    _LOGS[labels.log](picked.data)
    values = smoothed(picked.toarray(), labels, array)
    found = np.full((counts.shape[0], len(columns)), 0.0 if labels.absent == "zero" else np.nan, np.float32)
    found[:, measured] = values
    return found


def smoothed(values: Values, labels: Labels, array: SpotArray | None) -> Values:
    """Return the values, averaged over neighbouring spots where the labels say so."""
    if labels.smooth == "none":
        return values
    assert array is not None  # `load_counts` reads it
    return array.neighbourhood_mean(values)


def expected_labels(
    shares: Values, totals: Float64[np.ndarray, "spot"], labels: Labels, array: SpotArray | None = None
) -> Float32[np.ndarray, "spot gene"]:
    """Return the labels of expected counts, as a simulation knows them.

    `shares` are those of the panel's genes in the counts of all genes, `totals` the spots' counts of all genes.
    """
    panel = shares.sum(axis=1, keepdims=True)
    scale: dict[str, Values | float] = {
        "all": CP10K,
        "panel": CP10K / np.where(panel > 0, panel, 1.0),
        "none": totals[:, None],
    }
    values = np.asarray(shares * scale[labels.totals], np.float64)
    _LOGS[labels.log](values)
    return smoothed(values, labels, array).astype(np.float32)


def _scaled(counts: sp.csr_matrix, columns: Int[np.ndarray, "gene"], labels: Labels) -> sp.csr_matrix:
    """Return the counts of some genes, divided by the totals; a new matrix of float64."""
    if labels.totals == "all":
        return scaled_counts(counts)[:, columns]
    picked = sp.csr_matrix(counts[:, columns], dtype=np.float64, copy=True)
    if labels.totals == "panel":
        totals = np.asarray(picked.sum(axis=1)).ravel()
        factors = np.divide(CP10K, totals, out=np.zeros_like(totals), where=totals > 0)
        picked.data *= np.repeat(factors, np.diff(picked.indptr))
    return picked


def _ln(values: np.ndarray) -> None:
    np.log1p(values, out=values)


def _log10(values: np.ndarray) -> None:
    np.log10(values + 1, out=values)


_LOGS: Mapping[str, Callable[[np.ndarray], None]] = {"ln": _ln, "log10": _log10}
"""Logarithm of 1 + x, in place."""
