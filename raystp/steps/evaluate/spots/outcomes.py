"""Measured sections, and predicted beside measured expression of their spots."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow.compute as pc

from raystp import tables
from raystp.artifacts import Artifact
from raystp.errors import SectionError, failure_reason, some
from raystp.evaluate.metrics.genes import FEWEST_SPOTS
from raystp.evaluate.metrics.score import SectionOutcome
from raystp.expression.normalise import targeted_warning
from raystp.expression.sections import SectionCounts, check_panel, load_counts, sections_of
from raystp.missing import pair_where_predicted
from raystp.steps.evaluate.predictions import Prediction


@dataclass(frozen=True)
class ComparedSections:
    """The test sections that can be scored, and why the others cannot."""

    measured: dict[str, SectionCounts] = field(default_factory=dict)
    outcomes: dict[str, dict[str, SectionOutcome]] = field(default_factory=dict)
    """Model -> section -> predicted beside measured expression."""
    failures: list[dict[str, object]] = field(default_factory=list)
    """Rows of `tables.FAILURES`."""
    warnings: dict[str, list[str]] = field(default_factory=dict)
    """Section -> what limits its scores."""


def compare_sections(spots: Artifact, models: Sequence[Prediction]) -> ComparedSections:
    """Compare predictions with measurements section by section; one that cannot be compared is a failure.

    Raises SectionError where no section can be scored.
    """
    compared = ComparedSections(outcomes={one.name: {} for one in models})
    for name in predicted_sections(spots, models):
        try:
            counts = load_counts(spots, name)
            _check_names(counts, spots, models[0])
            outcomes = {one.name: section_outcomes(one, {name: counts})[name] for one in models}
        except Exception as error:  # noqa: BLE001 -- one section's fault does not end the others
            compared.failures.append({"slide": name, "stage": "evaluate", "reason": failure_reason(error)})
            continue
        compared.measured[name] = counts
        for model, outcome in outcomes.items():
            compared.outcomes[model][name] = outcome
        if warnings := section_warnings(counts, models[0], outcomes):
            compared.warnings[name] = warnings
    if not compared.measured:
        reasons = "; ".join(str(row["reason"]) for row in compared.failures[:3])
        msg = f"none of the {len(compared.failures)} predicted sections of {spots.path} can be scored: {reasons}"
        raise SectionError(msg)
    return compared


def section_warnings(counts: SectionCounts, first: Prediction, outcomes: Mapping[str, SectionOutcome]) -> list[str]:
    """Return what limits a section's scores: genes that were not measured or predicted, few genes, a single spot."""
    columns = counts.gene_names.find(first.genes, first.aliases)
    missing = [gene for gene, column in zip(first.genes, columns.tolist(), strict=True) if column < 0]
    warnings = []
    if missing:
        have = len(first.genes) - len(missing)
        warnings.append(
            f"{have} of {len(first.genes)} genes of the panel are measured here; scores are over these, and n/a for "
            f"{some(missing)}"
        )
    for model, outcome in outcomes.items():
        absent = int(np.isnan(outcome.measured[:, columns >= 0]).sum())
        if absent:
            warnings.append(
                f"{model}: {absent} values of a spot and gene have no prediction, because no neighbour measured the "
                "gene; scores leave them out"
            )
    if first.measured_as.labels.totals == "all" and (few := targeted_warning(len(counts.genes))):
        warnings.append(few)
    spots = min(len(outcome.xy) for outcome in outcomes.values())
    if spots < FEWEST_SPOTS:
        warnings.append(f"{spots} spot: PCC and RVD are n/a, they need {FEWEST_SPOTS} spots")
    return warnings


def predicted_sections(spots: Artifact, models: Sequence[Prediction]) -> list[str]:
    """Return the measured sections that all models predict; raises SectionError if there is none."""
    slides = [set(one.slides) for one in models]
    common = set.intersection(*slides)
    names = [name for name, one in sections_of(spots).items() if one["slide"] in common]
    if not names:
        predicted = some(sorted(set.union(*slides)))
        msg = f"no measured section of {spots.path} is on a slide that all models predict (predicted: {predicted})"
        raise SectionError(msg)
    return names


def section_outcomes(one: Prediction, measured: Mapping[str, SectionCounts]) -> dict[str, SectionOutcome]:
    """Return predicted beside measured expression of each section, for the spots that have a tile.

    A gene that was not measured, or that has no prediction, is missing (NaN) in the measured expression.
    """
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
        pair = pair_where_predicted(tables.matrix(table["expression"]), one.measured_as.values(kept))
        outcomes[name] = SectionOutcome(*pair, kept.xy, counts.patient, one.measured_as.labels.unit)
    return outcomes


def _check_names(counts: SectionCounts, spots: Artifact, model: Prediction) -> None:
    """Raise SectionError where a section's genes have other names than the panel's."""
    known = sections_of(spots)
    trained = [name for name in sections_of_training(spots, model) if name in known]
    check_panel(counts, model.genes, model.aliases, spots=spots, others=trained)


def sections_of_training(spots: Artifact, model: Prediction) -> list[str]:
    """Return the measured sections that a model was trained on; for one trained on cases, those of their patients.

    The latter may have no measured spots, and then there is none.
    """
    if not model.learned_from_cases:
        return list(model.meta["train"])
    patients = {model.meta["patients"][case] for case in model.meta["train"]}
    return [name for name, one in sections_of(spots).items() if one["patient"] in patients]
