"""What the report of an evaluation shows: which genes on which sections, whose curves, which manifests."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from raystp import tables
from raystp.artifacts import Artifact, open_artifact
from raystp.evaluate.metrics.genes import pcc_per_gene, shown
from raystp.evaluate.metrics.intervals import interval_kind
from raystp.evaluate.metrics.score import Row, SectionOutcome
from raystp.evaluate.protocols import EvaluationProtocol
from raystp.evaluate.report.board import ScoreTable, boards
from raystp.evaluate.report.charts import curve_figure, scores_figure
from raystp.evaluate.report.document import Report, SectionPictures
from raystp.evaluate.report.page import PageFigure
from raystp.evaluate.report.pictures import GeneMap, SlideThumbnail, SpotLayout, maps_figure, png, whole_slide_figure
from raystp.expression.sections import SectionCounts, sections_of
from raystp.steps.evaluate.predictions import Prediction
from raystp.steps.evaluate.uncertainty_maps import squares_of, trust_pictures
from raystp.steps.impute.places import thumbnail_of
from raystp.storage import StoragePath
from raystp.units import Level0Pixels

_QUERY = re.compile(r"""([a-z][a-z0-9+.-]*://[^"?\s]*)\?[^"\s]*""")

GENES_OF_A_SLIDE = 3
"""Genes that are drawn over a slide that was never measured."""


@dataclass(frozen=True)
class ReportFigures:
    """The figures of an evaluation, and what to show of them."""

    rows: list[Row]
    outcomes: dict[str, dict[str, SectionOutcome]]
    measured: dict[str, SectionCounts]
    genes: tuple[str, ...]
    named: Sequence[str]
    permutations: int
    footnotes: Sequence[str]


def compose(
    shown_: ReportFigures,
    spots: Artifact,
    models: list[Prediction],
    protocol: EvaluationProtocol,
    *,
    store: StoragePath,
) -> Report:
    """Return the report's content; the first model is the one that it is about."""
    first = models[0]
    chain = chain_of(first, store) | {"spots": spots}
    names = [one.name for one in models]
    against = "ridge" if "ridge" in names else names[-1]
    return Report(
        title=f"{first.name}: {', '.join(shown_.measured)}",
        protocol=protocol,
        model=first.name,
        against=against,
        trained=_whose(spots, first.meta["train"]),
        tested=_whose(spots, list(shown_.measured)),
        interval=interval_kind([counts.patient for counts in shown_.measured.values()]),
        rows=shown_.rows,
        permutations=shown_.permutations,
        footnotes=shown_.footnotes,
        charts=[chart_of(board, first.name) for board in boards(shown_.rows)],
        sections=[_section(name, shown_, first, chain["embeddings"]) for name in shown_.measured]
        + _unmeasured(shown_, spots, first, chain["embeddings"]),
        curves=curves_of(models),
        failures=[row for one in chain.values() for row in one.failures().to_pylist()],
        manifests={role: plain_manifest(one) for role, one in chain.items()},
    )


def plain_manifest(one: Artifact) -> dict[str, Any]:
    """Return a manifest without the queries of its URIs: they may hold credentials, and a report is passed on."""
    shown_: dict[str, Any] = json.loads(_QUERY.sub(r"\1", json.dumps(asdict(one.manifest))))
    return shown_


def chain_of(first: Prediction, store: StoragePath) -> dict[str, Artifact]:
    """Return the artifacts that the first model's figures came from, by role."""
    chain = {"prediction": first.prediction, "model": first.model}
    for role, step in (("index", "index"), ("embeddings", "embed")):
        if role in first.prediction.manifest.inputs:
            chain[role] = open_artifact(store / first.prediction.manifest.inputs[role], step)
    chain["tiles"] = open_artifact(StoragePath(chain["embeddings"].manifest.notes["tiles"]), "tile")
    return chain


def _whose(spots: Artifact, sections: Sequence[str]) -> list[str]:
    known = sections_of(spots)
    return [
        f"{name} (patient {known[name]['patient']}, {known[name]['spots']} spots)"
        if name in known
        else f"{name} (a case's label)"
        for name in sections
    ]


def trained_sections(spots: Artifact, meta: Mapping[str, Any]) -> list[str]:
    """Return the measured sections of the training side; of a model that learned from cases, those of their patients.

    The spots of the latter may not be there at all.
    """
    if "bulk" not in meta:
        return list(meta["train"])
    patients = {meta["patients"][case] for case in meta["train"]}
    return [name for name, one in sections_of(spots).items() if one["patient"] in patients]


def chart_of(board: ScoreTable, highlight: str) -> PageFigure:
    """Draw a board's scores."""
    return PageFigure(f"Scores, panel {board.panel}", png(scores_figure(board, highlight)))


def curves_of(models: list[Prediction]) -> list[PageFigure]:
    """Draw what the trainings left of their epochs."""
    curves = {one.name: one.model.table("epochs.parquet", tables.EPOCHS).to_pylist() for one in models}
    curves = {name: rows for name, rows in curves.items() if rows}
    return [PageFigure("Loss and validation PCC by epoch", png(curve_figure(curves)))] if curves else []


def _section(name: str, content: ReportFigures, first: Prediction, embed: Artifact) -> SectionPictures:
    """Draw the best, the median and the named genes of a section, measured beside predicted."""
    outcome, counts = content.outcomes[first.name][name], content.measured[name]
    pcc, _ = pcc_per_gene(outcome.predicted, outcome.measured)
    picture = whole_slide(embed, counts.slide)
    drawn = []
    for gene, reason in shown(pcc, content.genes, content.named):
        values = outcome.measured[:, gene], outcome.predicted[:, gene]
        one = GeneMap(content.genes[gene], *values, pcc=float(pcc[gene]))
        figure = maps_figure(picture, SpotLayout(outcome.xy, Level0Pixels(counts.diameter_px)), one)
        drawn.append(PageFigure(f"{one.gene} on {name}", png(figure), f"{one.gene}: {reason}"))
    drawn += trust_pictures(first.prediction, counts.slide, picture)
    note = f"Slide {counts.slide}, patient {counts.patient}, {len(outcome.xy)} spots."
    return SectionPictures(name, drawn, note)


def _unmeasured(content: ReportFigures, spots: Artifact, first: Prediction, embed: Artifact) -> list[SectionPictures]:
    """Draw a few genes over each predicted slide that has no measured spots."""
    with_spots = {one["slide"] for one in sections_of(spots).values()}
    slides = [slide for slide in first.prediction.manifest.notes["slides"] if slide not in with_spots]
    genes = [gene for gene in content.named if gene in content.genes][:GENES_OF_A_SLIDE]
    genes = genes or [content.genes[int(np.argmax(first.meta["training_variance"]))]]
    return [_slide(slide, genes, content.genes, first=first, embed=embed) for slide in slides]


def _slide(
    slide: str, genes: list[str], panel: tuple[str, ...], *, first: Prediction, embed: Artifact
) -> SectionPictures:
    drawn, tiles = predicted_pictures(slide, genes, panel, first=first, embed=embed)
    return SectionPictures(slide, drawn, f"{tiles} tiles of a slide that was never measured.")


def predicted_pictures(
    slide: str, genes: Sequence[str], panel: Sequence[str], *, first: Prediction, embed: Artifact
) -> tuple[list[PageFigure], int]:
    """Draw what was predicted of each tile of a slide, and how far to trust it; return how many tiles there are."""
    table = first.prediction.table(f"predictions/{slide}.parquet", tables.predictions(len(panel)))
    squares, values, picture = squares_of(table), tables.matrix(table["expression"]), whole_slide(embed, slide)
    drawn = [
        PageFigure(
            f"{gene} on {slide}", png(whole_slide_figure(picture, squares, values[:, panel.index(gene)], gene=gene))
        )
        for gene in genes
    ]
    return drawn + trust_pictures(first.prediction, slide, picture), len(squares)


def whole_slide(embed: Artifact, slide: str) -> SlideThumbnail:
    """Return a slide's small picture and its true size."""
    small = thumbnail_of(embed, slide)
    height, width = small.pixels.shape[:2]
    return SlideThumbnail(small.pixels, Level0Pixels(width / small.scale), Level0Pixels(height / small.scale))
