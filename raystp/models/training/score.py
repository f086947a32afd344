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
    compared: tuple["ValidationScore", ...] = ()
    """Of the same model with other retrievals, in the order of `retrieval.compare`."""

    @property
    def is_above_gene_mean(self) -> bool:
        """Whether the error is above that of the training means; False where either is unknown."""
        return self.mse > self.gene_mean_mse

    def row(self) -> dict[str, float | None]:
        """Return the errors, and the scores of other retrievals, as columns of an epoch; None where one is unknown."""
        values = {"validation_mse": self.mse, "gene_mean_mse": self.gene_mean_mse}
        for number, one in enumerate(self.compared, 1):
            values |= {f"validation_pcc/{number}": one.pcc, f"validation_mse/{number}": one.mse}
        return {name: value if math.isfinite(value) else None for name, value in values.items()}

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
