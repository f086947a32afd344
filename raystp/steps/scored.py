"""Predictions that are to be scored together, each with its model."""

from dataclasses import dataclass
from typing import Any

from raystp.artifacts import Artifact, open_place
from raystp.errors import ConfigError
from raystp.models.store import load_model
from raystp.storage import Place


@dataclass(frozen=True)
class Scored:
    """One model's predictions."""

    name: str
    prediction: Artifact
    model: Artifact
    meta: dict[str, Any]


def open_models(predictions: list[Artifact], store: str) -> list[Scored]:
    """Open each prediction's model; raises ConfigError unless all are of one protocol and one panel."""
    opened = []
    for one in predictions:
        model = open_place(Place.of(store) / one.manifest.inputs["model"], "train")
        kind, _, meta = load_model(model.place)
        opened.append((kind, one, model, meta))
    kinds = [kind for kind, *_ in opened]
    scored = [
        Scored(kind if kinds.count(kind) == 1 else model.manifest.name, one, model, meta)
        for kind, one, model, meta in opened
    ]
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
