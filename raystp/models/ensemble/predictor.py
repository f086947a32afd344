"""A stored ensemble, ready to predict: its members' arrays are in one file, and their records in its own record.

A member reads its own columns of the ensemble's features. A contrastive member has its reference rows beside its arrays
and predicts through them; the search is not part of this package, so the caller of `open_predictor` passes it.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int64

from raystp.errors import ModelError
from raystp.models import methods
from raystp.models.arrays import Arrays
from raystp.models.method import ModelMeta
from raystp.models.predictor import (
    ContrastivePredictor,
    DirectPredictor,
    NeighbourArrays,
    NeighbourPredictor,
    Retriever,
    checked_rows,
)

REFERENCE = "reference/"
"""Prefix of the arrays of a contrastive member's reference rows."""

Columns = Int64[np.ndarray, " column"]


@dataclass(frozen=True)
class EnsembleMember:
    """A model of an ensemble, and the columns of the ensemble's features that it reads; None for all."""

    model: DirectPredictor
    columns: Columns | None = None

    def predict(
        self, features: Float32[np.ndarray, "tile feature"], neighbours: NeighbourArrays | None
    ) -> Float32[np.ndarray, "tile gene"]:
        """Return the model's prediction at all tiles of one slide."""
        own = features if self.columns is None else np.ascontiguousarray(features[:, self.columns])
        if isinstance(self.model, NeighbourPredictor):
            return self.model.predict(own, neighbours=neighbours)
        return self.model.predict(own)


@dataclass(frozen=True)
class EnsemblePredictor:
    """The weighted mean of models with the same genes."""

    kind: str
    genes: list[str]
    d_image: int
    members: tuple[EnsembleMember, ...]
    weights: tuple[float, ...]

    @property
    def needs_neighbours(self) -> bool:
        """Whether a member needs the `neighbours` of `predict`."""
        models = (one.model for one in self.members)
        return any(isinstance(one, NeighbourPredictor) and one.needs_neighbours for one in models)

    def predict(
        self, features: Float[np.ndarray, "tile feature"], *, neighbours: NeighbourArrays | None = None
    ) -> Float32[np.ndarray, "tile gene"]:
        """Return the mean prediction at all tiles of one slide.

        Where a member does not predict a gene (NaN), the mean is that of the others. Raises ModelError for features of
        another encoder.
        """
        rows = checked_rows(features, self.d_image, self.kind)
        return weighted_mean((one.predict(rows, neighbours) for one in self.members), self.weights)


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


def stored_member(
    number: int, kind: str, arrays: Arrays, meta: dict[str, Any], *, columns: Columns | None = None
) -> tuple[Arrays, dict[str, Any]]:
    """Return what an ensemble stores of a member: its arrays under a prefix, and an item of the record's `members`.

    The arrays include the reference rows (`REFERENCE`) of a contrastive member.
    """
    record: dict[str, Any] = {"kind": kind, "meta": meta}
    if columns is not None:
        record["columns"] = _ranges(columns)
    return {f"{number}/{name}": value for name, value in arrays.items()}, record


def open_predictor(arrays: Arrays, meta: ModelMeta, retriever: Retriever | None = None) -> EnsemblePredictor:
    """Return a stored ensemble with all its members; raises ModelError for a contrastive member without `retriever`."""
    opened = []
    for number, one in enumerate(meta["members"]):
        own = _with_prefix(arrays, f"{number}/")
        columns = None if "columns" not in one else columns_of(one["columns"])
        opened.append(EnsembleMember(_open_member(one["kind"], own, one["meta"], retriever), columns))
    weights = tuple(arrays["weights"].tolist())
    return EnsemblePredictor("ensemble", meta["genes"], meta["d_image"], tuple(opened), weights)


def columns_of(ranges: Sequence[Sequence[int]]) -> Columns:
    """Return the columns of ranges [first, end)."""
    return np.concatenate([np.arange(first, end, dtype=np.int64) for first, end in ranges])


def _ranges(columns: Columns) -> list[list[int]]:
    """Return columns as ranges [first, end), in their order."""
    starts = [0, *(np.flatnonzero(np.diff(columns) != 1) + 1).tolist(), len(columns)]
    pairs = itertools.pairwise(starts)
    return [[int(columns[first]), int(columns[end - 1]) + 1] for first, end in pairs]


def _open_member(kind: str, arrays: Arrays, meta: Mapping[str, Any], retriever: Retriever | None) -> DirectPredictor:
    reference = _with_prefix(arrays, REFERENCE)
    own = {name: value for name, value in arrays.items() if not name.startswith(REFERENCE)}
    member = methods.open_predictor(kind, own, meta, retriever=retriever)
    if not isinstance(member, ContrastivePredictor):
        return member
    if retriever is None or not reference:
        lacking = "reference rows" if not reference else "a search: open it with `raystp.steps.train.reference`"
        msg = f"a member of the ensemble is a {member.kind} model without {lacking}"
        raise ModelError(msg)
    return retriever(member, reference, meta)


def _with_prefix(arrays: Arrays, prefix: str) -> Arrays:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
