"""Predictions that are to be scored together, each with its model."""

from dataclasses import dataclass
from typing import Any

from raystp.artifacts import Artifact, open_artifact
from raystp.errors import ConfigError, some
from raystp.models.store import load_model
from raystp.storage import StoragePath


@dataclass(frozen=True)
class Prediction:
    """One model's predictions."""

    name: str
    prediction: Artifact
    model: Artifact
    meta: dict[str, Any]


def open_models(predictions: list[Artifact], store: str) -> list[Prediction]:
    """Open each prediction's model; raises ConfigError unless all are of one protocol and one panel."""
    opened = []
    for one in predictions:
        _check_whole(one)
        model = open_artifact(StoragePath.of(store) / one.manifest.inputs["model"], "train")
        kind, _, meta = load_model(model.path)
        opened.append((kind, one, model, meta))
    kinds = [kind for kind, *_ in opened]
    called = [kind if kinds.count(kind) == 1 else model.manifest.name for kind, _, model, _ in opened]
    twice = sorted({name for name in called if called.count(name) > 1})
    if twice:
        msg = f"predictions: several models are called {some(twice)}: train each under a name of its own"
        raise ConfigError(msg)
    scored = [Prediction(name, one, model, meta) for name, (_, one, model, meta) in zip(called, opened, strict=True)]
    for other in scored[1:]:
        for what in ("protocol", "panel"):
            first, second = (x.prediction.manifest.notes[what] for x in (scored[0], other))
            if first != second:
                names = f"{scored[0].name} is of {what} '{first}', {other.name} of '{second}'"
                msg = f"predictions: {names}; score them apart"
                raise ConfigError(msg)
        if other.meta["genes"] != scored[0].meta["genes"]:
            msg = f"predictions: {scored[0].name} and {other.name} predict other genes; train both on one panel"
            raise ConfigError(msg)
    return scored


def _check_whole(one: Artifact) -> None:
    """Raise where a prediction is not of all the model's genes."""
    genes: list[str] = one.manifest.config.get("genes") or []
    partly = "as neighbours alone" if one.manifest.notes.get("output") == "neighbours" else ""
    if partly or genes:
        msg = f"predictions: {one.path} was left {partly or f'for {len(genes)} genes alone'}: predict all of the panel"
        raise ConfigError(msg)
