"""Folds of a pipeline: whole patients, each tested exactly once; every choice of a model is made within its fold.

The folds depend on the patients' names, their number and the seed alone. Each training, index, prediction and
evaluation of a fold is an artifact of its own, so a pipeline that is run again does only what is missing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raystp.errors import ConfigError
from raystp.steps.pipeline.config import PipelineConfig, Values

if TYPE_CHECKING:
    import raystp.artifacts

UNKNOWN = "patients of the fold"
"""Stands for the patients of a fold while no artifact exists that lists them."""

CHOSEN = ("test", "validation", "validation_block", "train")
"""Fields of a split that the folds choose."""


@dataclass(frozen=True)
class Fold:
    """One fold."""

    number: int
    """From 1 on."""
    test: tuple[str, ...]
    """Patients."""
    validation: tuple[str, ...]
    slides: tuple[str, ...]
    """Slides of the test patients that are predicted."""

    def train(self, values: Values) -> Values:
        """Return a training of this fold, under the fold's name."""
        split = {"test": list(self.test), **({"validation": list(self.validation)} if self.validation else {})}
        return {**values, "name": self.named(values["name"]), "split": {**(values.get("split") or {}), **split}}

    def named(self, name: str) -> str:
        """Return the name of an artifact of this fold."""
        return f"{name}-fold{self.number}"


PLANNED = Fold(1, (UNKNOWN,), (), (UNKNOWN,))
"""A fold whose patients are not known yet."""


def check_folds(config: PipelineConfig) -> None:
    """Raise ConfigError for fields that contradict folds."""
    faults = []
    for one in config.models():
        given = [key for key in CHOSEN if (one.get("split") or {}).get(key)]
        if given:
            faults.append(f"pipeline: train {one['name']}: split.{given[0]}: the folds choose who is held out")
    if "slides" in config.impute:
        faults.append("pipeline: impute: slides: each fold predicts the slides of its own patients")
    if config.complete is not None:
        faults.append("pipeline: complete: one completion would be fitted on test patients of other folds")
    targets = {one.get("targets", "spots") for one in config.models()}
    if len(targets) > 1:
        faults.append("pipeline: train: some models learn from spots and some from cases, of other patients")
    if faults:
        raise ConfigError("\n".join(f"{fault}; remove it, or set folds=null" for fault in faults))


def check_covariate(config: PipelineConfig) -> None:
    """Raise ConfigError, before any slide is tiled, for a covariate of the folds that the slide table lacks."""
    if config.folds is not None and config.folds.stratify is not None:
        _covariates(config, config.folds.stratify)


def folds_of(
    config: PipelineConfig, measured: "raystp.artifacts.Artifact | None", embeddings: Sequence[str]
) -> list[Fold]:
    """Return the folds of the patients with labels and embeddings; `measured` are the spots, None for cases."""
    from raystp.expression.folds import patient_folds  # noqa: PLC0415 -- configs are read without NumPy

    folds = config.folds
    assert folds is not None  # called only then
    patients = _patients(config, measured, embeddings)
    strata = None if folds.stratify is None else strata_of(config, folds.stratify, patients)
    parts = patient_folds(patients.values(), folds.count, seed=folds.seed, strata=strata)
    found = []
    for number, part in enumerate(parts):
        held = parts[(number + 1) % len(parts)] if folds.validation else ()
        slides = tuple(slide for slide, patient in patients.items() if patient in part)
        found.append(Fold(number + 1, part, held, slides))
    return found


def _patients(
    config: PipelineConfig, measured: "raystp.artifacts.Artifact | None", embeddings: Sequence[str]
) -> dict[str, str]:
    """Return slide -> patient, of the slides that can be scored."""
    from raystp.expression.bulk.tables import read_table  # noqa: PLC0415 -- configs are read without pyarrow
    from raystp.expression.sections import sections_of  # noqa: PLC0415 -- the same
    from raystp.steps.embedding_source import open_embeddings  # noqa: PLC0415 -- the same
    from raystp.steps.train.cases.cohort import cohort_of  # noqa: PLC0415 -- the same
    from raystp.steps.train.cases.config import CasesConfig  # noqa: PLC0415 -- the same

    embed = open_embeddings(config.run.store, list(embeddings))
    if measured is not None:
        known: Mapping[str, Any] = sections_of(measured)
        embedded = set(embed.manifest.notes["patients"])
        return {one["slide"]: str(one["patient"]) for one in known.values() if one["slide"] in embedded}
    cases = CasesConfig.model_validate(config.models()[0]["cases"])
    cohort = cohort_of(cases, embed, read_table(cases.path(config.run.store), cases.case).cases)
    return {slide: case.patient for case in cohort.cases.values() for slide in case.slides}


def strata_of(config: PipelineConfig, covariate: str, patients: Mapping[str, str]) -> dict[str, str]:
    """Return patient -> value of a covariate of the slide table; `patients` is slide -> patient.

    Raises ConfigError for a table without the column, and for a patient with several values.
    """
    rows = _covariates(config, covariate)
    strata: dict[str, str] = {}
    for slide, patient in patients.items():
        value = rows.get(slide, "")
        if strata.setdefault(patient, value) != value:
            msg = (
                f"folds.stratify: the slides of patient {patient!r} have the values {strata[patient]!r} and {value!r} "
                f"of {covariate}; a patient is in one fold, so give all the patient's slides one value"
            )
            raise ConfigError(msg)
    return strata


def _covariates(config: PipelineConfig, covariate: str) -> dict[str, str]:
    """Return slide -> value of a covariate; raises ConfigError for a slide table without the column."""
    from raystp.slides.table import read_slide_table  # noqa: PLC0415 -- configs are read without pyarrow

    rows = read_slide_table(config.slides, None, config.run.store)
    known = sorted({name for row in rows for name in row.covariates})
    if covariate not in known:
        found = f"it has {', '.join(known)}" if known else "it has no column x_*"
        msg = f"folds.stratify: the slide table {config.slides} has no column {covariate!r}, {found}"
        raise ConfigError(msg)
    return {row.slide: row.covariates.get(covariate, "") for row in rows}
