"""complete: spots -> sections whose zeros are replaced, as labels for training, and the model that replaced them."""

import logging
from collections.abc import Mapping, Sequence

from raystp import tables
from raystp.artifacts import Artifact, create_or_open, resolve
from raystp.cluster.progress import Progress
from raystp.cluster.session import session
from raystp.cluster.streams.tasks import map_tasks
from raystp.digests import digest
from raystp.errors import ConfigError, ModelError
from raystp.expression.folds import Split, sections_named, split_by_section
from raystp.expression.sections import SectionEntry, sections_of
from raystp.steps.complete.config import CompleteConfig
from raystp.steps.complete.genes import aliases_of, choose_genes
from raystp.steps.complete.work import (
    ERRORS,
    CompletedEntry,
    CompletionGenes,
    CompletionTask,
    FitTask,
    complete_section,
    fit_completion,
    is_fitted,
)
from raystp.storage import StoragePath

logger = logging.getLogger("raystp")

STEP = "complete"
CONFIG = CompleteConfig


def run(config: CompleteConfig) -> Artifact:
    """Fit the completion; write `completion.safetensors`, `completion.json` and `sections/<section>.h5ad`."""
    spots = resolve(config.run.store, config.spots, "spots")
    inputs: dict[str, Artifact | str] = {"spots": spots}
    if config.genes.file is not None:
        inputs["genes"] = digest(StoragePath.of(config.genes.file))
    writer = create_or_open(config, STEP, inputs)
    if isinstance(writer, Artifact):
        return writer
    known = sections_of(spots)
    split, wanted = _split(config, known)
    genes, chosen = choose_genes(config.genes, spots, split.train)
    logger.info(f"complete: {chosen}")
    names = CompletionGenes(tuple(genes), aliases_of(spots, genes), split.train, config.labels)
    fit = FitTask(spots, names, split.validation, config.method, config.options, writer.path)
    tasks = [CompletionTask(spots, names, section, writer.path) for section in wanted]
    with session(config.run.address):
        if not is_fitted(writer.path):
            list(map_tasks(fit_completion, [fit], cpus=config.run.fit_cpus))
        sections, failures = _complete(tasks)
    rows = read_errors(writer.path)
    for line in error_lines(rows):
        logger.info(line)
    seen = (*split.train, *split.validation)
    notes: dict[str, object] = {
        "method": config.method,
        "genes": genes,
        "chosen": chosen,
        "train": list(split.train),
        "validation": list(split.validation),
        "patients": {name: known[name]["patient"] for name in seen},
        "sections": sections,
        "labels": config.labels.record,
    }
    if rows:
        notes["summary"] = "\n".join(error_lines(rows))
    return writer.finish({"sections": len(sections), "genes": len(genes)}, failures, notes)


def _split(config: CompleteConfig, known: Mapping[str, SectionEntry]) -> tuple[Split, list[str]]:
    """Return the sections to fit on, and those to complete; raises ConfigError for an unknown one."""
    patients = {name: str(one["patient"]) for name, one in known.items()}
    train, validation = (sections_named(names, patients) for names in (config.split.train, config.split.validation))
    split = _checked("split", patients, train, validation)
    if config.sections is None:
        return split, list(known)
    wanted = sections_named(config.sections, patients)
    _checked("sections", patients, wanted)
    return split, wanted


def _checked(field: str, patients: Mapping[str, str], train: list[str], validation: Sequence[str] = ()) -> Split:
    """Return the split; raises ConfigError, with the field, for a name that is unknown or given twice."""
    try:
        return split_by_section(patients, test=(), validation=validation, train=train)
    except ConfigError as error:
        msg = f"{field}: {error}"
        raise ConfigError(msg) from None


def _complete(tasks: list[CompletionTask]) -> tuple[dict[str, CompletedEntry], list[dict[str, object]]]:
    """Complete every section; one that fails becomes a failure."""
    found: dict[str, CompletedEntry] = {}
    failures: list[dict[str, object]] = []
    with Progress(STEP, len(tasks), "section") as progress:
        for position, result in map_tasks(complete_section, tasks, on_crash=_crashed):
            section = tasks[position].section
            if isinstance(result, str):
                failures.append({"slide": section, "stage": STEP, "reason": result})
            else:
                found[section] = result
            progress.add(1, failed=isinstance(result, str))
    if not found:
        msg = f"all {len(tasks)} sections failed; the first: {failures[0]['reason']}"
        raise ModelError(msg)
    return {task.section: found[task.section] for task in tasks if task.section in found}, failures


def _crashed(task: CompletionTask) -> str:
    return (
        f"section {task.section!r} crashed every worker that completed it, probably out of memory; skipped. Rerun with "
        "--set run.retry_failed=true"
    )


def read_errors(folder: StoragePath) -> list[dict[str, object]]:
    """Return the rows of the errors on hidden entries, none without validation sections."""
    file = folder / ERRORS
    tables.check(file.read_schema(), tables.COMPLETION_ERRORS, str(file))
    rows: list[dict[str, object]] = file.read_table().to_pylist()
    return rows


def error_lines(rows: Sequence[Mapping[str, object]]) -> list[str]:
    """Return the errors as an aligned table."""
    if not rows:
        return []
    lines = [
        "errors on counted entries that were hidden",
        f"{'section':<16}{'method':<12}{'MSE':>8}{'MAE':>8}{'PCC':>8}",
    ]
    for row in rows:
        pcc = "n/a" if row["pcc"] is None else f"{row['pcc']:.3f}"
        lines.append(f"{row['section']:<16}{row['method']:<12}{row['mse']:>8.3f}{row['mae']:>8.3f}{pcc:>8}")
    return lines
