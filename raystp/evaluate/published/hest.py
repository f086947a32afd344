"""HEST's benchmark of image encoders: one ridge on frozen features, 50 variable genes, log1p of raw counts.

Three variants differ in the ridge alone: on 256 principal components of scaled features (the repository's README), on
the features as they are (the paper; without PCA the code scales nothing), and with the penalty chosen by inner
cross-validation. They rank encoders differently, so they are three protocols.
Source: mahmoodlab/HEST, `src/hest/bench`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float64

from raystp.evaluate.published.labels import log_counts
from raystp.evaluate.published.panels import common_genes, counts_of, in_enough_spots, most_variable
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
from raystp.evaluate.published.scores import concatenated, mean_of_folds, pearson

GENES = 50
SHARE = 0.1
"""Least share of a section's spots with a count of the gene."""
CONTROLS = ("BLANK", "Control")
PCC = "PCC"


def hest_panel(sections: Mapping[str, GeneCounts], count: int = GENES) -> list[str]:
    """Return the variable genes of the stacked raw counts of all sections, as a task without `var_50genes.json`.

    Genes are in a tenth of the spots of EACH section, and no control probes.
    """
    frequent = set.intersection(*[in_enough_spots(one, SHARE) for one in sections.values()])
    genes = [gene for gene in common_genes(sections) if gene in frequent and not any(word in gene for word in CONTROLS)]
    stacked = sp.vstack([counts_of(one, genes) for one in sections.values()], format="csr")
    return most_variable(stacked.log1p(), genes, count)


def leave_patient_out(patients: Mapping[str, str]) -> list[ProtocolFold]:
    """Return a fold per patient, in the order of their names; a task's own `splits` take precedence."""
    names = sorted(patients)
    return [
        ProtocolFold(
            train=tuple(one for one in names if patients[one] != patient),
            test=tuple(one for one in names if patients[one] == patient),
        )
        for patient in sorted(set(patients.values()))
    ]


def hest_label(section: HeldOutSection) -> Float64[np.ndarray, "spot gene"]:
    """Return log1p of the raw counts: no library size."""
    return log_counts(section.counts)


def score_hest(folds: Sequence[FoldOutcome]) -> ProtocolScores:
    """Return the mean PCC over genes, each over the CONCATENATED test spots of a fold; mean and sd over folds.

    A gene without a PCC makes the fold's mean NaN, and so the task's.
    """
    pcc = [pearson(*concatenated(fold, hest_label)) for fold in folds]
    lost = sorted(
        {fold.genes[gene] for fold, one in zip(folds, pcc, strict=True) for gene in np.flatnonzero(np.isnan(one))}
    )
    notes = [f"PCC is NaN, because {', '.join(lost)} is constant in a fold; the protocol does not leave it out"]
    return mean_of_folds([{PCC: float(one.mean())} for one in pcc], pcc, notes if lost else ())


def _hest(name: str, description: str, ridge: Mapping[str, Any], **more: Any) -> PublishedProtocol:
    return PublishedProtocol(
        name=name,
        description=(
            f"{description} PCC per gene over the concatenated test spots of a fold, mean over 50 genes, then folds."
        ),
        leak=(
            "The panel was chosen with the test samples, and PCC over concatenated samples counts offsets between them "
            "as signal."
        ),
        data="a task of hest-bench (hub, gated form): `raystp import hest-bench`; or HEST-1k samples, with a panel",
        split="patient",
        sections=all_sections,
        folds=leave_patient_out,
        given_folds=True,
        panel=hest_panel,
        panel_size=GENES,
        given_panel=True,
        score=score_hest,
        train={"labels": {"totals": "none"}},
        method={"model": "hest_ridge", "hest_ridge": ridge},
        packages=("scikit-learn",),
        **more,
    )


NINE = "mean of 9 tasks of hest-bench"
_README = {
    "ResNet50": (0.325,),
    "UNI": (0.387,),
    "GigaPath": (0.388,),
    "Virchow2": (0.403,),
    "UNI2-h": (0.414,),
    "H-Optimus-1": (0.423,),
}
HEST_README = _hest(
    "hest-readme",
    "Ridge on 256 principal components of frozen features, alpha = 100 / (256 * 50), labels log1p of raw counts.",
    {"pca": 256, "scale": True, "alpha": "hest"},
    figures=figures(NINE, (PCC,), _README),
)
HEST_PAPER = _hest(
    "hest-paper",
    "Ridge on frozen features as they are, alpha = 100 / (dimensions * 50), labels log1p of raw counts.",
    {"pca": None, "scale": False, "alpha": "hest"},
)
HEST_ALPHACV = _hest(
    "hest-alphacv",
    "hest-readme, with alpha chosen by cross-validation over the training samples of each fold.",
    {"pca": 256, "scale": True, "alpha": "cv"},
    figures=figures(NINE, (PCC,), {"UNI2-h": (0.434,)}),
)
