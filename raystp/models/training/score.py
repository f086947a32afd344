"""What a validation says of a model: its correlation, and its error beside that of the training means."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class ValidationScore:
    """Score of a model on the validation side, in the labels' units."""

    pcc: float
    """Mean over genes; NaN where no gene has one."""
    mse: float = math.nan
    """Mean squared error of the prediction; NaN where it was not computed."""
    gene_mean_mse: float = math.nan
    """The same of the training means, which any model should undercut."""

    @property
    def is_above_gene_mean(self) -> bool:
        """Whether the error is above that of the training means; False where either is unknown."""
        return self.mse > self.gene_mean_mse

    @classmethod
    def of(
        cls,
        pcc: float,
        predicted: Float[np.ndarray, "sample gene"],
        measured: Float[np.ndarray, "sample gene"],
        training_mean: Float[np.ndarray, " gene"],
    ) -> "ValidationScore":
        """Return the score over all values that are measured and predicted: NaN is neither."""
        known = ~(np.isnan(predicted) | np.isnan(measured) | np.isnan(training_mean))
        if not known.any():
            return cls(pcc)
        mean = np.broadcast_to(training_mean, measured.shape)
        error, other = (
            np.square(side[known].astype(np.float64) - measured[known]).mean() for side in (predicted, mean)
        )
        return cls(pcc, float(error), float(other))
