"""evaluate: predictions + measured spots (or labels of cases) -> a scores table, and a report with pictures."""

import json
import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow.compute as pc
from jaxtyping import Float32, Float64

from raystp import tables
from raystp.artifacts import Artifact, ArtifactWriter, content_id, create_or_open, resolve
from raystp.cluster.tracking.outbox import tracked
from raystp.errors import ConfigError, SectionError, some
from raystp.evaluate.metrics.cases import CASES, score_cases
from raystp.evaluate.metrics.genes import gene_sets
from raystp.evaluate.metrics.score import MEAN, Row, ScoreLabel, SectionOutcome, Sets, score_model
from raystp.evaluate.protocols import protocol_of
from raystp.evaluate.report.board import score_table_text
from raystp.evaluate.report.case_tables import case_table, genes_table
from raystp.evaluate.report.document import build_report
from raystp.expression.sections import SectionCounts, load_counts, sections_of
from raystp.models.baselines.simple import fit_log_total, predict_log_total
from raystp.models.genequery.unseen import mean_gene_profile
from raystp.steps.evaluate.cases import CONTROLS as CASE_CONTROLS
from raystp.steps.evaluate.cases import controls_of, held_cases, outcomes_of
from raystp.steps.evaluate.cases_null import nulls_of
from raystp.steps.evaluate.cases_report import compose_cases
from raystp.steps.evaluate.config import EvaluateConfig
from raystp.steps.evaluate.hotspots import (
    NOTHING,
    HotspotScores,
    deletions,
    genes_taken,
    overlaps,
    stabilities,
    subjects_of,
)
from raystp.steps.evaluate.null import permuted
from raystp.steps.evaluate.predictions import Prediction, open_models
from raystp.steps.evaluate.report import ReportFigures, compose, trained_sections
from raystp.storage import StoragePath

logger = logging.getLogger("raystp")

STEP = "evaluate"
CEILING = "planted mean"
PROFILE = "mean of seen genes"
LOG_TOTAL, SECTION_MEAN = "log total counts", "section mean"
CONTROLS = {
    LOG_TOTAL: "reads no picture but the depth measured at each test spot",
    SECTION_MEAN: "reads no picture but the mean measured over the test section",
}
CEILING_NOTE = "is what the cohort was drawn from: noise leaves no more to be had"


CONFIG = EvaluateConfig


def run(config: EvaluateConfig) -> Artifact:
    """Score every prediction on the same spots, and leave `scores.parquet`, `scores.txt` and `report.html`.

    Against labels of whole cases: on the same cases, and `genes.csv` with each gene's score beside the report.
    """
    store = config.run.store
    spots = resolve(store, config.spots, "spots") if config.spots is not None else None
    predictions = [resolve(store, reference, "impute") for reference in config.predictions]
    inputs: dict[str, Artifact | str] = {"spots": spots} if spots is not None else {}
    inputs |= {f"prediction {number}": one for number, one in enumerate(predictions)}
    if config.bulk is not None:
        inputs |= config.bulk.digests(store)
    if config.planted is not None:
        inputs["planted"] = content_id(StoragePath.of(config.planted))
    draft = create_or_open(config, STEP, inputs)
    if isinstance(draft, Artifact):
        return draft
    models = open_models(predictions, store)
    return _on_cases(config, draft, models) if spots is None else _on_spots(config, draft, spots, models)


def _on_cases(config: EvaluateConfig, draft: ArtifactWriter, models: list[Prediction]) -> Artifact:
    """Score against labels of whole cases."""
    held = held_cases(config, models)
    sets = _sets(config, models[0].meta, tuple(models[0].meta["genes"]), _held(models))
    outcomes = outcomes_of(held, models, config.run.store)
    controls = controls_of(held, models[0], run=config.run)
    nulls = nulls_of(held, models, config.permutations, config=config)
    rows: list[Row] = []
    label = models[0].prediction.manifest.notes
    for name, outcome in {**outcomes, **controls}.items():
        mark, rng = ScoreLabel(label["protocol"], label["panel"], name), np.random.default_rng(config.seed)
        rows += score_cases(mark, outcome, sets, rng=rng, null=nulls.get(name), draws=config.draws)
    slides = [slide for case in held.cases for slide in case.slides]
    hot = _hotspots(config, models, {}, slides=slides)
    text = case_table(rows, outcomes | controls)
    (draft.path / "genes.csv").write_bytes(genes_table(outcomes | controls, models[0].meta["genes"]).encode())
    notes = [f"`{name}` {note}." for name, note in CASE_CONTROLS.items() if name in controls] + hot.lines
    content = compose_cases(config, held, models, outcomes, rows=rows + hot.rows, footnotes=notes)
    (draft.path / "report.html").write_bytes(build_report(content).encode())
    notes += [f"failed at {row['stage']}: {row['slide']}: {row['reason']}" for row in content.failures]
    notes.append(f"report: {draft.path / 'report.html'}")
    return _finish(config, draft, rows + hot.rows, text=text, notes=notes, cohort=held.embed.manifest.name)


