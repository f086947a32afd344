"""From one model's predictions to rows of the scores table.

Per section, then `mean` over sections, then `pooled` over all their spots; per gene set; per metric. Point values,
intervals and the count of values without spread all come from the same sums (`sums.py`). Give every model a generator
of the same seed: all are then scored on the same draws.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int64

from raystp.errors import PanelError, RaystpError, SectionError, some
from raystp.evaluate.metrics.intervals import DRAWS, FEWEST_BLOCKS, blocks, draw_sections, interval, resample
from raystp.evaluate.metrics.sums import METRICS, BlockSums, join, score, scores_of_draws, sums

MEAN, POOLED = "mean", "pooled"

Row = dict[str, Any]
"""One row in the columns of a table, as plain values."""
Sets = Mapping[str, Int64[np.ndarray, "_"]]
"""Name of a gene set -> its indices into the panel."""
Nulls = Mapping[str, Float[np.ndarray, "permutation gene"]]
"""Section (or `pooled`) -> PCC of each gene under models trained on permuted labels."""


@dataclass(frozen=True)
class ScoreLabel:
    """What stands in front of every row."""

    protocol: str
    panel: str
    model: str


@dataclass(frozen=True)
class SectionOutcome:
    """What was predicted for one test section and what was measured, spots in the same order."""

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
    sets: Sets,
    *,
    rng: np.random.Generator,
    nulls: Nulls | None = None,
    draws: int = DRAWS,
) -> list[Row]:
    """Return one model's rows in the columns of `tables.SCORES`: each section, `mean` and `pooled`.

    A section's interval is a block bootstrap of its spots. That of `mean` and `pooled` is what `interval_kind` of the
    sections' patients says. None is given to RVD, whose bootstrap is biased upwards (a resample of blocks holds fewer
    different spots, and the ratio of variances strays further from 1), nor to sections too small for blocks. A set
    whose RVD does not exist in a section has no RVD row there, and none in `mean`. `constant` of `mean` adds up its
    sections.
    Raises SectionError without sections, PanelError for an empty gene set, and what `check_pair` raises.
    """
    _check(outcomes, sets)
    genes = list(sets.values())
    centre = next(iter(outcomes.values())).measured.mean(axis=0, dtype=np.float64)
    parts = [_reduce(name, outcome, centre, genes) for name, outcome in outcomes.items()]
    counts = [resample([len(part.n)], draws, rng) for part in parts]
    drawn = draw_sections([outcome.patient for outcome in outcomes.values()], draws, rng)
    each = [_section(part, drawn_blocks, genes) for part, drawn_blocks in zip(parts, counts, strict=True)]
    found = dict(zip(outcomes, each, strict=True))
    found[MEAN] = _mean(each, drawn)
    found[POOLED] = _pooled(parts, counts, drawn, genes)
    null_of = _with_mean(nulls or {}, list(outcomes))
    return [row for name, scored in found.items() for row in _rows(label, name, scored, sets, null=null_of.get(name))]


def _check(outcomes: Mapping[str, SectionOutcome], sets: Sets) -> None:
    if not outcomes:
        msg = "there is no test section to score"
        raise SectionError(msg)
    taken = {MEAN, POOLED} & set(outcomes)
    if taken:
        msg = f"a section is called {some(sorted(taken))}, which names a row over all sections: rename it"
        raise SectionError(msg)
    empty = [name for name, genes in sets.items() if len(genes) == 0]
    if empty:
        msg = f"the gene sets {some(empty)} hold no gene of this panel: leave them out"
        raise PanelError(msg)


def _reduce(
    name: str,
    outcome: SectionOutcome,
    centre: Float64[np.ndarray, "gene"],
    genes: list[Int64[np.ndarray, "_"]],
) -> BlockSums:
    try:
        return sums(outcome.predicted, outcome.measured, block=blocks(outcome.xy), centre=centre, sets=genes)
    except RaystpError as error:
        error.add_note(f"section {name}")
        raise


def _section(
    part: BlockSums, counts: Float64[np.ndarray, "draw block"], genes: list[Int64[np.ndarray, "_"]]
) -> _MetricValues:
    point = score(part, genes)
    draws = scores_of_draws(part, counts, genes).values if len(part.n) >= FEWEST_BLOCKS else None
    return _MetricValues(point.values[0], point.constant[0], draws, int(part.n.sum()))


def _pooled(
    parts: list[BlockSums],
    counts: list[Float64[np.ndarray, "draw _"]],
    drawn: Float64[np.ndarray, "draw section"] | None,
    genes: list[Int64[np.ndarray, "_"]],
) -> _MetricValues:
    joined = join(parts)
    point = score(joined, genes)
    draws = None
    if drawn is not None:
        draws = scores_of_draws(joined, np.repeat(drawn, [len(part.n) for part in parts], axis=1), genes).values
    elif all(len(part.n) >= FEWEST_BLOCKS for part in parts):
        draws = scores_of_draws(joined, np.concatenate(counts, axis=1), genes).values
    return _MetricValues(point.values[0], point.constant[0], draws, int(joined.n.sum()))


def _mean(each: list[_MetricValues], drawn: Float64[np.ndarray, "draw section"] | None) -> _MetricValues:
    values = np.stack([scored.values for scored in each])
    draws = None
    if drawn is not None:
        draws = np.tensordot(drawn / drawn.sum(axis=1, keepdims=True), values, axes=1)
    else:
        within = [scored.draws for scored in each if scored.draws is not None]
        if len(within) == len(each):
            draws = np.mean(within, axis=0)
    return _MetricValues(values.mean(axis=0), np.sum([s.constant for s in each], axis=0), draws, sum(s.n for s in each))


def _with_mean(nulls: Nulls, sections: list[str]) -> Nulls:
    """Add the null of the mean over sections, where each section has one: permutation by permutation."""
    if any(name not in nulls for name in sections):
        return nulls
    return {**nulls, MEAN: np.mean([nulls[name] for name in sections], axis=0)}


def _rows(
    label: ScoreLabel,
    section: str,
    scored: _MetricValues,
    sets: Sets,
    *,
    null: Float[np.ndarray, "permutation gene"] | None,
) -> list[Row]:
    rows: list[Row] = []
    for (at, metric), (of, genes) in product(enumerate(METRICS), enumerate(sets)):
        value = float(scored.values[at, of])
        if not np.isfinite(value):
            continue
        row: Row = {"protocol": label.protocol, "panel": label.panel, "model": label.model, "section": section}
        row |= {"genes": genes, "metric": metric, "value": value, "low": None, "high": None}
        row |= {"null_mean": None, "null_sd": None, "constant": int(scored.constant[at, of]), "n": scored.n}
        if scored.draws is not None and metric != "RVD":
            row["low"], row["high"] = interval(scored.draws[:, at, of])
        if null is not None and metric == "PCC":
            row["null_mean"], row["null_sd"] = _spread(null[:, sets[genes]].mean(axis=1))
        rows.append(row)
    return rows


def _spread(values: Float[np.ndarray, "permutation"]) -> tuple[float, float | None]:
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else None
