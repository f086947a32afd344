"""Stem's protocol: one held-out slide, 200 genes of high mean and high variance, the best genes ranked on test.

Source: the evaluation notebook and `dataset_preprocess` of Stem (arXiv 2501.15598).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float64

from raystp.errors import PanelError
from raystp.evaluate.published.bleep import log_of_median
from raystp.evaluate.published.labels import log_counts
from raystp.evaluate.published.mclstexp import leave_section_out
from raystp.evaluate.published.panels import common_genes, counts_of, detected, most_variable
from raystp.evaluate.published.protocol import (
    FoldOutcome,
    GeneCounts,
    HeldOutSection,
    ProtocolScores,
    PublishedProtocol,
    all_sections,
    figures,
)
from raystp.evaluate.published.scores import concatenated, mean_of_folds, pearson

GENES = 200
VARIABLE = 2000
TOPS = (10, 50, 200)
LEFT_OUT = ("MT", "mt", "RPS", "RPL")
"""First letters of mitochondrial and ribosomal genes."""


def stem_panel(sections: Mapping[str, GeneCounts], count: int = GENES, variable: int = VARIABLE) -> list[str]:
    """Return genes that are among both the n of highest mean and the n of highest deviation of raw counts, sorted.

    Candidates are the union of the 2,000 most variable genes of each slide, without mitochondrial and ribosomal ones.
    n is the least that gives 200 genes. Where that step adds two genes at once, there are 201.
    """
    common = common_genes(sections)
    union: set[str] = set()
    for one in sections.values():
        counts = counts_of(one, common)
        found = np.flatnonzero(detected(counts))
        union |= set(most_variable(log_of_median(counts[:, found]), [common[gene] for gene in found], variable))
    genes = sorted(gene for gene in union if not gene.startswith(LEFT_OUT))
    pooled = sp.vstack([counts_of(one, genes) for one in sections.values()], format="csc")
    mean = np.asarray(pooled.mean(axis=0)).ravel()
    variance = np.asarray(pooled.multiply(pooled).mean(axis=0)).ravel() - mean**2
    rank = np.maximum(*(np.argsort(np.argsort(-values, kind="stable")) for values in (mean, variance)))
    if len(genes) < count:
        msg = f"stem-200: {count} genes are chosen among the most variable, and the slides have {len(genes)} of these"
        raise PanelError(msg)
    return [gene for gene, one in zip(genes, rank.tolist(), strict=True) if one <= np.sort(rank)[count - 1]]


def stem_label(section: HeldOutSection) -> Float64[np.ndarray, "spot gene"]:
    """Return log2(1 + raw counts): no library size."""
    return np.asarray(log_counts(section.counts) / np.log(2))


def score_stem(folds: Sequence[FoldOutcome], tops: Sequence[int] = TOPS) -> ProtocolScores:
    """Return the mean PCC of the k genes that are best ON THE TEST SLIDE, MSE, MAE and RVD.

    Predictions are taken as ln(1 + counts), and brought to log2. A gene without a PCC makes the mean over all genes
    NaN, as in the published script, and ranks last.
    """
    rows, pcc = [], []
    for fold in folds:
        predicted, measured = concatenated(fold, stem_label)
        predicted = predicted / np.log(2)
        found = pearson(predicted, measured)
        ordered = np.append(np.sort(found[~np.isnan(found)])[::-1], found[np.isnan(found)])
        spread = measured.var(axis=0)
        ratio = np.square(predicted.var(axis=0) - spread) / np.where(spread > 0, spread, np.nan) ** 2
        row = {f"PCC-{count}": float(ordered[:count].mean()) for count in tops}
        row |= {"MSE": float(np.square(predicted - measured).mean()), "MAE": float(np.abs(predicted - measured).mean())}
        rows.append(row | {"RVD": float(ratio.mean())})
        pcc.append(found)
    return mean_of_folds(rows, pcc)


STEM_200 = PublishedProtocol(
    name="stem-200",
    description=(
        "One slide held out, 200 genes of high mean and high variance, labels log2 of raw counts. PCC-10, PCC-50 and "
        "PCC-200 are means over the genes that are best on the test slide."
    ),
    leak=(
        "The genes of PCC-10 and PCC-50 are picked by their score on the test slide, the panel is chosen with it, and "
        "other slides of its patient may be trained on."
    ),
    data="one data set of HEST-1k, such as its kidney samples (NCBI692 to NCBI712)",
    split="section",
    sections=all_sections,
    folds=leave_section_out,
    one_fold=True,
    panel=stem_panel,
    panel_size=GENES,
    given_panel=True,
    score=score_stem,
    train={"labels": {"totals": "none"}},
    differs=("The paper averages 20 samples of a diffusion model; raystp's methods predict one value.",),
    figures=figures("kidney slides of HEST-1k", ("PCC-10", "PCC-50", "PCC-200"), {"BLEEP": (0.4998, 0.4221, 0.3143)}),
)
