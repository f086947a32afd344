"""mclSTExp's protocol: 785 genes of HER2ST, 32 of 36 sections, leave one SECTION out.

The evaluation matrix of the authors is genes x spots when it is normalised per row. So each GENE is divided by its sum
over the section's spots, and not each spot by its total: depth stays in the label. Source: ZhicengShi/mclSTExp,
`hvg_her2st.py` and `evel_her2st.py`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float64

from raystp.errors import ConfigError
from raystp.evaluate.published.labels import log_gene_share
from raystp.evaluate.published.protocol import (
    FoldOutcome,
    HeldOutSection,
    ProtocolFold,
    ProtocolScores,
    PublishedProtocol,
    figures,
)
from raystp.evaluate.published.scores import concatenated, mean_of_folds, nan_mean, pearson, top

GENES = 785
FIRST, END = 1, 33
"""The sections in use, of the sorted names: A1 and the last patient are left out."""
HEG = 50
ACG, HEG_PCC = "PCC ACG", "PCC HEG-50"


def sections_from_second(names: Sequence[str]) -> tuple[str, ...]:
    """Return the 2nd to 33rd of the sorted names; raise ConfigError where fewer than two are left."""
    kept = tuple(sorted(names)[FIRST:END])
    if len(kept) < 2:  # noqa: PLR2004 -- one to train on, one to test
        msg = (
            f"mclstexp-785 uses the 2nd to 33rd of the sorted sections, and of {len(names)} that leaves {len(kept)}: "
            "give it HER2ST with its 36 sections, or use the protocol `section`"
        )
        raise ConfigError(msg)
    return kept


def leave_section_out(patients: Mapping[str, str]) -> list[ProtocolFold]:
    """Return a fold per section, in the order of their names; other sections of its patient are trained on."""
    names = sorted(patients)
    return [ProtocolFold(tuple(one for one in names if one != test), (test,)) for test in names]


def mclstexp_label(section: HeldOutSection) -> Float64[np.ndarray, "spot gene"]:
    """Return log10(1 + 10,000 * counts / sum of the gene over the section's spots)."""
    return log_gene_share(section.counts)


def score_mclstexp(folds: Sequence[FoldOutcome], heg: int = HEG) -> ProtocolScores:
    """Return PCC over all genes and over the HEG, MSE and MAE of each section, mean over sections.

    ACG leaves out genes without a PCC, HEG does not. The HEG are those of highest mean label in the TEST section.
    """
    rows, pcc = [], []
    for fold in folds:
        predicted, measured = concatenated(fold, mclstexp_label)
        correlations = pearson(predicted, measured)
        highest = top(measured.mean(axis=0), heg)
        error = predicted - measured
        rows.append(
            {
                ACG: nan_mean(correlations),
                HEG_PCC: float(correlations[highest].mean()),
                "MSE": float(np.square(error).mean()),
                "MAE": float(np.abs(error).mean()),
            }
        )
        pcc.append(correlations)
    return mean_of_folds(rows, pcc)


MCLSTEXP_785 = PublishedProtocol(
    name="mclstexp-785",
    description=(
        "Leave one section out, over the 2nd to 33rd of the sorted sections; a fixed list of 785 genes. The test label "
        "of a gene is its share of the gene's counts in the section. PCC per section, mean over sections."
    ),
    leak=(
        "Other sections of the test patient are trained on, and labels of training and test differ in kind: sequencing "
        "depth stays in the test label."
    ),
    data="HER2ST (Zenodo record 3957257, open), 36 sections; the list `her_hvg_cut_1000.npy` of 785 genes",
    split="section",
    sections=sections_from_second,
    folds=leave_section_out,
    panel_size=GENES,
    score=score_mclstexp,
    train={"labels": {"totals": "panel", "log": "log10"}},
    retrieval={"k": 200, "metric": "cosine", "weights": "inverse_square_l1"},
    differs=(
        "The authors average test-kind labels of the neighbours; raystp averages the labels that the model was trained "
        "on, so MSE and MAE are of another unit.",
    ),
    figures=figures(
        "HER2ST, 32 sections",
        (ACG, HEG_PCC),
        {
            "ST-Net": (0.056, 0.013),
            "HisToGene": (0.084, 0.071),
            "Hist2ST": (0.144, 0.185),
            "BLEEP": (0.187, 0.291),
            "mclSTExp": (0.230, 0.387),
            "CHRep": (0.273, 0.463),
        },
    ),
    sections_published=32,
)
