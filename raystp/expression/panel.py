"""Gene panels: which genes a model predicts, chosen on TRAINING sections alone, or read from a file.

Statistics are of log1p CP10k. Genes are the union over the sections given; a sequencing-based section that lacks a gene
counted 0 of it. Variance is within sections, pooled: offsets between sections (depth, staining day) choose no gene.
"""

import difflib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import anndata as ad
import numpy as np
from jaxtyping import Float64

from raystp.errors import PanelError, some
from raystp.expression.normalise import scaled_log1p
from raystp.storage import StoragePath

LEAST_SHARE = 0.10
"""A variable gene is seen in at least this share of the training spots: below, it is noise of a few counts."""


@dataclass(frozen=True)
class GeneStatistics:
    """What the training sections say of each gene, genes sorted by name."""

    genes: list[str]
    mean: Float64[np.ndarray, "gene"]
    """Over all spots of all sections."""
    variance: Float64[np.ndarray, "gene"]
    """Within sections: the sums of squares around each section's own mean, over the spots less one per section."""
    share: Float64[np.ndarray, "gene"]
    """Share of spots with a count."""


def gene_statistics(sections: Mapping[str, ad.AnnData]) -> GeneStatistics:
    """Return mean, pooled within-section variance and detection share of log1p CP10k, over the union of the genes.

    The caller passes training sections, or the training spots of them, alone. Raises PanelError without sections.
    """
    if not sections:
        msg = "genes are chosen on training sections, and there are none"
        raise PanelError(msg)
    genes = sorted({str(gene) for section in sections.values() for gene in section.var_names})
    at = {gene: place for place, gene in enumerate(genes)}
    totals, around, seen = np.zeros(len(genes)), np.zeros(len(genes)), np.zeros(len(genes))
    spots = 0
    for section in sections.values():
        columns = np.asarray([at[str(gene)] for gene in section.var_names], dtype=np.int64)
        expression = scaled_log1p(section.X)
        total = np.asarray(expression.sum(axis=0)).ravel()
        square = np.asarray(expression.multiply(expression).sum(axis=0)).ravel()
        totals[columns] += total
        around[columns] += np.maximum(square - total**2 / section.n_obs, 0)
        seen[columns] += np.diff(expression.tocsc().indptr)
        spots += section.n_obs
    return GeneStatistics(genes, totals / spots, around / max(spots - len(sections), 1), seen / spots)


def choose_variable(sections: Mapping[str, ad.AnnData], n: int, *, least_share: float = LEAST_SHARE) -> list[str]:
    """Return the `n` genes of highest pooled within-section variance, highest first, ties by name.

    Only genes seen in at least `least_share` of the training spots. Raises PanelError where there are fewer than `n`.
    """
    statistics = gene_statistics(sections)
    kept = np.flatnonzero(statistics.share >= least_share)
    if len(kept) < n or n < 1:
        msg = (
            f"{n} variable genes were asked for; {len(kept)} of {len(statistics.genes)} are in at least "
            f"{least_share:.0%} of the spots of {some(list(sections))}: ask for 1 to {len(kept)}"
        )
        raise PanelError(msg)
    return _highest(statistics.variance[kept], [statistics.genes[place] for place in kept.tolist()], n)


def highest_mean(sections: Mapping[str, ad.AnnData], genes: Sequence[str], n: int = 50) -> list[str]:
    """Return the `n` genes of a panel with the highest training mean (HEG-50), highest first, ties by name."""
    statistics = gene_statistics(sections)
    return _highest(_of(statistics, statistics.mean, genes), list(genes), n)


def highest_variance(sections: Mapping[str, ad.AnnData], genes: Sequence[str], n: int = 50) -> list[str]:
    """Return the `n` genes of a panel with the highest training variance (HVG-50), highest first, ties by name."""
    statistics = gene_statistics(sections)
    return _highest(_of(statistics, statistics.variance, genes), list(genes), n)


def read_panel(place: StoragePath) -> list[str]:
    """Return the genes of a `.npy` (plain strings), `.txt` (one a line) or `.json` (`{"genes": [...]}`, as HEST's).

    Raises PanelError for another ending, for a file that is not of its form, and where a gene stands in it twice.
    """
    ending = place.name.rpartition(".")[2].lower()
    if ending not in {"npy", "txt", "json"}:
        msg = (
            f"{place} is no gene panel: wanted is a .npy of strings, a .txt of one gene a line, or a .json with 'genes'"
        )
        raise PanelError(msg)
    content = place.read_bytes()
    try:
        genes = {"npy": _npy, "txt": _txt, "json": _json}[ending](content)
    except (ValueError, EOFError, MemoryError, KeyError, TypeError) as error:
        msg = f"{place} cannot be read as a gene panel: {type(error).__name__}: {error}"
        raise PanelError(msg) from None
    if not genes:
        msg = f"{place} names no genes"
        raise PanelError(msg)
    twice = sorted({gene for gene in genes if genes.count(gene) > 1}) if len(set(genes)) < len(genes) else []
    if twice:
        msg = f"{place} names {len(twice)} genes more than once: {some(twice)}"
        raise PanelError(msg)
    return genes


def absent_sentence(missing: list[str], total: int, known: list[str]) -> str:
    """Say which genes of a panel are in no training section, and which names are near, where few are."""
    sentence = f"{len(missing)} of {total} genes of the panel are in no training section: {some(missing)}"
    if len(missing) > 5:  # noqa: PLR2004 -- beyond a handful it is another naming, not a typing slip
        return f"{sentence}; are they named as in the sections ({some(known, 3)})? absent='drop' leaves them out"
    near = {gene: difflib.get_close_matches(gene, known, n=1) for gene in missing}
    hints = ", ".join(f"{found[0]!r} for {gene!r}" for gene, found in near.items() if found)
    return f"{sentence}; " + (f"did you mean {hints}? " if hints else "") + "absent='drop' leaves them out"


def _of(
    statistics: GeneStatistics, values: Float64[np.ndarray, "every"], genes: Sequence[str]
) -> Float64[np.ndarray, "gene"]:
    at = {gene: place for place, gene in enumerate(statistics.genes)}
    missing = [gene for gene in genes if gene not in at]
    if missing:
        raise PanelError(absent_sentence(missing, len(genes), statistics.genes))
    return np.asarray([values[at[gene]] for gene in genes], dtype=np.float64)


def _highest(values: Float64[np.ndarray, "gene"], genes: list[str], n: int) -> list[str]:
    order = np.lexsort((np.asarray(genes), -values))[:n]
    return [genes[place] for place in order.tolist()]


def _npy(content: bytes) -> list[str]:
    array = np.load(io.BytesIO(content), allow_pickle=False)
    if array.ndim != 1 or array.dtype.kind != "U":
        msg = f"it holds a {array.ndim}-dimensional array of {array.dtype}, not a list of strings"
        raise ValueError(msg)
    return [str(gene) for gene in array.tolist()]


def _txt(content: bytes) -> list[str]:
    return [line.strip() for line in content.decode("utf-8").splitlines() if line.strip()]


def _json(content: bytes) -> list[str]:
    genes = json.loads(content)["genes"]
    if not isinstance(genes, list) or not all(isinstance(gene, str) for gene in genes):
        msg = "'genes' is not a list of strings"
        raise TypeError(msg)
    return genes
