"""BLEEP's protocol: four liver sections of one donor (GSE240429), the third held out.

The genes are the union of the 1,000 most variable of each section, the test section included. The paper corrected the
labels with Harmony over all four sections; its author says that uncorrected labels work comparably. raystp does not
offer Harmony. Source: bowang-lab/BLEEP, `preprocess.ipynb` and `BLEEP_inference.ipynb`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float64

from raystp.errors import ConfigError, some
from raystp.evaluate.published.labels import log_share
from raystp.evaluate.published.panels import common_genes, counts_of, most_variable
from raystp.evaluate.published.protocol import (
    FoldOutcome,
    GeneCounts,
    HeldOutSection,
    ProtocolFold,
    ProtocolScores,
    PublishedProtocol,
    all_sections,
    figures,
)
from raystp.evaluate.published.scores import concatenated, mean_of_folds, nan_mean, pearson, top

SECTIONS, HELD_OUT = 4, 2
VARIABLE = 1000
SET_SIZE = 50
MARKERS = ("HAL", "CYP3A4", "VWF", "SOX9", "KRT7", "ANXA4", "ACTA2", "DCN")
"""Liver markers (MacParland)."""
MG, HEG, HVG, ALL, SPOTS = "PCC MG", "PCC HEG-50", "PCC HVG-50", "PCC all", "spot PCC"


def third_of_four(patients: Mapping[str, str]) -> list[ProtocolFold]:
    """Return one fold that tests the third section of the sorted names; raise ConfigError unless there are four."""
    names = sorted(patients)
    if len(names) != SECTIONS:
        msg = (
            f"bleep-liver has four sections of one donor (GSE240429), and there are {len(names)} ({some(names)}): give "
            "it these four, or use the protocol `section`"
        )
        raise ConfigError(msg)
    return [ProtocolFold(tuple(one for one in names if one != names[HELD_OUT]), (names[HELD_OUT],))]


def bleep_panel(sections: Mapping[str, GeneCounts], count: int = VARIABLE) -> list[str]:
    """Return the union of the `count` most variable genes of each section, sorted by name."""
    genes = common_genes(sections)
    chosen: set[str] = set()
    for one in sections.values():
        chosen |= set(most_variable(log_of_median(counts_of(one, genes)), genes, count))
    return sorted(chosen)


def log_of_median(counts: sp.csr_matrix) -> sp.csr_matrix:
    """Return ln(1 + counts * median total / total of the spot), scanpy's defaults; a spot without counts stays 0."""
    totals = np.asarray(counts.sum(axis=1), np.float64).ravel()
    median = float(np.median(totals[totals > 0]))
    return sp.csr_matrix(sp.diags(median / np.where(totals == 0, 1, totals)) @ counts).log1p()


def bleep_label(section: HeldOutSection) -> Float64[np.ndarray, "spot gene"]:
    """Return log1p of counts scaled to the section's median total, the total being over ALL genes; no Harmony."""
    totals = section.totals
    return log_share(section.counts, totals, scale=float(np.median(totals[totals > 0])))


def score_bleep(folds: Sequence[FoldOutcome], size: int = SET_SIZE) -> ProtocolScores:
    """Return the PCC of markers, of the genes of highest sum and of highest variance, of all, and over genes per spot.

    Both sets are ranked on the TEST section. A gene without a PCC is left out of a mean. (The published script removes
    such genes before it indexes the sets, and so reads other genes; that fault is not repeated.)
    """
    rows, pcc, lacking = [], [], [gene for gene in MARKERS if gene not in folds[0].genes]
    for fold in folds:
        predicted, measured = concatenated(fold, bleep_label)
        found = pearson(predicted, measured)
        markers = np.asarray([fold.genes.index(gene) for gene in MARKERS if gene in fold.genes], np.int64)
        rows.append(
            {
                MG: nan_mean(found[markers]),
                HEG: nan_mean(found[top(measured.sum(axis=0), size)]),
                HVG: nan_mean(found[top(measured.var(axis=0), size)]),
                ALL: nan_mean(found),
                SPOTS: nan_mean(pearson(predicted.T, measured.T)),
            }
        )
        pcc.append(found)
    notes = [f"{MG} is over {len(MARKERS) - len(lacking)} of 8 markers: the panel lacks {', '.join(lacking)}"]
    return mean_of_folds(rows, pcc, notes if lacking else ())


BLEEP_LIVER = PublishedProtocol(
    name="bleep-liver",
    description=(
        "Four sections of one donor, the third held out. The panel is the union of the 1,000 most variable genes of "
        "each section. PCC over the spots of the test section: 8 markers, 50 genes of highest sum, 50 of highest "
        "variance."
    ),
    leak=(
        "One donor: the test section is adjacent to those of training. Panel, HEG-50 and HVG-50 are chosen with the "
        "test section."
    ),
    data="GSE240429 (GEO, open): four Visium sections with full-resolution images",
    split="section",
    sections=all_sections,
    folds=third_of_four,
    panel=bleep_panel,
    score=score_bleep,
    retrieval={"k": 50, "metric": "cosine", "weights": "mean"},
    differs=(
        "The paper corrects labels with Harmony over all four sections, test included; raystp does not offer Harmony.",
        "The paper draws 20 % of the training spots at random to choose the epoch; raystp holds out blocks of tissue.",
        "Training labels of raystp are log1p of counts per 10,000; the test label is scaled to the median total.",
    ),
    figures=figures(
        "GSE240429, section C1",
        (MG, HEG, HVG),
        {
            "ST-Net": (0.099, 0.126, 0.091),
            "HisToGene": (0.097, 0.072, 0.071),
            "BLEEP": (0.217, 0.175, 0.173),
        },
    ),
    sections_published=4,
)
