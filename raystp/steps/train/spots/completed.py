"""Completed labels of a training: what they may have been fitted on, and how the model's record names them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from raystp.artifacts import Artifact
from raystp.errors import ConfigError, LeakError, some
from raystp.evaluate.protocols import EvaluationProtocol
from raystp.expression.folds import Split
from raystp.expression.genes.names import GeneNames
from raystp.expression.labels import Labels
from raystp.expression.sections import sections_of
from raystp.expression.training_set import TrainingSetSpec


def check_completed(
    completed: Artifact, spots: Artifact, split: Split, protocol: EvaluationProtocol, *, labels: Labels
) -> None:
    """Raise LeakError where the completion was fitted on what the split holds out.

    Raises ConfigError for a completion of other spots, and of other labels than the training has.

    A protocol that holds out patients refuses any section of a test patient, one that holds out sections the test
    sections alone. The validation sections of the completion count as fitted on: they may choose its step.
    """
    of_spots = completed.manifest.inputs["spots"]
    if of_spots.rpartition("-")[2] != spots.manifest.fingerprint:
        msg = (
            f"completed: {completed.path} completes {of_spots}, and the training reads {spots.manifest.folder}: run "
            "`raystp complete` on the same spots"
        )
        raise ConfigError(msg)
    own = Labels.of(completed.manifest.notes)
    if dataclasses.replace(labels, absent="missing") != own:  # a gene without a count is never completed
        msg = (
            f"completed: {completed.path} has labels in {own.unit}, and the training has {labels.unit}: run "
            "`raystp complete` with the same `labels`, or remove them"
        )
        raise ConfigError(msg)
    fitted: dict[str, str] = completed.manifest.notes["patients"]
    tested = {sections_of(spots)[name]["patient"] for name in split.test}
    leaks = [name for name in fitted if name in split.test]
    if protocol.same_patient == "refuse":
        leaks = [name for name, patient in fitted.items() if patient in tested or name in split.test]
    if leaks:
        held = "patients" if protocol.same_patient == "refuse" else "sections"
        msg = (
            f"completed: {completed.path} was fitted on {some(leaks)}, of the {held} that are held out "
            f"({some(list(split.test))}): run `raystp complete` with other sections in split.train and split.validation"
        )
        raise LeakError(msg)


def with_completed_record(meta: Mapping[str, Any], completed: Artifact, spec: TrainingSetSpec) -> dict[str, Any]:
    """Return the model's record with its completed labels; ConfigError where no gene of the panel has any.

    The sections that the completion was fitted on count as known to the model: `impute` refuses them as it refuses the
    training sections.
    """
    known, fitted = sections_of(spec.spots), completed.manifest.notes["patients"]
    slides = dict.fromkeys([*meta["slides"], *(known[name]["slide"] for name in fitted)])
    record = _record(completed, spec)
    return {**meta, "patients": {**meta["patients"], **fitted}, "slides": list(slides), "completed": record}


def _record(completed: Artifact, spec: TrainingSetSpec) -> dict[str, Any]:
    notes = completed.manifest.notes
    columns = GeneNames(tuple(notes["genes"])).find(spec.genes, spec.aliases)
    count = int(np.count_nonzero(columns >= 0))
    if not count:
        msg = (
            f"completed: none of the {len(spec.genes)} genes of the panel is in {completed.path}, which completes "
            f"{some(list(notes['genes']))}: list the panel's genes in genes.file of `raystp complete`"
        )
        raise ConfigError(msg)
    return {
        "artifact": completed.manifest.folder,
        "method": notes["method"],
        "fitted_on": list(notes["patients"]),
        "genes": count,
        "panel": len(spec.genes),
    }


def completed_sentence(record: Mapping[str, Any]) -> str:
    """Return a sentence about the completed labels of a model's record."""
    return (
        f"trained on labels of {record['genes']} of {record['panel']} genes that {record['method']} completed "
        f"({record['artifact']}, fitted on {', '.join(record['fitted_on'])}); scores are on measured counts"
    )
