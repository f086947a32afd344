"""Figures of a slide or a set of cases for the report, from arrays."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from raystp.evaluate.metrics.cases import CaseOutcome
from raystp.evaluate.metrics.genes import pcc_per_gene
from raystp.evaluate.report.charts import case_charts
from raystp.evaluate.report.parts import ReportChart, ReportFigure
from raystp.evaluate.report.slide_figures import (
    UNIT,
    SlideThumbnail,
    png,
    tiles_figure,
    whole_slide_figure,
)
from raystp.tables import ATTENTION_MAP, CONTRIBUTION_MAP

LABEL_UNIT = "units of the labels"


def prediction_figures(
    slide: str,
    thumbnail: SlideThumbnail,
    boxes: Float[np.ndarray, "tile 3"],
    values: Mapping[str, Float[np.ndarray, "_"]],
    *,
    unit: str = UNIT,
) -> list[ReportFigure]:
    """Draw the prediction of each tile of a slide, a figure per gene; `values` is gene -> a value per tile."""
    return [
        ReportFigure(f"{gene} on {slide}", png(whole_slide_figure(thumbnail, boxes, predicted, gene=gene, unit=unit)))
        for gene, predicted in values.items()
    ]


def uncertainty_figures(
    slide: str,
    thumbnail: SlideThumbnail,
    boxes: Float[np.ndarray, "tile 3"],
    *,
    distance: Float[np.ndarray, "_"],
    spread: tuple[Float[np.ndarray, "_"], str] | None,
    far: int,
) -> list[ReportFigure]:
    """Draw each tile's distance to the reference index and, if known, the spread among its neighbours with its unit.

    `far` is the number of tiles beyond the 99th percentile of the index's own tiles. A slide without tiles has no
    figure.
    """
    if not len(boxes):
        return []
    maps = {"distance to the nearest reference spot": (np.asarray(distance), "distance")}
    if spread is not None:
        maps["spread among the neighbours, mean over genes"] = spread
    caption = f"{far} of {len(boxes)} tiles are farther from the reference index than 99 % of its own tiles"
    title = f"Distance of {slide} to the reference index"
    return [ReportFigure(title, png(tiles_figure(thumbnail, boxes, maps, caption)), f"{title}: {caption}")]


def attention_figures(
    slide: str,
    thumbnail: SlideThumbnail,
    boxes: Float[np.ndarray, "tile 3"],
    *,
    maps: Mapping[str, Float[np.ndarray, "tile gene"]],
    genes: Sequence[str],
) -> list[ReportFigure]:
    """Draw attention, local prediction and contribution of each tile, a figure per gene; columns are `genes`."""
    figures = []
    for column, gene in enumerate(genes):
        shown = {
            "attention weight": (maps[ATTENTION_MAP][:, column], "share"),
            "local prediction": (maps["local"][:, column], LABEL_UNIT),
            "contribution": (maps[CONTRIBUTION_MAP][:, column], LABEL_UNIT),
        }
        title = f"{gene} on {slide}: contribution of each tile to the prediction"
        figures.append(ReportFigure(title, png(tiles_figure(thumbnail, boxes, shown, title)), title))
    return figures


def case_gene_charts(outcome: CaseOutcome, panel: Sequence[str], genes: Sequence[tuple[int, str]]) -> list[ReportChart]:
    """Draw predicted against measured over cases, for genes given as column and reason."""
    pcc, _ = pcc_per_gene(outcome.predicted, outcome.measured)
    panels = [
        (
            panel[gene] + (f", PCC {pcc[gene]:.2f}" if outcome.has_correlation else "") + f": {reason}",
            np.asarray(outcome.measured[:, gene]),
            np.asarray(outcome.predicted[:, gene]),
        )
        for gene, reason in genes
    ]
    return case_charts(panels, outcome.cases)
