"""Score against number of training sections: the same methods, trained on fewer sections, on the same test sections.

Trainings on other sections may have other panels, so all points are scored on the genes that every one of them
predicts. A point's PCC is the mean over these genes of each gene's mean over the test sections that measured it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from bokeh.models import HoverTool
from bokeh.palettes import Colorblind8
from bokeh.plotting import figure
from jaxtyping import Float

from raystp.evaluate.report.interactive import plain
from raystp.evaluate.report.parts import ReportChart, ReportPart, ReportTable


@dataclass(frozen=True)
class TrainedScore:
    """The scores of each gene of one training: NaN where a gene has none."""

    model: str
    sections: tuple[str, ...]
    """Training sections."""
    patients: int
    """Patients of these."""
    genes: Sequence[str]
    pcc: Float[np.ndarray, "gene"]
    """Mean over the test sections that measured the gene."""
    mse: Float[np.ndarray, "gene"]


@dataclass(frozen=True)
class LearningCurvePoint:
    """One training of a learning curve, in the columns of `tables.LEARNING_CURVE`."""

    model: str
    sections: int
    patients: int
    trained: list[str]
    """Training sections."""
    genes: int
    """Genes that all points have a score of."""
    pcc: float
    mse: float


def learning_curve(trained: Sequence[TrainedScore]) -> list[LearningCurvePoint]:
    """Return the points of all models, sorted by model and number of training sections.

    Nothing where no gene has a score at every point.
    """
    columns = [{gene: place for place, gene in enumerate(one.genes)} for one in trained]
    scored = [
        {gene for gene, place in places.items() if not np.isnan(one.pcc[place])}
        for one, places in zip(trained, columns, strict=True)
    ]
    common = sorted(set.intersection(*scored)) if scored else []
    if not common:
        return []
    order = {one.model: place for place, one in reversed([*enumerate(trained)])}
    points = []
    for one, places in zip(trained, columns, strict=True):
        rows = [places[gene] for gene in common]
        values = float(one.pcc[rows].mean()), float(one.mse[rows].mean())
        points.append(
            LearningCurvePoint(one.model, len(one.sections), one.patients, list(one.sections), len(common), *values)
        )
    return sorted(points, key=lambda point: (order[point.model], point.sections, point.trained))


def curve_lines(points: Sequence[LearningCurvePoint]) -> list[str]:
    """Return a sentence on each model: PCC by number of training sections, mean over subsets of that number."""
    lines = []
    for model, counts in _by_count(points).items():
        scores = ", ".join(f"{np.mean(values):.3f} with {count}" for count, values in counts.items())
        lines.append(f"`{model}`: PCC {scores} training sections, on the {points[0].genes} genes that all have.")
    return lines


def curve_parts(points: Sequence[LearningCurvePoint]) -> list[ReportPart]:
    """Return the chart and the table of the curve; nothing without a point."""
    if not points:
        return []
    rows = [
        [
            model,
            str(count),
            str(len(values)),
            f"{np.mean(values):.3f}",
            f"{np.std(values, ddof=1):.3f}" if len(values) > 1 else "n/a",
        ]
        for model, counts in _by_count(points).items()
        for count, values in counts.items()
    ]
    note = (
        f"Mean PCC of the {points[0].genes} genes that all points have, on the same test sections. The deviation is "
        "over subsets of the training sections."
    )
    table = ReportTable("PCC by number of training sections", ["model", "sections", "subsets", "PCC", "sd"], rows, note)
    return [_chart(points), table]


def _by_count(points: Sequence[LearningCurvePoint]) -> Mapping[str, Mapping[int, list[float]]]:
    """Return model -> training sections -> PCC of each subset."""
    found: dict[str, dict[int, list[float]]] = {}
    for one in points:
        found.setdefault(one.model, {}).setdefault(one.sections, []).append(one.pcc)
    return found


def _chart(points: Sequence[LearningCurvePoint]) -> ReportChart:
    plot = figure(
        height=340,
        sizing_mode="stretch_width",
        max_width=640,
        x_axis_label="training sections",
        y_axis_label="PCC",
        toolbar_location=None,
    )
    plot.xaxis.ticker = sorted({one.sections for one in points})
    for number, (model, counts) in enumerate(_by_count(points).items()):
        colour, name = Colorblind8[number % len(Colorblind8)], plain(model)
        own = [one for one in points if one.model == model]
        means = [float(np.mean(values)) for values in counts.values()]
        plot.line([*counts], means, color=colour, line_width=2, legend_label=name)
        plot.scatter([one.sections for one in own], [one.pcc for one in own], color=colour, size=7, name=name)
    plot.add_tools(HoverTool(tooltips=[("model", "$name"), ("training sections", "@x"), ("PCC", "@y{0.000}")]))
    plot.legend.location = "bottom_right"
    plot.legend.click_policy = "hide"
    return ReportChart("PCC by number of training sections", plot, "A point per training, a line through the means.")
