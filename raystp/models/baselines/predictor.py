"""A stored baseline, ready to predict."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

from raystp.models.arrays import Arrays
from raystp.models.predictor import checked_rows


@dataclass(frozen=True)
class BaselinePredictor:
    """Arrays of a baseline, and the function that predicts from them."""

    kind: str
    genes: list[str]
    d_image: int
    arrays: Arrays
    apply: Callable[[Arrays, Float[np.ndarray, "query feature"]], Float32[np.ndarray, "query gene"]]

    def predict(self, features: Float[np.ndarray, "query feature"]) -> Float32[np.ndarray, "query gene"]:
        """Return the expression of `genes` at each tile; raises ModelError for features of another encoder."""
        return self.apply(self.arrays, checked_rows(features, self.d_image, self.kind))
