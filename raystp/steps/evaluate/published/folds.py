"""Predictions of several folds, grouped into models.

A pipeline trains a model once per fold, `train/<name>-fold1` and so on. All folds of one name are one model here.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from raystp.artifacts import Artifact, open_artifact
from raystp.errors import ConfigError, some
from raystp.models.store import load_model
from raystp.steps.evaluate.predictions import Prediction, check_comparable, check_complete
from raystp.storage import StoragePath

_FOLD = re.compile(r"(?P<name>.+)-fold(?P<number>\d+)")


@dataclass(frozen=True)
class FoldedModel:
    """One model, trained once per fold."""

    name: str
    folds: tuple[Prediction, ...]
    """In the order of their numbers; each is named `fold <number>`."""
    numbers: tuple[int, ...]

    @property
    def genes(self) -> tuple[str, ...]:
        """The panel."""
        return self.folds[0].genes


def open_folds(predictions: Sequence[Artifact], store: str) -> list[FoldedModel]:
    """Open each prediction's model, and group them by the name before `-fold<number>`.

    A model is named by its method, or by its artifacts where several have one method. A name without a number is a
    model of one fold. Raises ConfigError for a fold that is given twice, for two models of one name, and for different
    panels.
    """
    groups: dict[str, dict[int, Prediction]] = {}
    methods: dict[str, str] = {}
    for one in predictions:
        check_complete(one)
        model = open_artifact(StoragePath.of(store) / one.manifest.inputs["model"], "train")
        name, number = fold_of(model.manifest.name)
        kind, _, meta = load_model(model.path)
        own = groups.setdefault(name, {})
        if number in own:
            msg = (
                f"predictions: fold {number} of '{name}' is given twice, {own[number].prediction.path} and {one.path}: "
                "remove one, or train each model with its own `name`"
            )
            raise ConfigError(msg)
        own[number] = Prediction(f"{name} fold {number}", one, model, meta)
        methods[name] = kind
    opened = [one for own in groups.values() for one in own.values()]
    for other in opened[1:]:
        check_comparable(opened[0], other)
    kinds = list(methods.values())
    names = [name if kinds.count(methods[name]) > 1 else methods[name] for name in groups]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        msg = f"predictions: several models have the name {some(repeated)}; train each with its own `name`"
        raise ConfigError(msg)
    return [_folded(name, dict(sorted(own.items()))) for name, own in zip(names, groups.values(), strict=True)]


def fold_of(name: str) -> tuple[str, int]:
    """Return the name of a model and the number of its fold; 1 for a name without one."""
    found = _FOLD.fullmatch(name)
    return (name, 1) if found is None else (found["name"], int(found["number"]))


def check_same_folds(models: Sequence[FoldedModel]) -> None:
    """Raise ConfigError unless all models have the same folds: the same test sections under each number."""
    first = models[0]
    for other in models[1:]:
        for model, rest in ((first, other), (other, first)):
            lacking = [f"fold {number}" for number in model.numbers if number not in rest.numbers]
            if lacking:
                msg = f"predictions: {rest.name} has no prediction of {some(lacking)}, and {model.name} has: add them"
                raise ConfigError(msg)
        for number, own, its in zip(first.numbers, first.folds, other.folds, strict=True):
            if set(own.meta["test"]) != set(its.meta["test"]):
                msg = (
                    f"predictions: fold {number} tests {some(sorted(own.meta['test']))} for {first.name} and "
                    f"{some(sorted(its.meta['test']))} for {other.name}: train both on the same folds"
                )
                raise ConfigError(msg)


def _folded(name: str, folds: dict[int, Prediction]) -> FoldedModel:
    return FoldedModel(name, tuple(replace(one, name=f"fold {number}") for number, one in folds.items()), tuple(folds))
