"""The protocol of st_benching: eight patients of HER2ST left out in turn, a fixed panel of 833 names.

Genes that a section's file does not have count as 0: HER2ST's files list the genes detected in a section. PCC is within
a fold, over the spots of ALL the patient's sections together. Source: YifeiSun677/st_benching, `deeppt_her2st`.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from raystp.evaluate.published.hest import leave_patient_out
from raystp.evaluate.published.labels import log_share
from raystp.evaluate.published.protocol import (
    FoldOutcome,
    HeldOutSection,
    ProtocolScores,
    PublishedProtocol,
    all_sections,
    figures,
)
from raystp.evaluate.published.scores import concatenated, nan_mean, pearson, spread

GENES = 833
MARKERS = ("ERBB2", "GRB7", "ESR1", "FASN", "GNAS", "PGR", "MKI67")
MEDIAN, MEAN, POSITIVE, SPOTS = "PCC median", "PCC mean", "percent of genes above 0", "spot PCC median"


def benching_label(section: HeldOutSection) -> Float64[np.ndarray, "spot gene"]:
    """Return log10(1 + counts per 10,000 of the full matrix); an absent gene is 0."""
    return np.asarray(log_share(np.nan_to_num(section.counts), section.totals) / np.log(10))


def score_benching(folds: Sequence[FoldOutcome]) -> ProtocolScores:
    """Return the scores of a gene's MEAN over folds: its median over genes, its mean, and the share above 0.

    The median over genes of means over folds is not the mean of the folds' medians. A gene without a PCC in a fold is
    left out there; without one in any fold it counts as not above 0. Markers are those that the panel has.
    """
    rows, correlations = [], []
    for fold in folds:
        predicted, measured = concatenated(fold, benching_label)
        pcc = pearson(predicted, measured)
        rows.append({**_over_genes(pcc), SPOTS: _median(pearson(predicted.T, measured.T))})
        rows[-1]["MSE"] = float(np.square(predicted - measured).mean())
        correlations.append(pcc)
    means = np.asarray([nan_mean(gene) for gene in np.stack(correlations).T])
    spots = {key: float(np.mean([row[key] for row in rows])) for key in (SPOTS, "MSE")}
    genes = folds[0].genes
    markers = {f"PCC {gene}": float(means[genes.index(gene)]) for gene in MARKERS if gene in genes}
    sd = spread({key: np.asarray([row[key] for row in rows]) for key in rows[0]})
    return ProtocolScores(tuple(rows), {**_over_genes(means), **spots, **markers}, sd, np.stack(correlations))


def _over_genes(pcc: Float64[np.ndarray, " gene"]) -> dict[str, float]:
    return {MEDIAN: _median(pcc), MEAN: nan_mean(pcc), POSITIVE: 100 * float((pcc > 0).mean())}


def _median(values: Float64[np.ndarray, " _"]) -> float:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else float(np.nan)


ST_BENCHING_833 = PublishedProtocol(
    name="st-benching-833",
    description=(
        "Leave one patient out; a fixed panel of 833 names, absent genes count as 0. Labels are log10 of counts per "
        "10,000 of the full matrix. PCC over all spots of the held-out patient, mean over folds, MEDIAN over genes."
    ),
    leak="The panel was fixed by others who had seen the test sections.",
    data="HER2ST (Zenodo record 3957257, open), 36 sections; the list `panel_833.txt` of its authors",
    split="patient",
    sections=all_sections,
    folds=leave_patient_out,
    panel_size=GENES,
    score=score_benching,
    train={"labels": {"log": "log10", "absent": "zero"}},
    absent="zero",
    figures=figures("HER2ST, 36 sections", (MEDIAN,), {"ST-Net": (0.098,), "HisToGene": (0.061,)}),
    sections_published=36,
)
