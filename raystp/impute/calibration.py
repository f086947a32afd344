"""A linear correction of predictions, fitted on validation spots: averages over neighbours vary less than measurements.

    calibrated = centre + slope x (predicted - centre)        centre: the gene's mean prediction on the validation spots

One slope serves all genes, so no gene's correlation changes. `spread` gives predictions the spread of the
measurements: slope^2 is the ratio of the variances, summed over genes. `mse` is the least-squares slope: predictions
then vary as much as they explain. Variances are within the validation sections, so that differences in level between
sections do not count. Expression that is corrected may be below 0.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Float32, Int64

from raystp.errors import ModelError
from raystp.missing import column_means

CalibrateTo = Literal["none", "spread", "mse"]


@dataclass(frozen=True)
class Calibration:
    """The correction of a model's predictions, all of one retrieval."""

    slope: float
    centre: Float32[np.ndarray, "gene"]

    def expression(
        self, predicted: Float32[np.ndarray, "tile gene"], genes: Int64[np.ndarray, "gene"] | None = None
    ) -> Float32[np.ndarray, "tile gene"]:
        """Return the corrected predictions of these genes (columns of the model), or of all."""
        centre = self.centre if genes is None else self.centre[genes]
        corrected: np.ndarray = centre + np.float32(self.slope) * (predicted - centre)
        return corrected

    def spread(self, spread: Float32[np.ndarray, "tile gene"]) -> Float32[np.ndarray, "tile gene"]:
        """Return the standard deviation among neighbours, in the unit of the corrected predictions."""
        scaled: np.ndarray = np.float32(self.slope) * spread
        return scaled

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, for a model's record."""
        return {"slope": self.slope, "centre": self.centre.tolist()}

    @classmethod
    def from_json(cls, recorded: Mapping[str, Any]) -> "Calibration":
        """Return the calibration of a model's record."""
        return cls(float(recorded["slope"]), np.asarray(recorded["centre"], np.float32))


def fit_calibration(
    predicted: Float[np.ndarray, "spot gene"],
    measured: Float[np.ndarray, "spot gene"],
    section: Int64[np.ndarray, "spot"],
    to: Literal["spread", "mse"],
) -> Calibration:
    """Fit the slope on validation spots; a value that is not measured or not predicted (NaN) is left out.

    Raises ModelError where the predictions do not vary, or have no positive slope.
    """
    known = ~(np.isnan(predicted) | np.isnan(measured))
    own = np.where(known, predicted, np.nan).astype(np.float64)
    true = np.where(known, measured, np.nan).astype(np.float64)
    centre = np.nan_to_num(column_means(own))
    for number in np.unique(section).tolist():
        rows = section == number
        own[rows] -= column_means(own[rows])
        true[rows] -= column_means(true[rows])
    own_square, true_square, product = (float(np.nansum(values)) for values in (own * own, true * true, own * true))
    explained = true_square if to == "spread" else product
    if not own_square > 0 or not explained > 0:
        msg = (
            f"the predictions of {len(predicted)} validation spots have variance {own_square:.3g} and covariance "
            f"{product:.3g} with the measurements: no slope above 0 fits; set retrieval.calibrate=none"
        )
        raise ModelError(msg)
    slope = (explained / own_square) ** 0.5 if to == "spread" else explained / own_square
    return Calibration(slope, centre.astype(np.float32))
