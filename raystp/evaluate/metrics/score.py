"""From one model's predictions to rows of the scores table.

Per section, then `mean` over sections, then `pooled` over all their spots; per gene set; per metric. Point values,
intervals and the count of constant values all come from the same sums (`sums.py`). Give each model a generator with
the same seed: then all are scored on the same bootstrap draws.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Float, Float64, Int64

from raystp.errors import PanelError, RaystpError, SectionError, some
from raystp.evaluate.metrics.genes import GeneSets
from raystp.evaluate.metrics.intervals import DRAWS, FEWEST_BLOCKS, blocks, draw_sections, interval, resample
from raystp.evaluate.metrics.set_scores import (
    SetScores,
    mean_of_existing,
    mean_set_scores,
    pooled_set_scores,
    section_set_scores,
)
from raystp.evaluate.metrics.sums import METRICS, BlockSums, sums
from raystp.missing import column_means

MEAN, POOLED = "mean", "pooled"

Nulls = Mapping[str, Float[np.ndarray, "permutation gene"]]
"""The permutation null: section (or `pooled`) -> PCC of each gene for models trained on permuted labels."""


@dataclass(frozen=True)
class ScoreRow:
    """One row of the scores table, in the columns of `tables.SCORES`."""

    protocol: str
    panel: str
    model: str
    section: str
    """A section's name, `mean` over sections, `pooled` over their spots, or `cases`."""
    genes: str
    """Name of a gene set."""
    metric: str
    value: float
    low: float | None = None
    """Lower end of the bootstrap 95 % interval."""
    high: float | None = None
    null_mean: float | None = None
    """Mean of the permutation null."""
    null_sd: float | None = None
    constant: int = 0
    """Values without spread (genes or spots), whose correlation counts as 0."""
    n: int = 0
    """Spots, cases or tiles."""


@dataclass(frozen=True)
class ScoreLabel:
    """What all rows of one model have in common."""

    protocol: str
    panel: str
    model: str


@dataclass(frozen=True)
class SectionOutcome:
    """Predicted and measured expression of one test section, spots in the same order."""

    predicted: Float[np.ndarray, "spot gene"]
    measured: Float[np.ndarray, "spot gene"]
    """NaN where a gene was not measured, or has no prediction: it is left out of all scores of the section."""
    xy: Float[np.ndarray, "spot 2"]
    """Centres of the spots, in level-0 px."""
    patient: str
    unit: str = "log1p CP10k"
    """Unit of both, for figures."""


@dataclass(frozen=True)
class ModelScores:
    """All scores of one model."""

    sections: dict[str, SetScores]
    mean: SetScores
    pooled: SetScores
    patients: tuple[str, ...]
    """The patient of each section."""
    blocks: int
    """Blocks of spots in all sections; 0 where a section is too small for blocks."""


def score_model(
    label: ScoreLabel,
    outcomes: Mapping[str, SectionOutcome],
    sets: GeneSets,
    *,
    rng: np.random.Generator,
    nulls: Nulls | None = None,
    draws: int = DRAWS,
) -> list[ScoreRow]:
    """Return one model's rows: each section, `mean` and `pooled`.

    A section's interval is a block bootstrap of its spots. `interval_kind` of the sections' patients decides the
    interval of `mean` and `pooled`. RVD and spread have none: a bootstrap of RVD is biased upwards, because a resample
    of blocks holds fewer distinct spots, so the ratio of variances is further from 1. Sections too small for blocks
    have none either. A set whose RVD does not exist in a section has no RVD row there, and none in `mean`; so has its
    spread. `constant` of `mean` is the sum over sections.

    Raises SectionError without sections, PanelError for an empty gene set, and what `check_pair` raises.
    """
    return score_rows(label, section_scores(outcomes, sets, rng=rng, draws=draws), sets, nulls)


def section_scores(
    outcomes: Mapping[str, SectionOutcome], sets: GeneSets, *, rng: np.random.Generator, draws: int = DRAWS
) -> ModelScores:
    """Score one model on its test sections; see `score_model` for the draws.

    Raises SectionError without sections, PanelError for an empty gene set, and what `check_pair` raises.
    """
    _check(outcomes, sets)
    set_columns = list(sets.values())
    centre = _centre([outcome.measured for outcome in outcomes.values()])
    parts = [_reduce(name, outcome, centre, set_columns) for name, outcome in outcomes.items()]
    block_draws = [resample([len(part.n)], draws, rng) for part in parts]
    patients = tuple(outcome.patient for outcome in outcomes.values())
    section_draws = draw_sections(patients, draws, rng)
    each = [section_set_scores(part, counts, set_columns) for part, counts in zip(parts, block_draws, strict=True)]
    pooled = pooled_set_scores(parts, block_draws, section_draws, set_columns)
    sizes = [len(part.n) for part in parts]
    count = sum(sizes) if min(sizes) >= FEWEST_BLOCKS else 0
    return ModelScores(
        dict(zip(outcomes, each, strict=True)), mean_set_scores(each, section_draws), pooled, patients, count
    )


