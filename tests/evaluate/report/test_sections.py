"""Figures of a section from arrays: genes, captions, and no figure without tiles."""

import numpy as np

from raystp.evaluate.metrics.cases import CaseOutcome
from raystp.evaluate.report.sections import (
    attention_figures,
    case_gene_charts,
    prediction_figures,
    uncertainty_figures,
)
from raystp.evaluate.report.slide_figures import SlideThumbnail
from raystp.units import Level0Pixels

THUMBNAIL = SlideThumbnail(np.full((10, 20, 3), 255, np.uint8), Level0Pixels(200.0), Level0Pixels(100.0))
BOXES = np.array([[0.0, 0.0, 50.0], [100.0, 0.0, 50.0], [100.0, 50.0, 50.0]])
VALUES = np.array([0.0, 1.0, 2.0])


def test_uncertainty_states_how_many_tiles_are_far_and_needs_no_spread() -> None:
    (figure,) = uncertainty_figures("S", THUMBNAIL, BOXES, distance=VALUES, spread=None, far=2)
    assert "2 of 3 tiles are farther from the reference index" in figure.caption
    (wider,) = uncertainty_figures("S", THUMBNAIL, BOXES, distance=VALUES, spread=(VALUES, "log1p counts"), far=2)
    assert len(wider.png) > len(figure.png)  # one panel more


def test_a_slide_without_tiles_has_no_uncertainty() -> None:
    assert uncertainty_figures("S", THUMBNAIL, BOXES[:0], distance=VALUES[:0], spread=None, far=0) == []


def test_a_figure_is_drawn_for_each_gene() -> None:
    predictions = prediction_figures("S", THUMBNAIL, BOXES, {"x": VALUES, "y": VALUES})
    assert [figure.title for figure in predictions] == ["x on S", "y on S"]
    maps = {name: np.stack([VALUES, VALUES], axis=1) for name in ("attention", "local", "contribution")}
    attention = attention_figures("S", THUMBNAIL, BOXES, maps=maps, genes=["x", "y"])
    assert [figure.title.split(":")[0] for figure in attention] == ["x on S", "y on S"]


def test_cases_are_points_with_a_reason_for_each_gene() -> None:
    outcome = CaseOutcome(["a", "b", "c"], ["a", "b", "c"], np.eye(3), np.eye(3))
    charts = case_gene_charts(outcome, ["x", "y", "z"], [(2, "highest PCC here"), (0, "listed")])
    assert [chart.title for chart in charts] == ["z, PCC 1.00: highest PCC here", "x, PCC 1.00: listed"]
