"""pipeline: all steps as one run, from the slide table to the report.

Each part of the config is the config of a step. The pipeline fills in the artifacts that a step reads from earlier
steps, its name, the store and MLflow's address. Finished steps are not repeated, so an interrupted pipeline continues
where it stopped.
"""

import json
import logging
import shlex
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from raystp import tables
from raystp.artifacts import Artifact, ArtifactWriter, create_or_open, open_artifact, without_secrets
from raystp.cluster.session import session
from raystp.errors import ConfigError
from raystp.evaluate.comparison.text import comparison_notes, comparison_text
from raystp.evaluate.metrics.folds import CrossValidatedScore, folds_csv, folds_text
from raystp.evaluate.metrics.intervals import DRAWS
from raystp.evaluate.tables import COMPARISON
from raystp.expression.sections import sections_of
from raystp.planned import plan_only
from raystp.steps.failed_slides import TRIED, tried_names
from raystp.steps.imports.config import OF_TABLES, ImportConfig
from raystp.steps.imports.tables import write_tables
from raystp.steps.pipeline.chain import StepChain, check_references, planned_steps
from raystp.steps.pipeline.checks import check_inputs
from raystp.steps.pipeline.cohort_page import PAGE, cohort_page
from raystp.steps.pipeline.config import PipelineConfig, Values
from raystp.steps.pipeline.folds.fold import Fold, check_covariate
from raystp.steps.pipeline.folds.runs import STEPS, StepRunner, run_folds
from raystp.steps.pipeline.folds.table import differences_of_folds, interval_of_folds, scores_of_folds
from raystp.steps.pipeline.tracking import track_folds
from raystp.storage import StoragePath

logger = logging.getLogger("raystp")

STEP = "pipeline"
FOLD_FILES = ("folds.csv", "folds.txt", "comparison.csv")
CONFIG = PipelineConfig
WEIGHTS = (
    "A difference is a mean over all sections, the table's mean one over folds: with unequal folds it is not the "
    "difference of the table's means."
)


def run(config: PipelineConfig) -> Artifact:
    """Run all steps that are not done; write a manifest that lists their artifacts and failures."""
    found, folds = _walk(config)
    writer = create_or_open(config, STEP, found)
    if isinstance(writer, Artifact):
        return writer
    failures = [row for one in found.values() for row in one.failures().to_pylist()]
    last = list(found.values())[-1]
    head = [last.manifest.notes["summary"]] if "summary" in last.manifest.notes else []
    scores: Sequence[CrossValidatedScore] = ()
    if folds:
        scores, text = _write_folds(config, writer, found, folds)
        head = [text, *([] if config.protocol is None else ["", *head])]
    page = cohort_page(config.name, found, folds, scores, protocol=config.protocol)
    if page is not None:
        (writer.path / PAGE).write_bytes(page.encode())
        head.append(f"all reports: {writer.path / PAGE}")
    if folds:
        files = [*FOLD_FILES, *([PAGE] if page is not None else [])]
        track_folds(config, writer, scores, found=found, files=files)
    summary = "\n".join([*head, *(f"{role}: {one.path}" for role, one in found.items())])
    notes: dict[str, object] = {"summary": summary}
    if folds:
        notes["folds"] = {str(fold.number): {"test": fold.test, "slides": fold.slides} for fold in folds}
    if warnings := warnings_of_all(found.values()):
        notes["warnings"] = warnings
    if failures:
        notes[TRIED] = sorted(set().union(*(tried_names(one) for one in found.values() if one.manifest.step == "tile")))
    return writer.finish({"steps": len(found), **last.manifest.rows}, failures, notes)


def _write_folds(
    config: PipelineConfig, writer: ArtifactWriter, found: Mapping[str, Artifact], folds: Sequence[Fold]
) -> tuple[list[CrossValidatedScore], str]:
    """Write `folds.csv` and `folds.txt`; return the scores and the text."""
    measured = sections_of(found["spots"]) if "spots" in found else {}
    patients = {name: str(one["patient"]) for name, one in measured.items()}
    evaluations = [found[f"evaluate fold {fold.number}"] for fold in folds]
    scores, differences = (
        scores_of_folds(evaluations, folds, patients),
        differences_of_folds(evaluations, folds, patients),
    )
    numbers, over = [fold.number for fold in folds], interval_of_folds(folds, patients)
    title = config.title_of_folds(len(folds)) + (f"; 95 % intervals {over}" if over else "")
    sizes = {sum(one["slide"] in fold.slides for one in measured.values()) for fold in folds}
    notes = [*comparison_notes(differences, DRAWS), *([WEIGHTS] if len(sizes) > 1 else [])]
    compared = [comparison_text(differences), "\n".join(notes)] if differences else []
    text = "\n\n".join([folds_text(scores, numbers, title), *compared])
    table = tables.of_rows([asdict(one) for one in differences], COMPARISON)
    (writer.path / "comparison.parquet").write_table(table)
    (writer.path / "comparison.csv").write_bytes(tables.csv_text(table).encode())
    (writer.path / "folds.csv").write_bytes(folds_csv(scores, numbers).encode())
    (writer.path / "folds.txt").write_bytes(f"{text}\n".encode())
    return scores, text


