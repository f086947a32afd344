"""Measured sections, and predicted beside measured expression of their spots."""

from collections.abc import Mapping, Sequence

import pyarrow.compute as pc

from raystp import tables
from raystp.artifacts import Artifact
from raystp.errors import SectionError, some
from raystp.evaluate.metrics.score import SectionOutcome
from raystp.expression.sections import SectionCounts, load_counts, sections_of
from raystp.steps.evaluate.predictions import Prediction


def measured_sections(spots: Artifact, models: Sequence[Prediction]) -> dict[str, SectionCounts]:
    """Return the measured sections that all models predict; raises SectionError if there is none."""
    slides = [set(one.slides) for one in models]
    common = set.intersection(*slides)
    names = [name for name, one in sections_of(spots).items() if one["slide"] in common]
    if not names:
        predicted = some(sorted(set.union(*slides)))
        msg = f"no measured section of {spots.path} is on a slide that all models predict (predicted: {predicted})"
        raise SectionError(msg)
    return {name: load_counts(spots, name) for name in names}


def section_outcomes(one: Prediction, measured: Mapping[str, SectionCounts]) -> dict[str, SectionOutcome]:
    """Return predicted beside measured expression of each section, for the spots that have a tile."""
    outcomes = {}
    for name, counts in measured.items():
        file = one.prediction.path / "predictions" / f"{counts.slide}.parquet"
        tables.check(file.read_schema(), tables.predictions(len(one.genes)), str(file))
        table = file.read_table()
        table = table.filter(pc.is_in(table["spot"], value_set=tables.strings(counts.spots)))
        row = {spot: number for number, spot in enumerate(counts.spots)}
        rows = [row[spot] for spot in table["spot"].to_pylist()]
        if not rows:
            msg = (
                f"{file} predicts no spot of section '{name}': run `raystp tile --set spots=...`, then embed and impute"
            )
            raise SectionError(msg)
        kept = counts.select(rows)
        predicted = tables.matrix(table["expression"])
        outcomes[name] = SectionOutcome(predicted, kept.expression(one.genes), kept.xy, counts.patient)
    return outcomes


def sections_of_training(spots: Artifact, model: Prediction) -> list[str]:
    """Return the measured sections that a model was trained on; for one trained on cases, those of their patients.

    The latter may have no measured spots, and then there is none.
    """
    if not model.learned_from_cases:
        return list(model.meta["train"])
    patients = {model.meta["patients"][case] for case in model.meta["train"]}
    return [name for name, one in sections_of(spots).items() if one["patient"] in patients]
