"""The record of a choice: for the model's JSON file, the manifest and the line in a report."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raystp.steps.train.choice.candidates import Candidate, stored
from raystp.steps.train.choice.choose import MARGIN, Choice, EpochMean

LISTED = 3
"""Folds that a sentence names."""


@dataclass(frozen=True)
class Comparison:
    """What was compared, and what came of it."""

    candidates: Sequence[Candidate]
    by: str
    """What each fold holds out: a patient or a section."""
    folds: Mapping[str, Sequence[str]]
    """Fold -> its held-out sections."""
    choice: Choice
    failed: Mapping[int, str]
    """Candidate -> why it could not be trained."""
    trained: bool
    """Whether epochs were compared."""
    epochs: int
    """Epochs of a training on the folds, at most."""
    plain: EpochMean | None
    """The config's own values after the epochs of a training without validation; None where they were not compared."""

    def record(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        choice = self.choice
        return {
            "by": self.by,
            "folds": {fold: list(names) for fold, names in self.folds.items()},
            "candidates": [self._row(number, found) for number, found in choice.best.items()],
            "failed": {self._label(number): reason for number, reason in self.failed.items()},
            "chosen": self._values(choice.candidate)
            | ({"fit.epochs": choice.chosen.epoch + 1} if self.trained else {}),
            "pcc": choice.chosen.pcc,
            "plain_pcc": None if self.plain is None else _known(self.plain.pcc),
            "sentence": self.sentence(),
        }

    def sentence(self) -> str:
        """Return what was chosen and why."""
        choice = self.choice
        parts = [f"{choice.chosen.epoch + 1} of {self.epochs} epochs"] if self.trained else []
        if len(self.candidates) > 1:
            parts.append(self._label(choice.candidate))
        names = ", ".join(list(self.folds)[:LISTED]) + (", ..." if len(self.folds) > LISTED else "")
        found = f"mean PCC {choice.chosen.pcc:.3f} over {len(self.folds)} folds ({self.by}s {names})"
        others = [number for number in choice.best if number != choice.candidate]
        if others and choice.kept:
            better = choice.best[others[0]]
            found += f", preferred to {self._label(others[0])} ({better.pcc:.3f}) within {MARGIN}"
        elif others:
            after = choice.best[others[0]]
            why = "; its error is above the gene mean's" if after.is_above_gene_mean else ""
            found += f", next {after.pcc:.3f} ({self._label(others[0])}{why})"
        if self.plain is not None and math.isfinite(self.plain.pcc):
            found += f"; plain training {self.plain.pcc:.3f}"
        return f"{' and '.join(parts)}: {found}" if parts else f"nothing to choose: {found}"

    def _label(self, number: int) -> str:
        return self.candidates[number].label or "the config's own values"

    def _values(self, number: int) -> dict[str, Any]:
        one = self.candidates[number]
        values = {**one.training, **{f"retrieval.{key}": value for key, value in one.retrieval.items()}}
        return {key: stored(value) for key, value in values.items()}

    def _row(self, number: int, found: EpochMean) -> dict[str, Any]:
        return {
            "values": self._values(number),
            "label": self._label(number),
            "epoch": found.epoch,
            "pcc": found.pcc,
            "mse": _known(found.mse),
            "gene_mean_mse": _known(found.gene_mean_mse),
            "folds": dict(found.folds),
        }


def chosen_sentence(record: Mapping[str, Any]) -> str:
    """Return a sentence about the choice of a model's record, for a report."""
    return f"chosen on its training side: {record['sentence']}"


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
