"""The values of one section to complete, and the neighbourhoods that completion reads.

An entry is *real* if its count is above 0, *missing* if it is 0, and NaN if the section has not measured the gene.
Methods replace missing entries only: real ones are returned unchanged, to the bit, and NaN stays NaN.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float32, Float64, Int64
from scipy.spatial import cKDTree

from raystp.errors import ModelError

MAX_MASKED = 0.9
"""Largest share of a gene's real entries that a training mask hides; some must stay visible."""

HIDDEN_SHARE = 0.3
"""Share of all entries that a training mask hides: SpaRED's setting, arXiv 2505.02980."""

TOUCHING = 1.2
"""Two spots touch within this many pitches: 6 neighbours on a hexagonal array, 4 on a square one."""

SQUARE_NEIGHBOURS = 4
"""Spots that touch a spot of a square array, without corners. A hexagonal array has more."""


@dataclass(frozen=True)
class SectionValues:
    """Labels of one section over the genes to complete; 0 where nothing was counted, NaN if not measured."""

    values: Float32[np.ndarray, "spot gene"]
    xy: Float64[np.ndarray, "spot 2"]
    """Centres of the spots, in any unit of length."""

    def __post_init__(self) -> None:
        if len(self.values) != len(self.xy):
            msg = f"a section has {len(self.values)} rows of values and {len(self.xy)} positions; expected as many"
            raise ModelError(msg)
        unmeasured = np.isnan(self.values)
        if np.isinf(self.values).any() or (self.values < 0).any() or (unmeasured != unmeasured.all(axis=0)).any():
            msg = (
                "values to complete must be finite and 0 or above, or NaN in the whole column of a gene that was not "
                "measured: give log1p of measured counts"
            )
            raise ModelError(msg)

    @property
    def real(self) -> Bool[np.ndarray, "spot gene"]:
        """Which entries were counted."""
        real: Bool[np.ndarray, "spot gene"] = self.values > 0
        return real

    @property
    def measured(self) -> Bool[np.ndarray, "gene"]:
        """Which genes the section has measured."""
        measured: Bool[np.ndarray, " gene"] = ~np.isnan(self.values).any(axis=0)
        return measured


def neighbour_graph(xy: Float64[np.ndarray, "spot 2"]) -> sp.csr_matrix:
    """Return the graph of neighbouring spots: 6 on a hexagonal array, 8 (with corners) on a square one."""
    graph = touching(xy)
    degrees = np.diff(graph.indptr)
    is_square = len(degrees) > 0 and np.quantile(degrees, 0.95) <= SQUARE_NEIGHBOURS
    return touching(xy, diagonal=True) if is_square else graph


def touching(xy: Float64[np.ndarray, "spot 2"], *, diagonal: bool = False) -> sp.csr_matrix:
    """Return the graph of spots that touch: `[spot, spot]`, symmetric, without the spot itself.

    The pitch is the median distance to the nearest spot. `diagonal` also joins the corners of a square array.
    """
    count = len(xy)
    if count < 2:  # noqa: PLR2004 -- a pair
        return sp.csr_matrix((count, count), dtype=np.bool_)
    tree = cKDTree(xy)
    pitch = float(np.median(tree.query(xy, k=2)[0][:, 1]))
    reach = (2**0.5 * TOUCHING if diagonal else TOUCHING) * pitch
    pairs = tree.query_pairs(reach, output_type="ndarray")
    rows, columns = np.concatenate([pairs, pairs[:, ::-1]]).T
    graph = sp.csr_matrix((np.ones(len(rows), np.bool_), (rows, columns)), shape=(count, count))
    graph.sort_indices()
    return graph


def nearest_spots(xy: Float64[np.ndarray, "spot 2"], k: int) -> Int64[np.ndarray, "spot token"]:
    """Return each spot and its `k` nearest others by distance; a small section repeats the spot itself."""
    others = min(k, len(xy) - 1)
    rows = np.arange(len(xy), dtype=np.int64)
    near = np.repeat(rows[:, None], k + 1, axis=1)
    if others:
        found = cKDTree(xy).query(xy, k=others + 1)[1].reshape(len(xy), others + 1)
        is_self = found == rows[:, None]
        is_self[~is_self.any(axis=1), -1] = True  # more spots at one position than are asked for
        near[:, 1 : others + 1] = found[~is_self].reshape(len(xy), others)
    return near


def mask_rates(share: Float64[np.ndarray, "gene"]) -> Float64[np.ndarray, "gene"]:
    """Return the probability that a training mask hides a real entry of each gene, from the gene's share of them."""
    rates: Float64[np.ndarray, " gene"] = np.minimum(HIDDEN_SHARE / np.maximum(share, 1e-12), MAX_MASKED)
    return rates


def real_share(sections: list[SectionValues]) -> Float64[np.ndarray, "gene"]:
    """Return the share of real entries of each gene over the spots that measured it; 0 where none did."""
    total = sum(section.real.sum(axis=0, dtype=np.int64) for section in sections)
    spots = sum(len(section.values) * section.measured for section in sections)
    share: Float64[np.ndarray, " gene"] = np.asarray(total, np.float64) / np.maximum(np.asarray(spots), 1)
    return share


def mean_of_real(sections: list[SectionValues]) -> Float64[np.ndarray, "gene"]:
    """Return the mean of each gene's real entries over all spots of these sections; 0 for a gene without any."""
    total = sum(np.where(one.real, one.values, 0).sum(axis=0, dtype=np.float64) for one in sections)
    count = sum(section.real.sum(axis=0, dtype=np.int64) for section in sections)
    mean: Float64[np.ndarray, " gene"] = np.asarray(total) / np.maximum(np.asarray(count), 1)
    return mean


def check_counted(share: Float64[np.ndarray, "gene"]) -> None:
    """Raise ModelError for a gene without any real entry in the training sections: nothing is learned of it."""
    if not share.all():
        msg = (
            f"{int((share == 0).sum())} of {len(share)} genes have no count in the training sections: leave them out, "
            "or complete with method=median"
        )
        raise ModelError(msg)


def keep_real(section: SectionValues, completed: Float32[np.ndarray, "spot gene"]) -> Float32[np.ndarray, "spot gene"]:
    """Return the completed values where nothing was counted, and the section's own where something was."""
    filled = np.where(section.real, section.values, np.maximum(completed, np.float32(0.0)))
    return np.where(section.measured, filled, np.float32(np.nan))
