"""Trainings on the folds of a training side, and what their scores choose.

A fold is an ordinary training: the others train, the held-out patient or section validates, and the test side is never
read. So a finished fold is an artifact, and a killed run does only what is missing.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raystp import tables
from raystp.artifacts import Artifact
from raystp.config import relative_paths
from raystp.errors import ConfigError, ModelError
from raystp.evaluate.protocols import protocol_of
from raystp.expression.folds import leave_one_out
from raystp.expression.sections import sections_of
from raystp.steps.train.choice.candidates import Candidate
from raystp.steps.train.choice.choose import EpochMean, FoldScore, choose, mean_curve
from raystp.steps.train.choice.record import Comparison
from raystp.steps.train.plan import Sources
from raystp.steps.train.retrieval_config import RetrievalConfig
from raystp.steps.train.spots.config import SpotsTrainConfig
from raystp.steps.train.spots.plan import open_sources, split_sections
from raystp.storage import StoragePath

TrainAll = Callable[[Sequence[SpotsTrainConfig]], Sequence[Artifact | str]]
"""Runs trainings; in place of a model, returns why one cannot be made."""

NAME_LENGTH = 64


@dataclass(frozen=True)
class Chosen:
    """The outcome of a choice."""

    config: SpotsTrainConfig
    """The training on the whole training side, with the chosen values."""
    record: dict[str, Any]


@dataclass(frozen=True)
class Folds:
    """The folds of a training side, and the trainings that they need."""

    config: SpotsTrainConfig
    candidates: Sequence[Candidate]
    by: str
    held: Mapping[str, Sequence[str]]
    """Fold -> its held-out sections."""

    @property
    def trainings(self) -> list[Mapping[str, Any]]:
        """The values that need trainings of their own."""
        return _unique([one.training for one in self.candidates])

    @property
    def compared(self) -> list[Mapping[str, Any]]:
        """The retrievals that each training is scored with beside its own."""
        own = self.config.retrieval.over({})
        return [one for one in _unique([one.retrieval for one in self.candidates]) if self._retrieval(one) != own]

    def configs(self) -> list[tuple[int, str, SpotsTrainConfig]]:
        """Return the position among `trainings`, the fold and the config of each training."""
        return [
            (number, fold, self._config(values, fold))
            for number, values in enumerate(self.trainings)
            for fold in self.held
        ]

    def scores_of(self, number: int, fold: str, model: Artifact) -> list[FoldScore]:
        """Return the scores of all candidates that a training answers."""
        rows = model.table("validation.parquet", tables.VALIDATION).to_pylist()
        scores = []
        for position, candidate in enumerate(self.candidates):
            if candidate.training != self.trainings[number]:
                continue
            of = self.compared.index(candidate.retrieval) + 1 if candidate.retrieval in self.compared else 0
            scores += [
                FoldScore(position, fold, row["epoch"], row["pcc"], row["mse"], row["gene_mean_mse"])
                for row in rows
                if row["retrieval"] == of
            ]
        return scores

    def refit(self, number: int, epochs: int) -> SpotsTrainConfig:
        """Return the training on the whole training side with a candidate's values."""
        one = self.candidates[number]
        changes: dict[str, Any] = {**one.training, "choose": None, "fit.select": "last", "fit.patience": None}
        if one.retrieval:
            fields = self._retrieval(one.retrieval).model_dump(mode="json", exclude={"compare", "calibrate"})
            changes |= {f"retrieval.{key}": value for key, value in fields.items()}
        if self.config.method.is_trained:
            changes["fit.epochs"] = epochs
        return self.config.changed(changes)

    def _retrieval(self, changes: Mapping[str, Any]) -> RetrievalConfig:
        return self.config.retrieval.over(changes)

    def _config(self, values: Mapping[str, Any], fold: str) -> SpotsTrainConfig:
        config, held = self.config, list(self.held[fold])
        slug = re.sub(r"[^A-Za-z0-9._-]", "-", fold)
        changes: dict[str, Any] = {
            **values,
            "choose": None,
            "fit.select": "best_pcc",
            "split.train": [name for names in self.held.values() for name in names if name not in held],
            "split.validation": held,
            "name": f"{config.name}.cv-{slug}"[:NAME_LENGTH],
            "run.tracking": "none",
            "run.store": StoragePath.of(config.run.store).uri,
        }
        if config.panel.absent == "mask":
            changes["panel.absent"] = "drop"  # the only section that has measured a gene may be held out
        if config.method.needs_index:
            changes["retrieval.compare"] = [dict(one) for one in self.compared]
        changed = config.changed(changes, "choose")
        return changed.changed({key: StoragePath.of(path).uri for key, path in relative_paths(changed)})


