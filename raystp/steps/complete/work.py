"""Tasks of `complete`: fit the completion, and complete one section.

What is finished is kept: a rerun reads a stored completion, and completed sections, and does the rest.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TypedDict

import numpy as np

from raystp import tables
from raystp.artifacts import Artifact
from raystp.errors import RaystpError, failure_as_reason
from raystp.expression.completed import CompletedSection, read_completed, write_completed
from raystp.expression.genes.names import Aliases
from raystp.expression.labels import DEFAULT_LABELS, Labels
from raystp.expression.sections import SectionCounts, check_panel, load_counts
from raystp.models.completion.hidden import GeneMeanCompletion, HiddenErrors, errors_on_hidden
from raystp.models.completion.linear import fit_linear
from raystp.models.completion.median import MedianCompletion
from raystp.models.completion.methods import COMPLETIONS, Completion
from raystp.models.completion.options import LinearOptions, MedianOptions, SpackleOptions
from raystp.models.completion.values import SectionValues, mask_rates, real_share
from raystp.models.store import load_completion, save_completion
from raystp.storage import StoragePath

STEPS, ERRORS = "steps.parquet", "errors.parquet"
"""Files of the errors by step, and of the errors on hidden entries of the validation sections."""


@dataclass(frozen=True)
class CompletionGenes:
    """The completed genes, their other names, and the sections that have these names."""

    genes: tuple[str, ...]
    aliases: Aliases
    train: tuple[str, ...]
    labels: Labels = DEFAULT_LABELS

    def values(self, spots: Artifact, section: str) -> tuple[SectionCounts, SectionValues]:
        """Return a section's counts and values; raises SectionError where its genes have other names."""
        counts = load_counts(spots, section)
        check_panel(counts, self.genes, self.aliases, spots=spots, others=self.train)
        return counts, SectionValues(counts.expression(self.genes, self.aliases, self.labels), counts.xy)


@dataclass(frozen=True)
class FitTask:
    """A completion to fit."""

    spots: Artifact
    names: CompletionGenes
    validation: tuple[str, ...]
    method: str
    options: MedianOptions | LinearOptions | SpackleOptions
    target: StoragePath
    """Folder of the artifact."""


@dataclass(frozen=True)
class CompletionTask:
    """A section to complete."""

    spots: Artifact
    names: CompletionGenes
    section: str
    target: StoragePath
    """Folder of the artifact."""


class CompletedEntry(TypedDict):
    """The entry of a completed section in the manifest."""

    patient: str
    slide: str
    spots: int
    genes: int
    """Completed genes that the section has measured."""
    real: float
    """Share of the entries that were counted."""


def fit_completion(task: FitTask) -> None:
    """Fit the completion and write it, the errors by step, and the errors on hidden entries."""
    train = [task.names.values(task.spots, name)[1] for name in task.names.train]
    held = {name: task.names.values(task.spots, name)[1] for name in task.validation}
    fitted, history = COMPLETIONS[task.method].fit(train, task.options, list(held.values()))
    errors = _errors(task.method, fitted, train, held)
    steps: list[dict[str, object]] = [{**row, "step": int(row["step"])} for row in history]
    (task.target / STEPS).write_table(tables.of_rows(steps, tables.COMPLETION_STEPS))
    (task.target / ERRORS).write_table(tables.of_rows([one.row() for one in errors], tables.COMPLETION_ERRORS))
    meta = {"genes": list(task.names.genes), "train": list(task.names.train), "options": asdict(task.options)}
    save_completion(task.target, task.method, fitted.arrays(), meta)


def _errors(
    method: str, fitted: Completion, train: Sequence[SectionValues], held: dict[str, SectionValues]
) -> list[HiddenErrors]:
    """Return the errors of the method and of simpler ones, all under one mask of each validation section."""
    share = real_share(list(train))
    compared: dict[str, Completion] = {"median": MedianCompletion(), "gene mean": GeneMeanCompletion()}
    if held and share.all():
        compared["linear"] = fit_linear(list(train), LinearOptions())
    compared[method] = fitted
    found: list[HiddenErrors] = []
    for number, (name, section) in enumerate(held.items()):
        found += errors_on_hidden(name, section, mask_rates(share), compared, rng=np.random.default_rng([0, number]))
    return found


def is_fitted(target: StoragePath) -> bool:
    """Say whether an earlier attempt has stored a whole completion."""
    try:
        load_completion(target)
    except RaystpError:
        return False
    return (target / STEPS).exists() and (target / ERRORS).exists()


@failure_as_reason
def complete_section(task: CompletionTask) -> CompletedEntry:
    """Complete one section and write it; return its entry of the manifest. A failure becomes its message."""
    counts, section = task.names.values(task.spots, task.section)
    file = task.target / "sections" / f"{task.section}.h5ad"
    if not _is_complete(file, counts, task.names):
        kind, arrays, meta = load_completion(task.target)
        method = COMPLETIONS[kind]
        completion = method.open(arrays, method.options(**meta["options"]))
        values = completion.complete(section)
        write_completed(file, counts, list(task.names.genes), values, aliases=task.names.aliases)
    measured = section.measured
    return {
        "patient": counts.patient,
        "slide": counts.slide,
        "spots": len(counts.spots),
        "genes": int(measured.sum()),
        "real": float(section.real[:, measured].mean()),
    }


def _is_complete(file: StoragePath, counts: SectionCounts, names: CompletionGenes) -> bool:
    """Say whether an earlier attempt wrote this section; a damaged file is written again."""
    if not file.exists():
        return False
    try:
        found: CompletedSection = read_completed(file)
    except RaystpError:
        return False
    return found.spots == counts.spots and found.genes == list(names.genes)