def _on_spots(config: EvaluateConfig, draft: ArtifactWriter, spots: Artifact, models: list[Prediction]) -> Artifact:
    """Score against measured spots, and draw the report."""
    measured = _measured(spots, models)
    genes = tuple(models[0].meta["genes"])
    held = _held(models)
    sets = _sets(config, models[0].meta, genes, held)
    outcomes = {one.name: _outcomes(one, measured, genes) for one in models}
    nulls = permuted(models, spots, tuple(measured), config.permutations, run=config.run)
    controls = _controls(config, spots, meta=models[0].meta, measured=measured, genes=genes)
    controls |= _profiles(models, outcomes, genes)
    label = models[0].prediction.manifest.notes
    rows: list[Row] = []
    for name, of_sections in {**controls, **outcomes}.items():
        rng = np.random.default_rng(config.seed)
        mark = ScoreLabel(label["protocol"], label["panel"], name)
        rows += score_model(mark, of_sections, sets, rng=rng, nulls=nulls.get(name), draws=config.draws)
    rows = _in_order(rows, [*outcomes, *controls])
    hot = _hotspots(config, models, measured, slides=[counts.slide for counts in measured.values()])
    rows += hot.rows
    notes = [f"`{name}` {note}." for name, note in {**CONTROLS, CEILING: CEILING_NOTE}.items() if name in controls]
    notes += hot.lines
    shown = ReportFigures(rows, outcomes, measured, genes, config.genes, config.permutations, notes)
    content = compose(shown, spots, models, protocol_of(label["protocol"]), store=StoragePath.of(config.run.store))
    (draft.path / "report.html").write_bytes(build_report(content).encode())
    notes += [f"failed at {row['stage']}: {row['slide']}: {row['reason']}" for row in content.failures]
    notes.append(f"report: {draft.path / 'report.html'}")
    return _finish(config, draft, rows, text=score_table_text(rows), notes=notes, cohort=spots.manifest.name)


def _finish(
    config: EvaluateConfig, draft: ArtifactWriter, rows: list[Row], *, text: str, notes: list[str], cohort: str
) -> Artifact:
    (draft.path / "scores.parquet").write_table(tables.of_rows(rows, tables.SCORES))
    (draft.path / "scores.txt").write_bytes(f"{text}\n".encode())
    _track(config, draft, rows, cohort=cohort)
    models = len(config.predictions)
    return draft.finish({"scores": len(rows), "models": models}, [], {"summary": "\n".join([text, "", *notes])})


def _track(config: EvaluateConfig, draft: ArtifactWriter, rows: list[Row], *, cohort: str) -> None:
    """Log each model's mean over sections, and the report."""
    tracker = config.run.tracker(cohort)
    book = tracker.book(f"{draft.name}-{draft.fingerprint}", draft.folder)
    shown = {MEAN, CASES}
    means = {f"{row['metric']} {row['genes']}/{row['model']}": row["value"] for row in rows if row["section"] in shown}
    with tracked(tracker, book, draft.config) as one:
        one.metrics(means, step=0)
        genes = ["genes.csv"] if config.bulk is not None else []
        for name in ("scores.txt", "scores.parquet", "report.html", *genes):
            one.file(f"{draft.folder}/{name}")
    if one.left:
        logger.warning(f"  {one.left}")


def _measured(spots: Artifact, models: list[Prediction]) -> dict[str, SectionCounts]:
    """Return the measured sections that every model has predicted; raises SectionError where there is none."""
    slides = [set(one.prediction.manifest.notes["slides"]) for one in models]
    common = set.intersection(*slides)
    names = [name for name, one in sections_of(spots).items() if one["slide"] in common]
    if not names:
        predicted = some(sorted(set.union(*slides)))
        msg = f"no measured section of {spots.path} lies on a slide that every model has predicted ({predicted})"
        raise SectionError(msg)
    return {name: load_counts(spots, name) for name in names}


def _outcomes(one: Prediction, measured: dict[str, SectionCounts], genes: tuple[str, ...]) -> dict[str, SectionOutcome]:
    """Return predicted beside measured expression, on the spots that have a tile."""
    found = {}
    for name, counts in measured.items():
        file = one.prediction.path / "predictions" / f"{counts.slide}.parquet"
        tables.check(file.read_schema(), tables.predictions(len(genes)), str(file))
        table = file.read_table()
        table = table.filter(pc.is_in(table["spot"], value_set=tables.strings(counts.spots)))
        at = {spot: row for row, spot in enumerate(counts.spots)}
        order = [at[spot] for spot in table["spot"].to_pylist()]
        if not order:
            msg = f"{file} predicts no spot of section '{name}': tile around the measured spots, then embed and impute"
            raise SectionError(msg)
        kept = counts.select(order)
        found[name] = SectionOutcome(
            tables.matrix(table["expression"]), kept.expression(genes), kept.xy, counts.patient
        )
    return found


