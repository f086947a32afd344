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
from raystp.evaluate.metrics.sums import METRICS, BlockSums, join, score, scores_of_draws, sums

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
    xy: Float[np.ndarray, "spot 2"]
    """Centres of the spots, in level-0 px."""
    patient: str


@dataclass(frozen=True)
class _MetricValues:
    values: Float64[np.ndarray, "metric sets"]
    constant: Int64[np.ndarray, "metric sets"]
    draws: Float64[np.ndarray, "draw metric sets"] | None
    n: int


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
    interval of `mean` and `pooled`. RVD has no interval: its bootstrap is biased upwards, because a resample of blocks
    holds fewer distinct spots, so the ratio of variances is further from 1. Sections too small for blocks have none
    either. A set whose RVD does not exist in a section has no RVD row there, and none in `mean`. `constant` of `mean`
    is the sum over sections.

    Raises SectionError without sections, PanelError for an empty gene set, and what `check_pair` raises.
    """
    _check(outcomes, sets)
    set_columns = list(sets.values())
    centre = next(iter(outcomes.values())).measured.mean(axis=0, dtype=np.float64)
    parts = [_reduce(name, outcome, centre, set_columns) for name, outcome in outcomes.items()]
    block_draws = [resample([len(part.n)], draws, rng) for part in parts]
    section_draws = draw_sections([outcome.patient for outcome in outcomes.values()], draws, rng)
    each = [_section(part, counts, set_columns) for part, counts in zip(parts, block_draws, strict=True)]
    scored = dict(zip(outcomes, each, strict=True))
    scored[MEAN] = _mean(each, section_draws)
    scored[POOLED] = _pooled(parts, block_draws, section_draws, set_columns)
    null_of = _with_mean(nulls or {}, list(outcomes))
    return [row for name, values in scored.items() for row in _rows(label, name, values, sets, null=null_of.get(name))]


def null_summary(
    null: Float[np.ndarray, "permutation gene"], columns: Int64[np.ndarray, "_"]
) -> tuple[float, float | None]:
    """Return mean and standard deviation over permutations of a gene set's mean PCC; no deviation for one."""
    values = null[:, columns].mean(axis=1)
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


def _section(
    part: BlockSums, block_draws: Float64[np.ndarray, "draw block"], set_columns: list[Int64[np.ndarray, "_"]]
) -> _MetricValues:
    point = score(part, set_columns)
    draws = scores_of_draws(part, block_draws, set_columns).values if len(part.n) >= FEWEST_BLOCKS else None
    return _MetricValues(point.values[0], point.constant[0], draws, int(part.n.sum()))


def _pooled(
    parts: list[BlockSums],
    block_draws: list[Float64[np.ndarray, "draw _"]],
    section_draws: Float64[np.ndarray, "draw section"] | None,
    set_columns: list[Int64[np.ndarray, "_"]],
) -> _MetricValues:
    joined = join(parts)
    point = score(joined, set_columns)
    draws = None
    if section_draws is not None:
        counts = np.repeat(section_draws, [len(part.n) for part in parts], axis=1)
        draws = scores_of_draws(joined, counts, set_columns).values
    elif all(len(part.n) >= FEWEST_BLOCKS for part in parts):
        draws = scores_of_draws(joined, np.concatenate(block_draws, axis=1), set_columns).values
    return _MetricValues(point.values[0], point.constant[0], draws, int(joined.n.sum()))


def _mean(each: list[_MetricValues], section_draws: Float64[np.ndarray, "draw section"] | None) -> _MetricValues:
    values = np.stack([scored.values for scored in each])
    draws = None
    if section_draws is not None:
        draws = np.tensordot(section_draws / section_draws.sum(axis=1, keepdims=True), values, axes=1)
    else:
        within = [scored.draws for scored in each if scored.draws is not None]
        if len(within) == len(each):
            draws = np.mean(within, axis=0)
    return _MetricValues(values.mean(axis=0), np.sum([s.constant for s in each], axis=0), draws, sum(s.n for s in each))


def _with_mean(nulls: Nulls, sections: list[str]) -> Nulls:
    """Add the null of the mean over sections, permutation by permutation, if each section has one."""
    if any(name not in nulls for name in sections):
        return nulls
    return {**nulls, MEAN: np.mean([nulls[name] for name in sections], axis=0)}


def _rows(
    label: ScoreLabel,
    section: str,
    scored: _MetricValues,
    sets: GeneSets,
    *,
    null: Float[np.ndarray, "permutation gene"] | None,
) -> list[ScoreRow]:
    rows: list[ScoreRow] = []
    for (metric_column, metric), (set_column, genes) in product(enumerate(METRICS), enumerate(sets)):
        value = float(scored.values[metric_column, set_column])
        if not np.isfinite(value):
            continue
        low, high, null_mean, null_sd = None, None, None, None
        if scored.draws is not None and metric != "RVD":
            low, high = interval(scored.draws[:, metric_column, set_column])
        if null is not None and metric == "PCC":
            null_mean, null_sd = null_summary(null, sets[genes])
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
