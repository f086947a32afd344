"""Measured expression within what is published: in a reference index, and in models that answer from training spots."""

from collections.abc import Iterator, Mapping
from typing import Any

from raystp.artifacts import Artifact
from raystp.models.methods import METHODS

Record = Mapping[str, Any]


def expression_warning(kind: str, meta: Record, index: Artifact | None) -> str:
    """Return which measured expression is published, and of how many patients; empty where none is."""
    parts = []
    if index is not None:
        rows = sum(shard["rows"] for shard in index.manifest.notes["bank"]["shards"])
        patients = len(index.manifest.notes["patients"])
        parts.append(f"the index holds the measured expression of {rows:,} rows of {_patients(patients)}")
    keeping = [(name, one) for name, one in _models(kind, meta) if METHODS[name].keeps_expression]
    contrastive = [(name, one) for name, one in _models(kind, meta) if METHODS[name].needs_index and one is not meta]
    if found := keeping + contrastive:  # an ensemble has the reference rows of its contrastive members
        titles = " and ".join(sorted({METHODS[name].title for name, _ in found}))
        patients = len({patient for _, one in found for patient in _trained_on(one, meta)})
        parts.append(
            f"the {titles} model holds the measured expression of the training spots of {_patients(patients)}, or "
            "numbers from which it can be computed"
        )
    return "; ".join(parts)


def _models(kind: str, meta: Record) -> Iterator[tuple[str, Record]]:
    """Yield a model, and the members of an ensemble with theirs."""
    yield kind, meta
    for member in meta.get("members", ()):
        yield from _models(member["kind"], member["meta"])


def _trained_on(meta: Record, whole: Record) -> set[str]:
    """Return the patients of a model's training sections; a member without their names has those of the whole."""
    known = meta if "patients" in meta and "train" in meta else whole
    return {known["patients"].get(section, section) for section in known.get("train", ())}


def _patients(count: int) -> str:
    return "1 patient" if count == 1 else f"{count} patients"
