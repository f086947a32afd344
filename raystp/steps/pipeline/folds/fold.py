"""Folds of a pipeline: whole patients, or sections, each tested exactly once; or the sides that split files state.

Every choice of a model is made within its fold. The folds depend on the names, their number and the seed alone. Each
training, index, prediction and evaluation of a fold is an artifact of its own, so a second run does what is missing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raystp.errors import ConfigError, some
from raystp.steps.pipeline.config import PipelineConfig, Values, group_of, is_ensemble
from raystp.steps.pipeline.folds.files import FoldFile, read_fold_files

if TYPE_CHECKING:
    import raystp.artifacts

UNKNOWN = "patients of the fold"
"""Stands for the patients of a fold while no artifact exists that lists them."""

CHOSEN = ("test", "validation", "validation_block", "train")
"""Fields of a split that the folds choose."""

FEWEST_FOLDS = 2


@dataclass(frozen=True)
class Fold:
    """One fold."""

    number: int
    """From 1 on; of split files, the number of the file."""
    test: tuple[str, ...]
    """Patients or sections."""
    validation: tuple[str, ...]
    slides: tuple[str, ...]
    """Slides of the test side that are predicted; empty while they are not known."""
    train: tuple[str, ...] | None = None
    """Patients or sections; None for all others."""
    protocol: str | None = None
    """The protocol that the fold needs; None for that of the training."""
    panel: Mapping[str, Any] | None = None
    """The panel of trainings without one of their own."""

    def training(self, values: Values) -> Values:
        """Return a training of this fold, under the fold's name."""
        split: Values = {"test": list(self.test)} if self.test else {}
        split |= {"validation": list(self.validation)} if self.validation else {}
        split |= {} if self.train is None else {"train": list(self.train)}
        split |= {} if self.protocol is None else {"protocol": self.protocol}
        has_panel = "panel" in values or is_ensemble(values) or self.panel is None
        panel = {} if has_panel else {"panel": dict(self.panel or {})}
        own = values.get("split") or {}  # what is no group is refused by the training's own config
        both = {**own, **split} if isinstance(own, dict) else own
        return {**values, **panel, "name": self.named(values["name"]), "split": both}

    @property
    def role(self) -> str:
        """What the fold is called in the log."""
        return f"fold {self.number}"

    def evaluation(self, values: Values, name: str) -> Values:
        """Return an evaluation of this fold, under the fold's name."""
        return {**values, "name": self.named(values.get("name", name))}

    def named(self, name: str) -> str:
        """Return the name of an artifact of this fold."""
        return f"{name}-fold{self.number}"


def planned_folds(config: PipelineConfig) -> list[Fold]:
    """Return the folds as far as they are known before any slide is read: those of files, or one that stands for all.

    Raises ConfigError for files that cannot be read.
    """
    folds = config.folds
    assert folds is not None  # called only then
    if folds.files is not None:
        return [_of_file(one, ()) for one in read_fold_files(folds.files)]
    return [Fold(1, (UNKNOWN,), (), (), protocol="section" if folds.count == "section" else None)]


def _of_file(one: FoldFile, slides: tuple[str, ...]) -> Fold:
    return Fold(one.number, one.test, one.validation, slides, one.train, one.protocol, one.panel)


