"""Choose the most variable genes of the training sections.

Statistics are of log1p CP10k, over the union of the sections' genes. A sequencing-based section that lacks a gene
counted 0 of it. Variance is pooled within sections, so that offsets between sections (depth, staining day) select no
gene.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import anndata as ad
import numpy as np
from jaxtyping import Float64

from raystp.errors import PanelError, some
from raystp.expression.normalise import log1p_scaled

MIN_SHARE = 0.10
"""A variable gene is detected in at least this share of the training spots. Below, variance is noise of few counts."""


@dataclass(frozen=True)
class GeneStatistics:
    """Statistics of each gene over the training sections, genes sorted by name."""

    genes: list[str]
    variance: Float64[np.ndarray, "gene"]
    """Within sections: sum of squares around each section's own mean, over spots minus one per section."""
    share: Float64[np.ndarray, "gene"]
    """Share of spots with a count."""


def gene_statistics(sections: Mapping[str, ad.AnnData]) -> GeneStatistics:
    """Return pooled within-section variance and detection share of log1p CP10k, over the union of the genes.

    Pass training sections, or the training spots of them, alone. Raises PanelError without sections.
    """
    if not sections:
        msg = "genes are chosen on training sections, and none are given: name at least one"
        raise PanelError(msg)
    genes = sorted({str(gene) for section in sections.values() for gene in section.var_names})
    column_of = {gene: column for column, gene in enumerate(genes)}
    squares, detected, spots = np.zeros(len(genes)), np.zeros(len(genes)), 0
    for section in sections.values():
        columns = np.asarray([column_of[str(gene)] for gene in section.var_names], dtype=np.int64)
        expression = log1p_scaled(section.X)
        total = np.asarray(expression.sum(axis=0)).ravel()
        square = np.asarray(expression.multiply(expression).sum(axis=0)).ravel()
        squares[columns] += np.maximum(square - total**2 / section.n_obs, 0)
        detected[columns] += np.diff(expression.tocsc().indptr)
        spots += section.n_obs
    return GeneStatistics(genes, squares / max(spots - len(sections), 1), detected / spots)


def most_variable_genes(sections: Mapping[str, ad.AnnData], n: int, *, min_share: float = MIN_SHARE) -> list[str]:
    """Return the `n` genes of highest pooled within-section variance, highest first, ties by name.

    Only genes detected in at least `min_share` of the training spots count. Raises PanelError where there are fewer
    than `n`.
    """
    statistics = gene_statistics(sections)
    kept = np.flatnonzero(statistics.share >= min_share)
    if len(kept) < n or n < 1:
        msg = (
            f"panel.variable: {n} variable genes were requested; {len(kept)} of {len(statistics.genes)} are in at "
            f"least {min_share:.0%} of the spots of {some(list(sections))}: request 1 to {len(kept)}"
        )
        raise PanelError(msg)
    names = np.asarray(statistics.genes)[kept]
    order = np.lexsort((names, -statistics.variance[kept]))[:n]
    return [str(gene) for gene in names[order].tolist()]
