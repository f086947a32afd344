"""How far a query lies from its bank, and whether that is farther than the bank's own kind ever lies.

An average over neighbours is given for every tile, also for one that looks like nothing in the bank. The distance to
the nearest row says so; it is held against quantiles of tiles that are known to belong, searched without their own
patient.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float32

from raystp.errors import ModelError

QUANTILES = {"q50": 0.5, "q95": 0.95, "q99": 0.99}


def nearest_distance(best: Float32[np.ndarray, "query"], metric: str) -> Float32[np.ndarray, "query"]:
    """Return the distance to the nearest row by its score: 1 - cosine, or the Euclidean distance (scores are -d^2)."""
    found: np.ndarray = 1 - best if metric == "cosine" else np.sqrt(np.maximum(-best, 0))
    return np.asarray(np.maximum(found, 0), np.float32)


def calibrate(distances: Float32[np.ndarray, "query"]) -> dict[str, float]:
    """Return the quantiles that later distances are held against. Raises ModelError where there are no distances."""
    if not len(distances):
        msg = "there are no distances to calibrate by: search tiles of the reference without their own patient"
        raise ModelError(msg)
    return {name: float(np.quantile(distances, share)) for name, share in QUANTILES.items()}


def far_from(
    distances: Float32[np.ndarray, "query"], quantiles: Mapping[str, float], beyond: str = "q99"
) -> Bool[np.ndarray, "query"]:
    """Say which queries lie farther from the bank than that quantile of its own kind."""
    far: np.ndarray = distances > quantiles[beyond]
    return far
