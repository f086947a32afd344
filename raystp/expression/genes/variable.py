"""Choose the most variable genes of the training sections.

Statistics are of log1p CP10k, over the sections that measured a gene. A gene that a section lacks was not measured
there, so only genes that every training section measured are chosen. Variance is pooled within sections, so that
offsets between sections (depth, staining day) select no gene.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import anndata as ad
import numpy as np
from jaxtyping import Float64, Int64

from raystp.errors import PanelError, some
from raystp.expression.genes.names import GeneNames, kind_of, unify_names
from raystp.expression.normalise import log1p_scaled

MIN_SHARE = 0.10
"""A variable gene is detected in at least this share of the training spots. Below, variance is noise of few counts."""


@dataclass(frozen=True)
class GeneStatistics:
    """Statistics of each gene over the training sections that measured it, genes sorted by name."""

    genes: list[str]
    variance: Float64[np.ndarray, "gene"]
    """Within sections: sum of squares around each section's own mean, over spots minus one per section."""
    share: Float64[np.ndarray, "gene"]
    """Share of spots with a count."""
    sections: Int64[np.ndarray, "gene"]
    """Number of sections that measured the gene."""


def gene_statistics(sections: Mapping[str, ad.AnnData]) -> GeneStatistics:
    """Return pooled within-section variance and detection share of log1p CP10k, over the union of the genes.

    Symbols and Ensembl ids of one gene are one gene. Pass training sections, or the training spots of them, alone.
    Raises PanelError without sections.
    """
    if not sections:
        msg = "genes are chosen on training sections, and none are given: name at least one"
        raise PanelError(msg)
    names = unify_names({name: GeneNames.of(section) for name, section in sections.items()})
    genes = sorted({gene for own in names.values() for gene in own})
    column_of = {gene: column for column, gene in enumerate(genes)}
    squares, detected = np.zeros(len(genes)), np.zeros(len(genes))
    spots, measured = np.zeros(len(genes), np.int64), np.zeros(len(genes), np.int64)
    for name, section in sections.items():
        columns = np.asarray([column_of[gene] for gene in names[name]], dtype=np.int64)
        expression = log1p_scaled(section.X)
        total = np.asarray(expression.sum(axis=0)).ravel()
        square = np.asarray(expression.multiply(expression).sum(axis=0)).ravel()
        squares[columns] += np.maximum(square - total**2 / section.n_obs, 0)
        detected[columns] += np.diff(expression.tocsc().indptr)
        spots[columns] += section.n_obs
        measured[columns] += 1
    return GeneStatistics(genes, squares / np.maximum(spots - measured, 1), detected / spots, measured)


def most_variable_genes(sections: Mapping[str, ad.AnnData], n: int, *, min_share: float = MIN_SHARE) -> list[str]:
    """Return the `n` genes of highest pooled within-section variance, highest first, ties by name.

    Only genes that every section measured, and that are detected in at least `min_share` of the training spots, count.
    Raises PanelError where there are fewer than `n`.
    """
    statistics = gene_statistics(sections)
    everywhere = statistics.sections == len(sections)
    kept = np.flatnonzero(everywhere & (statistics.share >= min_share))
    if len(kept) < n or n < 1:
        raise PanelError(_too_few_message(sections, statistics, n, kept=len(kept), min_share=min_share))
    names = np.asarray(statistics.genes)[kept]
    order = np.lexsort((names, -statistics.variance[kept]))[:n]
    return [str(gene) for gene in names[order].tolist()]


def _too_few_message(
    sections: Mapping[str, ad.AnnData], statistics: GeneStatistics, n: int, *, kept: int, min_share: float
) -> str:
    everywhere = int((statistics.sections == len(sections)).sum())
    first, *others = sections
    names = {name: GeneNames.of(section) for name, section in sections.items()}
    unlike = [name for name in others if kind_of(names[name].names) != kind_of(names[first].names)]
    message = (
        f"panel.variable: {n} variable genes were requested; {kept} of {len(statistics.genes)} are in at "
        f"least {min_share:.0%} of the spots of {some(list(sections))}"
    )
    if unlike and everywhere < n:
        kinds = ", ".join(
            f"'{name}' has {kind_of(names[name].names)} such as {names[name].examples()}" for name in (first, unlike[0])
        )
        message += (
            f" and measured in each of these sections ({everywhere} are). {kinds}: give one var['gene_ids'] and "
            "run `raystp spots` again, or leave sections out with split.train"
        )
    elif everywhere < len(statistics.genes):
        fewest = min(sections, key=lambda name: int(sections[name].n_vars))
        message += (
            f" and measured in each of these sections ({everywhere} are; '{fewest}' measured the fewest, "
            f"{sections[fewest].n_vars} genes: leave it out with split.train, or give a list of genes in panel.file)"
        )
    return f"{message}: request 1 to {kept}"
