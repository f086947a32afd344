"""Figures of one test section, slide or set of cases for the report, from arrays."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from raystp.evaluate.metrics.cases import CaseOutcome
from raystp.evaluate.metrics.genes import genes_to_show, pcc_per_gene, pcc_where_measured
from raystp.evaluate.metrics.score import SectionOutcome
from raystp.evaluate.report.charts import case_charts
from raystp.evaluate.report.parts import ReportChart, ReportFigure
from raystp.evaluate.report.slide_figures import (
    UNIT,
    GeneMap,
    SlideThumbnail,
    SpotLayout,
    maps_figure,
    png,
    tiles_figure,
    whole_slide_figure,
)
from raystp.tables import ATTENTION_MAP, CONTRIBUTION_MAP
from raystp.units import Level0Pixels

LABEL_UNIT = "units of the labels"


def section_figures(
    section: str,
    thumbnail: SlideThumbnail,
    diameter: Level0Pixels,
    outcome: SectionOutcome,
    *,
    panel: Sequence[str],
    listed: Sequence[str],
) -> list[ReportFigure]:
    """Draw the genes with the highest and the median PCC and those listed in the config, measured beside predicted.

    A gene that is not measured in the section is not drawn.
    """
    pcc, _ = pcc_where_measured(outcome.predicted, outcome.measured)
    figures = []
    for gene, reason in genes_to_show(pcc, panel, listed):
        one = GeneMap(
            panel[gene], outcome.measured[:, gene], outcome.predicted[:, gene], float(pcc[gene]), outcome.unit
        )
        figure = maps_figure(thumbnail, SpotLayout(outcome.xy, diameter), one)
        figures.append(ReportFigure(f"{one.gene} on {section}", png(figure), f"{one.gene}: {reason}"))
    return figures


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
