"""A stored ensemble, ready to predict: its members' arrays are in one file, and their records in its own record."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float32

from raystp.errors import ModelError
from raystp.models import methods
from raystp.models.arrays import Arrays
from raystp.models.method import ModelMeta
from raystp.models.predictor import (
    ContrastivePredictor,
    DirectPredictor,
    NeighbourArrays,
    NeighbourPredictor,
    checked_rows,
)


@dataclass(frozen=True)
class EnsemblePredictor:
    """The weighted mean of models that predict from features alone, with the same genes."""

    kind: str
    genes: list[str]
    d_image: int
    members: tuple[DirectPredictor, ...]
    weights: tuple[float, ...]

    @property
    def needs_neighbours(self) -> bool:
        """Whether a member needs the `neighbours` of `predict`."""
        return any(isinstance(one, NeighbourPredictor) and one.needs_neighbours for one in self.members)

    def predict(
        self, features: Float[np.ndarray, "tile feature"], *, neighbours: NeighbourArrays | None = None
    ) -> Float32[np.ndarray, "tile gene"]:
        """Return the mean prediction at all tiles of one slide.

        Where a member does not predict a gene (NaN), the mean is that of the others. Raises ModelError for features of
        another encoder.
        """
        rows = checked_rows(features, self.d_image, self.kind)
        predictions = (
            one.predict(rows, neighbours=neighbours) if isinstance(one, NeighbourPredictor) else one.predict(rows)
            for one in self.members
        )
        return weighted_mean(predictions, self.weights)


def weighted_mean(
    predictions: Iterable[Float32[np.ndarray, "row gene"]], weights: Sequence[float]
) -> Float32[np.ndarray, "row gene"]:
    """Return the weighted mean of one or more predictions; NaN where all are NaN, or have the weight 0."""
    total: Any = 0.0
    share: Any = np.float32(0)
    for predicted, weight in zip(predictions, weights, strict=True):
        absent = np.isnan(predicted)
        total = total + np.float32(weight) * np.where(absent, np.float32(0), predicted)
        share = share + np.float32(weight) * (~absent if absent.any() else np.float32(1))
    return np.asarray(total / np.where(share > 0, share, np.float32(np.nan)), np.float32)


def stored_member(number: int, kind: str, arrays: Arrays, meta: dict[str, Any]) -> tuple[Arrays, dict[str, Any]]:
    """Return what an ensemble stores of a member: its arrays under a prefix, and an item of the record's `members`."""
    return {f"{number}/{name}": value for name, value in arrays.items()}, {"kind": kind, "meta": meta}


def open_predictor(arrays: Arrays, meta: ModelMeta) -> EnsemblePredictor:
    """Return a stored ensemble with all its members."""
    opened = []
    for number, one in enumerate(meta["members"]):
        own = {
            name.removeprefix(f"{number}/"): value for name, value in arrays.items() if name.startswith(f"{number}/")
        }
        member = methods.open_predictor(one["kind"], own, one["meta"])
        if isinstance(member, ContrastivePredictor):
            msg = f"a member of the ensemble is a {member.kind} model, which does not predict from features alone"
            raise ModelError(msg)
        opened.append(member)
    weights = tuple(arrays["weights"].tolist())
    return EnsemblePredictor("ensemble", meta["genes"], meta["d_image"], tuple(opened), weights)
