"""Arrays of a stored model, and of measured spots. Imports no torch, because encoding processes import it."""

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Float64, Int64, Shaped

Arrays = dict[str, Shaped[np.ndarray, "..."]]
"""Arrays of a stored model, by name."""

ENCODER_PREFIX = "tower."
"""Prefix of the stored arrays of an image encoder that was trained with a model."""


@runtime_checkable
class SpotArrays(Protocol):
    """Measured spots of several sections with their tiles' features, stacked."""

    @property
    def sections(self) -> tuple[str, ...]:
        """Names of the sections."""
        ...

    @property
    def group(self) -> Int64[np.ndarray, "spot"]:
        """Index into `sections` of each spot's section."""
        ...

    @property
    def boxes(self) -> Float64[np.ndarray, "spot 3"]:
        """Tiles (x, y, side) in level-0 px."""
        ...

    @property
    def features(self) -> Float32[np.ndarray, "spot feature"]:
        """Image features of each spot's tile."""
        ...

    @property
    def expression(self) -> Float32[np.ndarray, "spot gene"]:
        """Labels, by default log1p of counts per 10,000; NaN where the spot's section has not measured the gene."""
        ...

    @property
    def totals(self) -> Float64[np.ndarray, "spot"]:
        """Total counts of each spot."""
        ...


def tower_identity(fingerprint: str) -> str:
    """Return the identity of the image encoder that was trained with the model of this fingerprint."""
    return f"tower:{fingerprint}"


def encoder_weights(arrays: Arrays) -> Arrays:
    """Return the weights of the image encoder that was trained with a model, by its own names; empty without one."""
    return {name.removeprefix(ENCODER_PREFIX): value for name, value in arrays.items() if _is_encoder(name)}


def without_encoder(arrays: Arrays) -> Arrays:
    """Return the other arrays of the model."""
    return {name: value for name, value in arrays.items() if not _is_encoder(name)}


def _is_encoder(name: str) -> bool:
    return name.startswith(ENCODER_PREFIX)