def import_data(config: PipelineConfig) -> None:
    """Write the slide table of the data set that the config names; one that is there already is compared with it."""
    data = config.data_set()
    if data is not None:
        logger.info(f"pipeline: data: {write_tables(data).partition(chr(10))[0]}")


def _import_command(data: ImportConfig) -> str:
    """Return the command that writes the slide table, with the choice of samples: another one writes another table."""
    words = ["raystp", "import", data.format, without_secrets(data.path), "-o", without_secrets(data.out)]
    values = data.model_dump(mode="json", include={*data.changed_fields()} & OF_TABLES - {"out"})
    for name, value in values.items():
        words += ["--set", f"{name}={value if isinstance(value, str) else json.dumps(value)}"]
    return shlex.join(words)


def warnings_of_all(artifacts: Iterable[Artifact]) -> dict[str, list[str]]:
    """Return the warnings of all steps by slide or section, each once."""
    warnings: dict[str, list[str]] = {}
    for one in artifacts:
        for name, texts in one.manifest.notes.get("warnings", {}).items():
            known = warnings.setdefault(name, [])
            known += [text for text in texts if text not in known]
    return warnings


def plan(config: PipelineConfig) -> Iterator[str]:
    """Yield a line for each step: what it writes, whether that is done, or which steps it waits for."""
    data = config.data_set()
    if data is not None and not StoragePath.of(config.slides).exists():
        command = _import_command(data)
        msg = f"slides: {config.slides} is not there, and a dry run does not write it: run `{command}` first"
        raise ConfigError(msg)
    planned_steps(config)
    check_covariate(config)
    lines: list[str] = []
    waited_for: dict[str, str] = {}

    def look(step: str, role: str, sources: Values, values: Values) -> Artifact | None:
        planned = config.of_step(STEPS[step].CONFIG, role, sources, values)
        given = planned.model_dump(mode="json", exclude_unset=True)
        waits = [waited_for[text] for text in _texts(given) if text in waited_for]
        work = None if waits else plan_only(lambda: STEPS[step].run(planned))
        if work is not None and work.finished is not None:
            lines.append(f"{role}: done already, {work.path}")
            return open_artifact(work.path, step)
        after = f"after {', '.join(dict.fromkeys(waits))}" if work is None else f"writes {work.path}"
        lines.append(f"{role}: not done, {after}")
        waited_for[f"{step}/{planned.name}"] = role
        return None

    with tempfile.TemporaryDirectory() as folder:
        StepChain(config, look, panels=StoragePath.of(folder)).walk()
    yield from lines


def _texts(value: object) -> Iterator[str]:
    """Yield all texts of a step's config, at any depth: some are references to artifacts."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for one in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(one)


def path(config: PipelineConfig) -> dict[str, Artifact]:
    """Run the steps in turn, each on the artifacts of the steps before it; return role -> artifact.

    All configs, and all references to artifacts that exist already, are checked before the first step starts.
    """
    return _walk(config)[0]


def _walk(config: PipelineConfig) -> tuple[dict[str, Artifact], list[Fold]]:
    """Return what `path` returns, and the folds where the config has any."""
    import_data(config)
    check_references(config)
    planned = planned_steps(config)
    check_inputs(config, planned)
    runner = StepRunner(config, str(Path.cwd()))
    with session(config.run.address):
        chain = StepChain(config, runner)
        if config.folds is None and config.protocol is None:
            chain.walk()
        else:
            inputs = chain.prepare()
            results = run_folds(config, chain, inputs, planned)
            for one in results:
                runner.found.update(one.found)
            chain.finish(inputs, [one.predictions for one in results])
    return runner.found, chain.folds
