"""What the report of an evaluation over cases shows: which genes over the cases, and maps of a few slides."""

from collections.abc import Mapping, Sequence

import numpy as np

from raystp.evaluate.metrics.cases import CASES, FEWEST_CASES, CaseOutcome
from raystp.evaluate.metrics.genes import pcc_per_gene, shown
from raystp.evaluate.metrics.intervals import FEWEST_UNITS
from raystp.evaluate.metrics.score import Row
from raystp.evaluate.protocols import protocol_of
from raystp.evaluate.report.board import boards
from raystp.evaluate.report.document import Report, SectionPictures
from raystp.evaluate.report.page import PageFigure
from raystp.evaluate.report.pictures import cases_figure, png, tiles_figure
from raystp.expression.sections import embeddings_of
from raystp.steps.evaluate.cases import GENE_MEAN, RIDGE, HeldOutCases
from raystp.steps.evaluate.config import EvaluateConfig
from raystp.steps.evaluate.hotspots import AttentionSubject, subjects_of
from raystp.steps.evaluate.predictions import Prediction
from raystp.steps.evaluate.report import (
    chain_of,
    chart_of,
    curves_of,
    plain_manifest,
    predicted_pictures,
    whole_slide,
)
from raystp.steps.evaluate.uncertainty_maps import squares_of
from raystp.storage import StoragePath

SLIDES_DRAWN = 3
"""Slides whose maps are drawn; the rest are in the prediction."""

GENES_DRAWN = 2


def compose_cases(
    config: EvaluateConfig,
    held: HeldOutCases,
    models: list[Prediction],
    outcomes: Mapping[str, CaseOutcome],
    *,
    rows: Sequence[Row],
    footnotes: Sequence[str],
) -> Report:
    """Return the report's content; the first model is the one that it is about."""
    first, store = models[0], StoragePath.of(config.run.store)
    chain = chain_of(first, store)
    patients = [case.patient for case in held.cases]
    enough = len(held.cases) >= FEWEST_CASES
    genes = _genes(outcomes[first.name], first.meta["genes"], config.genes)
    return Report(
        title=f"{first.name}: {_counted(len(held.cases), 'case')}",
        protocol=protocol_of(first.prediction.manifest.notes["protocol"]),
        model=first.name,
        against=RIDGE if RIDGE in {row["model"] for row in rows} else GENE_MEAN,
        trained=[_counted(len(first.meta["train"]), "case" if "bulk" in first.meta else "section")],
        tested=[f"{_counted(len(held.cases), 'case')} of {_counted(len(set(patients)), 'patient')}"],
        interval="over patients" if len(set(patients)) >= FEWEST_UNITS else "over cases",
        over=CASES,
        rows=rows,
        permutations=config.permutations,
        footnotes=footnotes,
        charts=[chart_of(board, first.name) for board in boards(rows, CASES) if enough]
        + _over_cases(outcomes[first.name], first.meta["genes"], genes),
        sections=_slides(first, held, store, [first.meta["genes"][gene] for gene, _ in genes][:GENES_DRAWN]),
        curves=curves_of(models),
        failures=[row for one in chain.values() for row in one.failures().to_pylist()],
        manifests={role: plain_manifest(one) for role, one in chain.items()},
    )


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _genes(outcome: CaseOutcome, genes: Sequence[str], named: Sequence[str]) -> list[tuple[int, str]]:
    """Return the best, the median and the named genes; with too few cases for a PCC, the first and the named."""
    if len(outcome.cases) < FEWEST_CASES:
        return list({0: "first of the panel", **{genes.index(one): "named" for one in named if one in genes}}.items())
    return shown(pcc_per_gene(outcome.predicted, outcome.measured)[0], genes, named)


def _over_cases(outcome: CaseOutcome, genes: Sequence[str], chosen: Sequence[tuple[int, str]]) -> list[PageFigure]:
    pcc, _ = pcc_per_gene(outcome.predicted, outcome.measured)
    enough = len(outcome.cases) >= FEWEST_CASES
    panels = [
        (
            f"{genes[at]}" + (f"   PCC {pcc[at]:.2f}" if enough else ""),
            np.asarray(outcome.measured[:, at]),
            np.asarray(outcome.predicted[:, at]),
        )
        for at, _ in chosen
    ]
    said = "; ".join(f"{genes[at]}: {why}" for at, why in chosen)
    return [
        PageFigure("Predicted over measured, a point a case", png(cases_figure(panels)), f"A point a case. {said}.")
    ]


def _slides(first: Prediction, held: HeldOutCases, store: StoragePath, genes: list[str]) -> list[SectionPictures]:
    """Draw a few slides: maps of attention regression, of other models what they predict of each tile."""
    subject = next(iter(subjects_of([first], store)), None)
    chosen = [(case, slide) for case in held.cases for slide in case.slides][:SLIDES_DRAWN]
    found = []
    for case, slide in chosen:
        if subject:
            drawn = _of_attention(subject, slide, genes)
        else:
            drawn, _ = predicted_pictures(slide, genes, first.meta["genes"], first=first, embed=held.embed)
        note = f"Case {case.name}, patient {case.patient}; the case's label is all that was measured."
        found.append(SectionPictures(f"Slide {slide}", drawn, note))
    return found


def _of_attention(subject: AttentionSubject, slide: str, genes: list[str]) -> list[PageFigure]:
    squares, whole = squares_of(embeddings_of(subject.embed, slide)), whole_slide(subject.embed, slide)
    maps = subject.ready.maps(subject.features(slide), genes)
    drawn = []
    for column, gene in enumerate(genes):
        own = {
            "attention": (maps["attention"][:, column], "share"),
            "local prediction": (maps["local"][:, column], "units of the labels"),
            "contribution": (maps["contribution"][:, column], "units of the labels"),
        }
        title = f"{gene} on {slide}: where the prediction comes from"
        drawn.append(PageFigure(title, png(tiles_figure(whole, squares, own, title)), title))
    return drawn