def score_rows(label: ScoreLabel, scores: ModelScores, sets: GeneSets, nulls: Nulls | None = None) -> list[ScoreRow]:
    """Return one model's rows from its scores."""
    scored = {**scores.sections, MEAN: scores.mean, POOLED: scores.pooled}
    null_of = _with_mean(nulls or {}, list(scores.sections))
    return [
        row for name, values in scored.items() for row in _rows(label, name, values, sets, null=null_of.get(name, []))
    ]


def null_summary(
    null: Float[np.ndarray, "permutation gene"], columns: Int64[np.ndarray, "_"]
) -> tuple[float, float | None]:
    """Return mean and standard deviation over permutations of a gene set's mean PCC; no deviation for one.

    A gene without a PCC (NaN) is left out; the mean is NaN where no gene of the set has one.
    """
    return _summary(mean_of_existing(null[:, columns].T))


def _summary(values: Float[np.ndarray, "permutation"]) -> tuple[float, float | None]:
    values = values[~np.isnan(values)]
    if not len(values):
        return np.nan, None
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else None


def _check(outcomes: Mapping[str, SectionOutcome], sets: GeneSets) -> None:
    if not outcomes:
        msg = "there is no test section to score"
        raise SectionError(msg)
    reserved = {MEAN, POOLED} & set(outcomes)
    if reserved:
        msg = f"section name {some(sorted(reserved))} is reserved for a row over all sections: rename the section"
        raise SectionError(msg)
    empty = [name for name, genes in sets.items() if len(genes) == 0]
    if empty:
        msg = f"gene sets {some(empty)} have no gene in this panel: remove them"
        raise PanelError(msg)


def _centre(measured: list[Float[np.ndarray, "_ gene"]]) -> Float64[np.ndarray, "gene"]:
    """Return each gene's mean in the first section that measured it; 0 for a gene that none measured."""
    centre = np.full(measured[0].shape[1], np.nan)
    for values in measured:
        empty = np.isnan(centre)
        if empty.any():
            centre[empty] = column_means(values)[empty]
    return np.asarray(np.nan_to_num(centre))


def _reduce(
    name: str,
    outcome: SectionOutcome,
    centre: Float64[np.ndarray, "gene"],
    set_columns: list[Int64[np.ndarray, "_"]],
) -> BlockSums:
    try:
        return sums(outcome.predicted, outcome.measured, block=blocks(outcome.xy), centre=centre, sets=set_columns)
    except RaystpError as error:
        error.add_note(f"section {name}")
        raise


def _with_mean(nulls: Nulls, sections: list[str]) -> dict[str, list[Float[np.ndarray, "permutation gene"]]]:
    """Return the nulls of each row: its own, and for the mean over sections those of all sections, if each has one."""
    rows = {name: [null] for name, null in nulls.items()}
    if any(name not in nulls for name in sections):
        return rows
    return {**rows, MEAN: [nulls[name] for name in sections]}


def _interval(draws: Float64[np.ndarray, "draw"]) -> tuple[float | None, float | None]:
    """Return the interval over the draws that have a score; none where no draw has one."""
    existing = draws[~np.isnan(draws)]
    return interval(existing) if len(existing) else (None, None)


def _rows(
    label: ScoreLabel,
    section: str,
    scored: SetScores,
    sets: GeneSets,
    *,
    null: list[Float[np.ndarray, "permutation gene"]],
) -> list[ScoreRow]:
    rows: list[ScoreRow] = []
    for (metric_column, metric), (set_column, genes) in product(enumerate(METRICS), enumerate(sets)):
        value = float(scored.values[metric_column, set_column])
        if not np.isfinite(value):
            continue
        low, high, null_mean, null_sd = None, None, None, None
        if scored.draws is not None and metric not in {"RVD", "spread"}:
            low, high = _interval(scored.draws[:, metric_column, set_column])
        if null and metric == "PCC":
            of_sections = [mean_of_existing(one[:, sets[genes]].T) for one in null]
            null_mean, null_sd = _summary(mean_of_existing(np.stack(of_sections)))
        row = ScoreRow(
            label.protocol,
            label.panel,
            label.model,
            section,
            genes,
            metric,
            value,
            low=low,
            high=high,
            null_mean=null_mean,
            null_sd=null_sd,
            constant=int(scored.constant[metric_column, set_column]),
            n=scored.n,
        )
        rows.append(row)
    return rows
