"""Features as deviations from their training mean, in standard deviations."""

import numpy as np
from jaxtyping import Float
from sklearn.preprocessing import StandardScaler


def standardiser(
    features: Float[np.ndarray, "spot feature"],
) -> tuple[Float[np.ndarray, "feature"], Float[np.ndarray, "feature"]]:
    """Return the mean and the standard deviation of each feature; a constant feature has deviation 1."""
    scaler = StandardScaler().fit(features.astype(np.float64))
    return scaler.mean_, scaler.scale_
