"""TRIPLEX's protocol: 250 genes, labels smoothed over the 3 x 3 neighbourhood, eight folds of whole patients.

Source: NEXGEM/TRIPLEX. The totals are of the 250 genes alone, after the panel is cut out.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float64

from raystp.evaluate.published.labels import log_share, mean_3x3, panel_totals
from raystp.evaluate.published.panels import highest_totals
from raystp.evaluate.published.protocol import (
    FoldOutcome,
    GeneCounts,
    HeldOutSection,
    ProtocolFold,
    ProtocolScores,
    PublishedFigure,
    PublishedProtocol,
    all_sections,
    figures,
)
from raystp.evaluate.published.scores import mean_of_folds, nan_mean, pearson, top

GENES, CANDIDATES = 250, 1000
SHARE = 0.1
"""Least share of all pooled spots with a count of the gene."""
FOLDS = 8
HPG = 50
ALL, HIGHLY_PREDICTIVE = "PCC all", "PCC HPG-50"


def triplex_panel(sections: Mapping[str, GeneCounts], count: int = GENES) -> list[str]:
    """Return the 250 genes of highest total count, of those in a tenth of the pooled spots of all sections."""
    return highest_totals(sections, count, share=SHARE, most=CANDIDATES)


def group_folds(patients: Mapping[str, str], count: int = FOLDS) -> list[ProtocolFold]:
    """Divide whole patients into folds of about equally many sections, by scikit-learn's `GroupKFold`.

    The published seed (2021) has no effect: `GroupKFold` does not shuffle. With fewer patients than folds, each patient
    is a fold.
    """
    from sklearn.model_selection import GroupKFold  # noqa: PLC0415 -- takes a second, and only this rule needs it

    names = np.asarray(sorted(patients))
    groups = [patients[name] for name in names.tolist()]
    parts = GroupKFold(min(count, len(set(groups)))).split(names, groups=groups)
    return [ProtocolFold(tuple(names[train].tolist()), tuple(names[test].tolist())) for train, test in parts]


def triplex_label(section: HeldOutSection) -> Float64[np.ndarray, "spot gene"]:
    """Return ln(1 + counts per 10,000 of the PANEL), then the mean of the 3 x 3 neighbourhood with the spot itself."""
    return mean_3x3(log_share(section.counts, panel_totals(section.counts)), section.array)


def score_triplex(folds: Sequence[FoldOutcome], hpg: int = HPG) -> ProtocolScores:
    """Return PCC of all genes and of the HPG-50, MSE and MAE: per section, mean weighted by spots, then over folds.

    The HPG are ranked on the TEST folds: within a fold by the sum of the gene's PCC over sections, then by mean rank.
    A gene without a PCC is left out of a section's mean, and ranks last in the fold.
    """
    sections = [[_pair(one) for one in fold.sections] for fold in folds]
    pcc = [np.stack([pearson(*pair) for pair in fold]) for fold in sections]
    ranks = np.stack(
        [np.argsort(np.argsort(np.nan_to_num(one.sum(axis=0), nan=-np.inf), kind="stable")) for one in pcc]
    )
    best = top(ranks.mean(axis=0), hpg)
    rows = []
    for fold, correlations in zip(sections, pcc, strict=True):
        weights = np.asarray([len(predicted) for predicted, _ in fold], np.float64)
        errors = [predicted - measured for predicted, measured in fold]
        values = {
            ALL: [nan_mean(one) for one in correlations],
            HIGHLY_PREDICTIVE: [nan_mean(one[best]) for one in correlations],
            "MSE": [float(np.square(one).mean()) for one in errors],
            "MAE": [float(np.abs(one).mean()) for one in errors],
        }
        rows.append({key: float(np.average(one, weights=weights)) for key, one in values.items()})
    genes = [
        np.average(one, axis=0, weights=[len(pair[0]) for pair in fold])
        for one, fold in zip(pcc, sections, strict=True)
    ]
    return mean_of_folds(rows, genes)


def _pair(section: HeldOutSection) -> tuple[Float64[np.ndarray, "spot gene"], Float64[np.ndarray, "spot gene"]]:
    return np.asarray(section.predicted, np.float64), triplex_label(section)[section.rows]


_METRICS = (ALL, HIGHLY_PREDICTIVE)
_HEG = (ALL, "PCC HEG-50")
_FIGURES: tuple[PublishedFigure, ...] = (
    *figures(
        "HER2ST, 36 sections",
        _METRICS,
        {
            "ST-Net": (0.194, 0.345),
            "HisToGene": (0.168, 0.302),
            "Hist2ST": (0.118, 0.248),
            "EGN": (0.197, 0.328),
            "BLEEP": (0.151, 0.277),
            "M2OST": (0.231, 0.410),
            "TRIPLEX": (0.314, 0.497),
            "Gene-DML": (0.331, 0.541),
        },
    ),
    *figures("HER2ST, 36 sections", _HEG, {"mclSTExp": (0.163, 0.114)}),
    *figures(
        "cSCC, 12 sections",
        _METRICS,
        {
            "ST-Net": (0.274, 0.382),
            "HisToGene": (0.133, 0.261),
            "Hist2ST": (0.004, 0.053),
            "EGN": (0.281, 0.388),
            "BLEEP": (0.269, 0.396),
            "M2OST": (0.300, 0.490),
            "TRIPLEX": (0.374, 0.490),
            "mclSTExp": (0.168, None),
            "Gene-DML": (0.433, 0.520),
        },
    ),
    *figures(
        "STNet, 68 sections",
        _METRICS,
        {
            "ST-Net": (0.116, 0.223),
            "HisToGene": (0.100, 0.219),
            "Hist2ST": (0.044, 0.099),
            "EGN": (0.111, 0.203),
            "BLEEP": (0.095, 0.193),
            "M2OST": (0.201, 0.353),
            "TRIPLEX": (0.206, 0.352),
            "mclSTExp": (0.095, None),
            "Gene-DML": (0.237, 0.384),
        },
    ),
)

TRIPLEX_250 = PublishedProtocol(
    name="triplex-250",
    description=(
        "Eight folds of whole patients, 250 genes. Labels are log1p of counts per 10,000 of the panel, averaged over "
        "the 3 x 3 neighbourhood. PCC per section, mean weighted by spots, then over folds."
    ),
    leak=(
        "Labels of test spots are smoothed with their neighbours; panel and HPG-50 are chosen on test sections, and "
        "the papers chose the epoch on the test fold too."
    ),
    data="HER2ST, cSCC or ST-Net, as HEST samples or from their own archives",
    split="patient",
    sections=all_sections,
    folds=group_folds,
    panel=triplex_panel,
    panel_size=GENES,
    score=score_triplex,
    train={"labels": {"totals": "panel", "smooth": "array_3x3"}},
    differs=(
        "The papers keep the epoch with the best PCC on the test fold; raystp chooses nothing on test, so its score "
        "lacks this advantage.",
    ),
    figures=_FIGURES,
)