def folds_of(config: SpotsTrainConfig, sources: Sources) -> Folds:
    """Return the folds; raises ConfigError for fewer than two sections, and for values that do not fit the config."""
    held = _held_out(config, sources)
    candidates = _fitting(config)
    for values in _unique([one.training for one in candidates]):
        if set(values) & config.where:
            _check_same(config.changed(values, "choose"), held)
    return Folds(config, candidates, *held)


def choice_inputs(config: SpotsTrainConfig) -> dict[str, Artifact | str]:
    """Return the artifacts that only a candidate reads, for the fingerprint."""
    inputs: dict[str, Artifact | str] = {}
    for number, values in enumerate(_unique([one.training for one in _fitting(config)])):
        if set(values) & config.where:
            found = open_sources(config.changed(values, "choose")).inputs()
            inputs |= {f"choice {number} {role}": one for role, one in found.items()}
    return inputs


def choose_on_folds(folds: Folds, train_all: TrainAll) -> Chosen:
    """Train on every fold and choose; raises ModelError where no candidate could be trained on all folds."""
    planned, scores, failed = folds.configs(), list[FoldScore](), dict[int, str]()
    for (number, fold, _), model in zip(planned, train_all([one for _, _, one in planned]), strict=True):
        if isinstance(model, str):
            failed[number] = model
        else:
            scores += folds.scores_of(number, fold, model)
    lost = {
        position: failed[number]
        for position, one in enumerate(folds.candidates)
        if (number := folds.trainings.index(one.training)) in failed
    }
    if len(lost) == len(folds.candidates):
        msg = (
            f"fit.select=cv: no candidate could be trained on every fold; the first reason: {next(iter(lost.values()))}"
        )
        raise ModelError(msg)
    choice = choose([one for one in scores if one.candidate not in lost])
    comparison = Comparison(
        candidates=folds.candidates,
        by=folds.by,
        folds=folds.held,
        choice=choice,
        failed=lost,
        trained=folds.config.method.is_trained,
        epochs=folds.config.fit.epochs,
        plain=_plain(folds, scores),
    )
    refit = folds.refit(choice.candidate, choice.chosen.epoch + 1)
    return Chosen(refit, comparison.record() | {"curve": _curve(scores, choice.candidate)})


def _curve(scores: Sequence[FoldScore], candidate: int) -> list[float | None]:
    """Return a candidate's mean PCC by epoch; None where a fold has none."""
    return [one.pcc if math.isfinite(one.pcc) else None for one in mean_curve(scores, candidate)]


def _plain(folds: Folds, scores: Sequence[FoldScore]) -> EpochMean | None:
    """Return the score of the config's own values after as many epochs as a training without validation has."""
    config, method = folds.config, folds.config.method
    own = [number for number, one in enumerate(folds.candidates) if config.has_values(one)]
    curve = mean_curve(scores, own[0]) if own else []
    is_published = config.fit.epochs == method.published_fit({}).epochs
    last = (is_published and method.unvalidated_epochs) or config.fit.epochs
    reached = [one for one in curve if one.epoch < last]
    return reached[-1] if reached else None


def _held_out(config: SpotsTrainConfig, sources: Sources) -> tuple[str, dict[str, list[str]]]:
    spots, known = sources.measured, sections_of(sources.measured)
    split = split_sections(config, spots, sources.images, protocol_of(config.split.protocol))
    return leave_one_out({name: str(known[name]["patient"]) for name in split.train})


def _check_same(config: SpotsTrainConfig, held: tuple[str, dict[str, list[str]]]) -> None:
    """Raise ConfigError where other embeddings have other slides: their scores would be of other sections."""
    if (found := _held_out(config, open_sources(config))) != held:
        msg = f"choose: embeddings {config.embeddings} have the training sections {found[1]}, others have {held[1]}"
        raise ConfigError(f"{msg}: name the sections that all have in split.train")


def _fitting(config: SpotsTrainConfig) -> list[Candidate]:
    """Return the candidates whose values the config accepts; of values that a config lists, all must be accepted."""
    kept = []
    for one in config.candidates:
        try:
            config.changed(one.training, "choose")
            config.retrieval.over(one.retrieval)
        except (ConfigError, ValueError) as error:
            if config.choose is not None:
                raise error if isinstance(error, ConfigError) else ConfigError(f"choose: {error}") from None
        else:
            kept.append(one)
    return kept or [Candidate({}, {})]


def _unique(values: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    for one in values:
        if one not in found:
            found.append(one)
    return found
