"""The page of a pipeline's cohort, `index.html`: the reports of all folds, their scores, the work and the failures."""

from collections.abc import Mapping, Sequence

from raystp import tables
from raystp.artifacts import Artifact
from raystp.evaluate.metrics.cases import CASES
from raystp.evaluate.metrics.folds import CrossValidatedScore
from raystp.evaluate.metrics.score import MEAN, ScoreRow
from raystp.evaluate.protocols import protocol_of
from raystp.evaluate.published.registry import published_protocol
from raystp.evaluate.report.cohort import Cohort, ReportLink, build_cohort_page, fold_score_parts, slide_figure
from raystp.evaluate.report.parts import ReportFigure, ReportPart
from raystp.evaluate.report.score_tables import with_interval
from raystp.steps.evaluate.published.score import described
from raystp.steps.evaluate.report import score_charts, work_table
from raystp.steps.impute.tiles import thumbnail_of
from raystp.steps.pipeline.folds.fold import Fold

SLIDES_SHOWN = 6
"""Thumbnails of a report; the others are in it."""

PAGE = "index.html"


def cohort_page(
    name: str,
    found: Mapping[str, Artifact],
    folds: Sequence[Fold],
    scores: Sequence[CrossValidatedScore],
    *,
    protocol: str | None,
) -> str | None:
    """Return the page; None for a pipeline that evaluates nothing. `scores` are over the folds, if there are any.

    `protocol` is the published one, whose description and leak are shown; None for that of the predictions.
    """
    evaluations = {role: one for role, one in found.items() if one.manifest.step == "evaluate"}
    if not evaluations:
        return None
    by_number = {f"evaluate fold {fold.number}": fold for fold in folds}
    slides = list(dict.fromkeys(slide for fold in folds for slide in fold.slides)) or _predicted(found)
    links = [_link(one, by_number.get(role), found, slides) for role, one in evaluations.items()]
    return build_cohort_page(
        Cohort(
            title=name,
            protocol=protocol_of(_protocol(found)) if protocol is None else described(published_protocol(protocol)),
            summary=_summary(found, links, folds),
            reports=links,
            scores=_scores(evaluations, scores, folds),
            work=[work_table(list(found.values()))],
            failures=[row for one in found.values() for row in one.failures().to_pylist()],
        )
    )


def _protocol(found: Mapping[str, Artifact]) -> str:
    return next(str(one.manifest.notes["protocol"]) for one in found.values() if one.manifest.step == "impute")


def _summary(found: Mapping[str, Artifact], links: Sequence[ReportLink], folds: Sequence[Fold]) -> str:
    slides = next(one.manifest.rows["slides"] for one in found.values() if one.manifest.step == "embed")
    trained = sum(one.manifest.step == "train" for one in found.values())
    of_folds = f" in {len(folds)} folds" if folds else ""
    return f"{_counted(slides, 'slide')}, {_counted(trained, 'training')}{of_folds}, {_counted(len(links), 'report')}."


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _link(
    evaluation: Artifact, fold: Fold | None, found: Mapping[str, Artifact], all_slides: Sequence[str]
) -> ReportLink:
    """Return the link to an evaluation's report, with its first model's PCC and the slides that it predicts.

    An evaluation of no fold is of all slides.
    """
    rows = _rows(evaluation)
    first = next((row for row in rows if (row.metric, row.genes) == ("PCC", "all")), None)
    slides = list(fold.slides if fold is not None else all_slides)
    return ReportLink(
        name=evaluation.manifest.name if fold is None else f"Fold {fold.number}",
        address=f"../../{evaluation.manifest.folder}/report.html",
        tested=list(fold.test) if fold is not None else slides[:SLIDES_SHOWN],
        score="" if first is None else f"{first.model}: PCC {with_interval(first)}",
        thumbnails=_thumbnails(found, slides[:SLIDES_SHOWN]),
        note="" if len(slides) <= SLIDES_SHOWN else f"and {len(slides) - SLIDES_SHOWN} more slides",
    )


def _rows(evaluation: Artifact) -> list[ScoreRow]:
    """Return an evaluation's scores over all of its sections, or over its cases."""
    table = evaluation.table("scores.parquet", tables.SCORES).to_pylist()
    return [ScoreRow(**row) for row in table if row["section"] in {MEAN, CASES}]


def _predicted(found: Mapping[str, Artifact]) -> list[str]:
    return next(list(one.manifest.notes["slides"]) for one in found.values() if one.manifest.step == "impute")


def _thumbnails(found: Mapping[str, Artifact], slides: Sequence[str]) -> list[ReportFigure]:
    embed = next(one for one in found.values() if one.manifest.step == "embed")
    return [slide_figure(slide, thumbnail_of(embed, slide).pixels) for slide in slides]


def _scores(
    evaluations: Mapping[str, Artifact], scores: Sequence[CrossValidatedScore], folds: Sequence[Fold]
) -> list[ReportPart]:
    if folds:
        return fold_score_parts(scores, [f"fold {fold.number}" for fold in folds])
    rows = [row for one in evaluations.values() for row in _rows(one)]
    return list(score_charts(rows, rows[0].model, rows[0].section))
