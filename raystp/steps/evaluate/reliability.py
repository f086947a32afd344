"""Calibration of the uncertainty that predictions from a reference index come with: their spread, and `far`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import anndata as ad
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool

from raystp import tables
from raystp.evaluate.metrics.score import POOLED, SectionOutcome
from raystp.evaluate.reliability.far import FarScore, FarTiles, far_scores
from raystp.evaluate.reliability.report import reliability_lines, reliability_parts
from raystp.evaluate.reliability.spread import SpreadCounts, SpreadCoverage, coverage, spread_counts
from raystp.evaluate.report.parts import ReportPart
from raystp.evaluate.tables import FAR_SCORES, SPREAD_COVERAGE
from raystp.expression.sections import SectionCounts
from raystp.steps.evaluate.predictions import Prediction

TILES_AT_ONCE = 4096
"""Tiles whose spread is read at a time."""


@dataclass(frozen=True)
class Reliability:
    """Calibration of the models that have a spread, or a distance to an index."""

    spreads: list[SpreadCoverage] = field(default_factory=list)
    far: list[FarScore] = field(default_factory=list)

    @property
    def lines(self) -> list[str]:
        """A sentence on each."""
        return reliability_lines(self.spreads, self.far)

    @property
    def parts(self) -> list[ReportPart]:
        """The parts of the report."""
        return reliability_parts(self.spreads, self.far)

    @property
    def tables(self) -> dict[str, pa.Table]:
        """The tables that have rows, by file."""
        found = {}
        if self.spreads:
            found["spread.parquet"] = tables.of_rows([asdict(row) for row in self.spreads], SPREAD_COVERAGE)
        if self.far:
            found["far.parquet"] = tables.of_rows([asdict(row) for row in self.far], FAR_SCORES)
        return found


def score_reliability(
    models: Sequence[Prediction],
    outcomes: Mapping[str, Mapping[str, SectionOutcome]],
    measured: Mapping[str, SectionCounts],
) -> Reliability:
    """Compare spread and `far` with the errors on the measured sections; `outcomes` is model -> section.

    A prediction without an index has neither, and one that was made without `spread` has only `far`.
    """
    spreads: list[SpreadCoverage] = []
    far: list[FarScore] = []
    for one in models:
        notes = one.prediction.manifest
        if notes.notes.get("output") != "dense" or "index" not in notes.inputs:
            continue
        counts: dict[str, SpreadCounts] = {}
        tiles: dict[str, FarTiles] = {}
        for section, outcome in outcomes[one.name].items():
            _read(one, measured[section], outcome, section, counts=counts, tiles=tiles)
        spreads += coverage(one.name, counts.items(), POOLED)
        far += far_scores(one.name, tiles, POOLED)
    return Reliability(spreads, far)


def _read(
    one: Prediction,
    measured: SectionCounts,
    outcome: SectionOutcome,
    section: str,
    *,
    counts: dict[str, SpreadCounts],
    tiles: dict[str, FarTiles],
) -> None:
    """Add a section's counts of errors in spreads, and its tiles with their distance, where the prediction has them."""
    table = (one.prediction.path / "predictions" / f"{measured.slide}.parquet").read_table(["spot"])
    kept = pc.is_in(table["spot"], value_set=tables.strings(measured.spots)).to_numpy()
    with (one.prediction.path / "anndata" / f"{measured.slide}.h5ad").local() as path, h5py.File(path) as file:
        obs = ad.io.read_elem(file["obs"])
        if "far" in obs:
            distance, far = obs["distance"].to_numpy()[kept], obs["far"].to_numpy()[kept].astype(bool)
            tiles[section] = FarTiles(outcome.predicted, outcome.measured, distance, far)
        found = _spread_counts(file, kept, outcome)
    if found is not None:
        counts[section] = found


def _spread_counts(file: h5py.File, kept: Bool[np.ndarray, " tile"], outcome: SectionOutcome) -> SpreadCounts | None:
    """Count the errors in spreads, a part of the tiles at a time; None where no spread was stored."""
    if "spread" not in file["layers"]:
        return None
    stored = file["layers/spread"]
    layer = ad.io.sparse_dataset(stored) if isinstance(stored, h5py.Group) else stored
    rows = np.cumsum(kept) - 1  # of the outcome
    total: SpreadCounts | None = None
    for first in range(0, len(kept), TILES_AT_ONCE):
        part = slice(first, first + TILES_AT_ONCE)
        own = rows[part][kept[part]]
        if not len(own):
            continue
        block = layer[part]
        values = np.asarray(block.toarray() if hasattr(block, "toarray") else block, np.float32)[kept[part]]
        counted = spread_counts(outcome.predicted[own], outcome.measured[own], values)
        total = counted if total is None else total + counted
    return total
