"""Rules by which papers chose their genes. All of them read the test sections.

`most_variable` is scanpy's `highly_variable_genes` in its default flavour ("seurat"), written again, since raystp does
not install scanpy; tests compare both.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import scipy.sparse as sp
from jaxtyping import Float64, Int64

from raystp.errors import PanelError, some
from raystp.evaluate.published.protocol import Counts, GeneCounts

BINS = 20
"""Bins of mean expression in which dispersions are compared."""


def common_genes(sections: Mapping[str, GeneCounts]) -> list[str]:
    """Return the genes that every section measured, sorted; raise PanelError where there is none."""
    found = sorted(set.intersection(*[set(one.genes) for one in sections.values()])) if sections else []
    if not found:
        msg = f"no gene is measured in each of the sections {some(list(sections))}: name their genes by one system"
        raise PanelError(msg)
    return found


def counts_of(section: GeneCounts, genes: Sequence[str]) -> sp.csr_matrix:
    """Return the counts of these genes, in this order."""
    column = {gene: number for number, gene in enumerate(section.genes)}
    return sp.csr_matrix(section.counts, dtype=np.float64)[:, [column[gene] for gene in genes]]


def detected(counts: sp.csr_matrix) -> Int64[np.ndarray, " gene"]:
    """Return the number of spots in which each gene has a count."""
    return np.asarray((counts > 0).sum(axis=0), np.int64).ravel()


def highest_totals(sections: Mapping[str, GeneCounts], count: int, *, share: float, most: int) -> list[str]:
    """Return the first `count` of the `most` genes of highest total count, highest first, ties by name.

    Only genes count that all sections measured, and that are in at least this share of all POOLED spots.
    """
    genes = common_genes(sections)
    parts = [counts_of(one, genes) for one in sections.values()]
    spots = sum(one.shape[0] for one in parts)
    kept = np.flatnonzero(sum(detected(one) for one in parts) / spots >= share)
    total = sum(np.asarray(one.sum(axis=0)).ravel() for one in parts)
    order = kept[np.argsort(-np.asarray(total)[kept], kind="stable")]
    return [genes[number] for number in order[: min(count, most)].tolist()]


def most_variable(logged: Counts, genes: Sequence[str], count: int) -> list[str]:
    """Return the `count` genes of highest normalised dispersion, in the order given; genes that tie with the last too.

    `logged` is ln(1 + x). The dispersion is the logarithm of variance over mean of x, and is compared with the other
    genes in its bin of the mean.
    """
    scores = _normalised_dispersion(sp.csr_matrix(logged, dtype=np.float64))
    known = np.sort(scores[~np.isnan(scores)])[::-1]
    if not len(known):
        msg = f"none of {len(genes)} genes has a dispersion: all of them are constant"
        raise PanelError(msg)
    lowest = known[min(count, len(known)) - 1]
    chosen = np.nan_to_num(scores, nan=-np.inf) >= lowest
    return [gene for gene, is_chosen in zip(genes, chosen.tolist(), strict=True) if is_chosen]


def in_enough_spots(section: GeneCounts, share: float) -> set[str]:
    """Return the genes with a count in at least ceil(share * spots) of a section's spots."""
    counts = counts_of(section, section.genes)
    least = math.ceil(share * counts.shape[0])
    return {gene for gene, spots in zip(section.genes, detected(counts).tolist(), strict=True) if spots >= least}


def _normalised_dispersion(logged: sp.csr_matrix) -> Float64[np.ndarray, " gene"]:
    values = logged.expm1()
    spots = values.shape[0]
    mean = np.asarray(values.mean(axis=0)).ravel()
    square = np.asarray(values.multiply(values).mean(axis=0)).ravel()
    variance = (square - mean**2) * (spots / (spots - 1))
    mean = np.where(mean == 0, 1e-12, mean)
    dispersion = variance / mean
    dispersion = np.log(np.where(dispersion == 0, np.nan, dispersion))
    bins = pd.cut(pd.Series(np.log1p(mean)), bins=BINS)
    grouped = pd.Series(dispersion).groupby(bins, observed=True)
    centre, width = grouped.transform("mean").to_numpy(), grouped.transform("std").to_numpy()
    alone = np.isnan(width)  # the only gene of its bin has the score 1
    return np.asarray((dispersion - np.where(alone, 0, centre)) / np.where(alone, centre, width))