def _held(models: list[Prediction]) -> frozenset[str]:
    """Return the genes that were held back from a training; raises ConfigError where two models disagree."""
    found = {frozenset(one.meta["unseen"]) for one in models if one.meta.get("unseen")}
    if len(found) > 1:
        msg = "predictions: their models were trained without different genes; score them apart"
        raise ConfigError(msg)
    return next(iter(found), frozenset())


def _sets(config: EvaluateConfig, meta: dict[str, Any], genes: tuple[str, ...], held: frozenset[str]) -> Sets:
    """Return all, HEG and HVG from the training side, seen and unseen genes, and the planted sets of the panel."""
    sets = gene_sets(np.asarray(meta["training_mean"]), np.asarray(meta["training_variance"]), genes)
    where = {gene: number for number, gene in enumerate(genes)}
    if held:
        sets |= {
            "seen": np.asarray([where[gene] for gene in genes if gene not in held], np.int64),
            "unseen": np.asarray([where[gene] for gene in genes if gene in held], np.int64),
        }
    if config.planted is None:
        return sets
    planted = json.loads((StoragePath.of(config.planted) / "genes.json").read_bytes())
    at = {gene: number for number, gene in enumerate(genes)}
    named = {name: [at[gene] for gene in members if gene in at] for name, members in planted.items()}
    return sets | {name: np.asarray(found, np.int64) for name, found in named.items() if found}


def _profiles(
    models: list[Prediction], outcomes: dict[str, dict[str, SectionOutcome]], genes: tuple[str, ...]
) -> dict[str, dict[str, SectionOutcome]]:
    """Return what is known of an unseen gene without its text: the mean of what the same model predicts of the seen."""
    found: dict[str, dict[str, SectionOutcome]] = {}
    for one in models:
        if not one.meta.get("unseen"):
            continue
        seen = np.asarray([gene not in one.meta["unseen"] for gene in genes])
        found[f"{one.name}, {PROFILE}"] = {
            section: replace(outcome, predicted=mean_gene_profile(outcome.predicted[:, seen], len(genes)))
            for section, outcome in outcomes[one.name].items()
        }
    return found


def _controls(
    config: EvaluateConfig,
    spots: Artifact,
    *,
    meta: dict[str, Any],
    measured: dict[str, SectionCounts],
    genes: tuple[str, ...],
) -> dict[str, dict[str, SectionOutcome]]:
    """Return what reads no picture but the test measurement itself: depth alone, and the section's own mean.

    For a synthetic cohort also the planted mean: no model can know more.
    """
    train = [load_counts(spots, name) for name in trained_sections(spots, meta)]
    line = None
    if train:
        totals, expression = [c.totals for c in train], [c.expression(genes) for c in train]
        line = fit_log_total(np.concatenate(totals), np.concatenate(expression))
    controls: dict[str, dict[str, SectionOutcome]] = {}
    for name, counts in measured.items():
        truth = counts.expression(genes)
        flat = np.repeat(truth.mean(axis=0, keepdims=True), len(truth), axis=0)
        depth = {LOG_TOTAL: predict_log_total(line, counts.totals)} if line is not None else {}
        for control, values in {**depth, SECTION_MEAN: flat}.items():
            controls.setdefault(control, {})[name] = SectionOutcome(values, truth, counts.xy, counts.patient)
        if config.planted is not None:
            ceiling = _planted(StoragePath.of(config.planted), counts, genes)
            controls.setdefault(CEILING, {})[name] = SectionOutcome(ceiling, truth, counts.xy, counts.patient)
    return controls


def _planted(folder: StoragePath, counts: SectionCounts, genes: tuple[str, ...]) -> Float32[np.ndarray, "spot gene"]:
    """Return log1p CP10k of the planted mean, spots in the order of the counts."""
    table = (folder / f"{counts.section}.parquet").read_table()
    at = {spot: row for row, spot in enumerate(table["spot"].to_pylist())}
    rows = [at[spot] for spot in counts.spots]
    share: Float64[np.ndarray, "spot gene"] = np.stack([table[gene].to_numpy()[rows] for gene in genes], axis=1)
    return np.log1p(share * 1e4).astype(np.float32)


def _hotspots(
    config: EvaluateConfig, models: list[Prediction], measured: dict[str, SectionCounts], *, slides: list[str]
) -> HotspotScores:
    """Return what the maps of attention regression are worth; where it is known what was planted, beside that too."""
    subjects, genes = subjects_of(models, StoragePath.of(config.run.store)), tuple(models[0].meta["genes"])
    wanted: list[str] = []
    found = NOTHING
    if config.planted is not None:
        folder = StoragePath.of(config.planted)
        wanted = json.loads((folder / "genes.json").read_bytes()).get("planted", [])
        found += overlaps(
            subjects, measured, genes, planted=lambda counts: _planted(folder, counts, genes), wanted=wanted
        )
    tried = genes_taken(models[0].meta, wanted, config.genes)
    return found + deletions(subjects, slides, tried, seed=config.seed) + stabilities(subjects, slides, tried)


def _in_order(rows: list[Row], names: list[str]) -> list[Row]:
    return sorted(rows, key=lambda row: names.index(row["model"]))