def check_folds(config: PipelineConfig) -> None:
    """Raise ConfigError for fields that contradict folds."""
    faults = []
    for one in config.models():
        allowed = () if config.protocol is None else ("validation_block",)
        given = [key for key in CHOSEN if key not in allowed and group_of(one, "split").get(key)]
        if given:
            faults.append(f"pipeline: train {one['name']}: split.{given[0]}: the folds choose who is held out")
    if "slides" in config.impute:
        faults.append("pipeline: impute: slides: each fold predicts the slides of its own patients")
    if config.complete is not None:
        faults.append("pipeline: complete: one completion would be fitted on test patients of other folds")
    folds, targets = config.folds, {one.get("targets", "spots") for one in config.models()}
    by_section = folds is not None and folds.files is None and folds.count == "section"
    if by_section and "cases" in targets:
        faults.append("pipeline: folds: `section` holds out measured sections, and a training learns from cases")
    if by_section and any(group_of(one, "split").get("protocol") == "patient" for one in config.models()):
        faults.append(
            "pipeline: folds: `section` leaves other sections of a patient in training; split.protocol=patient"
        )
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
    """Return the folds of what has labels and embeddings; `measured` are the spots, None for cases."""
    folds = config.folds
    assert folds is not None  # called only then
    scored = _scored(config, measured, embeddings)
    if folds.files is not None:
        files = read_fold_files(folds.files)
        for one in files:
            if not _slides_of(one.test, scored):
                tests = some(list(one.test))
                msg = f"folds.files: fold {one.number} tests {tests}, of which no slide was measured and embedded"
                raise ConfigError(f"{msg}: add it to {config.slides}, or remove the file of the fold")
        return [_of_file(one, _slides_of(one.test, scored)) for one in files]
    if folds.count == "section":
        unit_of = {slide: names for slide, (names, _) in scored.items()}
    else:
        unit_of = {slide: (patient,) for slide, (_, patient) in scored.items()}
    parts = _parts(config, unit_of)
    found = []
    for number, part in enumerate(parts):
        held = parts[(number + 1) % len(parts)] if folds.validation else ()
        protocol = "section" if folds.count == "section" else None
        found.append(Fold(number + 1, part, held, _slides_of(part, scored), protocol=protocol))
    return found


def _parts(config: PipelineConfig, unit_of: Mapping[str, tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Return the patients or sections of each fold; `unit_of` is slide -> its patient, or its sections."""
    from raystp.expression.folds import patient_folds  # noqa: PLC0415 -- configs are read without NumPy

    folds = config.folds
    assert folds is not None  # as in `folds_of`
    units = [unit for names in unit_of.values() for unit in names]
    if folds.count == "section":
        if len(units) < FEWEST_FOLDS:
            msg = f"folds: section leaves one section out, and there is {len(units)} measured section: add sections"
            raise ConfigError(msg)
        return [(unit,) for unit in units]
    patients = {slide: names[0] for slide, names in unit_of.items()}
    strata = None if folds.stratify is None else strata_of(config, folds.stratify, patients)
    return patient_folds(units, folds.count, seed=folds.seed, strata=strata)


Scored = Mapping[str, tuple[tuple[str, ...], str]]
"""Slide -> its measured sections (of cases, its case) and its patient."""


def _slides_of(names: Sequence[str], scored: Scored) -> tuple[str, ...]:
    """Return the slides of sections, cases or patients, in the order of the slides."""
    chosen = set(names)
    return tuple(slide for slide, (sections, patient) in scored.items() if chosen & {*sections, patient})


def _scored(
    config: PipelineConfig, measured: "raystp.artifacts.Artifact | None", embeddings: Sequence[str]
) -> dict[str, tuple[tuple[str, ...], str]]:
    """Return slide -> its sections (or its case) and its patient, of the slides that can be scored."""
    from raystp.expression.bulk.tables import read_table  # noqa: PLC0415 -- configs are read without pyarrow
    from raystp.expression.sections import sections_of  # noqa: PLC0415 -- the same
    from raystp.steps.embedding_source import open_embeddings  # noqa: PLC0415 -- the same
    from raystp.steps.train.cases.cohort import cohort_of  # noqa: PLC0415 -- the same
    from raystp.steps.train.cases.config import CasesConfig  # noqa: PLC0415 -- the same

    embed = open_embeddings(config.run.store, list(embeddings))
    if measured is not None:
        embedded = set(embed.manifest.notes["patients"])
        found: dict[str, tuple[tuple[str, ...], str]] = {}
        for name, one in sections_of(measured).items():
            if one["slide"] in embedded:
                found[one["slide"]] = ((*found.get(one["slide"], ((), ""))[0], name), str(one["patient"]))
        return found
    cases = CasesConfig.model_validate(config.models()[0]["cases"])
    cohort = cohort_of(cases, embed, read_table(cases.path(config.run.store), cases.case).cases)
    return {slide: ((name,), case.patient) for name, case in cohort.cases.items() for slide in case.slides}


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
