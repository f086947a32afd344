"""The test sections of each fold: predictions beside the raw counts that a protocol's label is computed from."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow.compute as pc
from jaxtyping import Float64

from raystp import tables
from raystp.artifacts import Artifact
from raystp.errors import ConfigError, some
from raystp.evaluate.published.protocol import FoldOutcome, HeldOutSection, PublishedProtocol
from raystp.expression.sections import SectionCounts, load_counts
from raystp.steps.evaluate.predictions import Prediction
from raystp.steps.evaluate.published.folds import FoldedModel


def fold_outcomes(protocol: PublishedProtocol, spots: Artifact, model: FoldedModel) -> list[FoldOutcome]:
    """Return the outcome of each fold, sections in the order of their names.

    Raises ConfigError for a gene that a section has not measured, unless the protocol counts it as 0.
    """
    return [
        FoldOutcome(
            number,
            model.genes,
            tuple(_held_out(protocol, spots, one, name) for name in sorted(one.meta["test"])),
        )
        for number, one in zip(model.numbers, model.folds, strict=True)
    ]


def _held_out(protocol: PublishedProtocol, spots: Artifact, one: Prediction, name: str) -> HeldOutSection:
    counts = load_counts(spots, name)
    raw = _raw_counts(counts, one)
    absent = [gene for gene, missing in zip(one.genes, np.isnan(raw).all(axis=0).tolist(), strict=True) if missing]
    if absent and protocol.absent == "refuse":
        msg = f"{protocol.name}: section '{name}' has not measured {len(absent)} of {len(one.genes)} genes of the panel"
        raise ConfigError(f"{msg} ({some(absent)}), and each test section must: use a panel that all sections have")
    rows, predicted = _predicted(one, counts)
    if np.isnan(predicted).any():
        msg = f"{protocol.name}: {one.prediction.path} has values without a prediction in section '{name}'"
        raise ConfigError(f"{msg}, because no neighbour measured the gene: train on sections that have all genes")
    assert counts.array is not None  # `load_counts` reads it
    if not counts.array.has_coordinates and protocol.train.get("labels", {}).get("smooth"):
        msg = f"{protocol.name}: section '{name}' was read without array coordinates, and labels are averaged over the "
        raise ConfigError(f"{msg}array's places: give the section its array_row and array_col")
    return HeldOutSection(name, counts.patient, raw, counts.totals, counts.array.places, rows, predicted)


def _raw_counts(counts: SectionCounts, one: Prediction) -> Float64[np.ndarray, "spot gene"]:
    columns = counts.gene_names.find(one.genes, one.aliases)
    raw = np.full((len(counts.spots), len(one.genes)), np.nan)
    raw[:, columns >= 0] = counts.matrix[:, columns[columns >= 0]].toarray()
    return raw


def _predicted(one: Prediction, counts: SectionCounts) -> tuple[np.ndarray, np.ndarray]:
    """Return the predicted spots as rows of the counts, and their prediction, in the order of the tiles."""
    file = one.prediction.path / "predictions" / f"{counts.slide}.parquet"
    tables.check(file.read_schema(), tables.predictions(len(one.genes)), str(file))
    table = file.read_table()
    table = table.filter(pc.is_in(table["spot"], value_set=tables.strings(counts.spots)))
    row = {spot: number for number, spot in enumerate(counts.spots)}
    rows = np.asarray([row[spot] for spot in table["spot"].to_pylist()], np.int64)
    if not len(rows):
        msg = f"{file} predicts no spot of section '{counts.section}': tile around the spots, then embed and impute"
        raise ConfigError(msg)
    return rows, tables.matrix(table["expression"])


def scored_spots(fold: FoldOutcome) -> int:
    """Return the number of test spots of a fold."""
    return sum(len(section.rows) for section in fold.sections)


def unscored(folds: Sequence[FoldOutcome]) -> Mapping[str, int]:
    """Return section -> spots without a prediction, of those that have any."""
    found = {one.section: len(one.counts) - len(one.rows) for fold in folds for one in fold.sections}
    return {name: lost for name, lost in found.items() if lost}
