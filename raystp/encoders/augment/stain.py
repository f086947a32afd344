"""Stains of a tile: optical density, stain colours, and amounts that are multiplied by factors.

Light that passes a stain is absorbed by a share, so the densities of stains add up (Beer-Lambert). The density of a
channel is `-log10((v + 1) / 256)` of its value v. So 255 has density 0, and each value has its own density. A change of
the amounts is linear in the density: what no stain explains stays, and white stays white.
"""

import numpy as np
from jaxtyping import Float32, Float64, UInt8

HED_COLOURS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
"""Density of haematoxylin, eosin and DAB in red, green and blue, before normalisation (Ruifrok and Johnston 2001,
"Quantification of histochemical staining by color deconvolution")."""

REFERENCE_COLOURS = np.array([[0.5626, 0.7201, 0.4062], [0.2159, 0.8012, 0.5581]])
"""Haematoxylin and eosin of the reference image of Macenko et al. 2009, as in their published code (HERef)."""

LEAST_DENSITY = 0.15
"""Macenko's beta: a pixel with a lower density in any channel is glass."""

EXTREMES = (1.0, 99.0)
"""Macenko's alpha: percentiles of the angles that are the two stains."""

LEAST_PIXELS = 100
"""Fewest stained pixels that colours are estimated from."""

LEAST_DEGREES = 5.0
"""Smallest angle between two estimated colours; those of the reference are 22 degrees apart."""

_SAMPLE = 4096
"""Most pixels of a tile that colours are estimated from, evenly spaced."""

_LOGARITHMS = np.log((np.arange(256) + 1) / 256).astype(np.float32)
"""Natural logarithm of the share of light that each value lets pass: minus its density, up to a factor."""


def hed_colours() -> Float64[np.ndarray, "stain 3"]:
    """Return haematoxylin, eosin and DAB as unit vectors of density."""
    return _unit(HED_COLOURS)


def macenko_colours(tile: UInt8[np.ndarray, "row column 3"]) -> Float64[np.ndarray, "stain 3"]:
    """Return haematoxylin and eosin of a tile, as unit vectors of density, estimated as Macenko et al. do.

    "A method for normalizing histology slides for quantitative analysis", ISBI 2009. The densities of stained pixels
    lie near a plane, that of the two largest eigenvectors of their covariance. Its extreme directions are the stains;
    haematoxylin absorbs more red. A tile with too few stained pixels, or with one stain only, has the colours of
    Macenko's reference.
    """
    values = tile.reshape(-1, 3)
    density = _LOGARITHMS[values[:: -(-len(values) // _SAMPLE)]] / -np.log(10.0)
    density = density[(density >= LEAST_DENSITY).all(axis=1)]
    if len(density) < LEAST_PIXELS:
        return _unit(REFERENCE_COLOURS)
    plane = np.linalg.eigh(np.cov(density.T))[1][:, [2, 1]]
    plane *= np.where(plane.sum(axis=0) < 0, -1.0, 1.0)
    across, along = density @ plane[:, 1], density @ plane[:, 0]
    low, high = np.percentile(np.arctan2(across, along), EXTREMES)
    if high - low < np.deg2rad(LEAST_DEGREES):
        return _unit(REFERENCE_COLOURS)
    found = np.stack([plane @ [np.cos(angle), np.sin(angle)] for angle in (low, high)])
    by_red: Float64[np.ndarray, "stain 3"] = found[np.argsort(-found[:, 0], kind="stable")]
    return by_red


def with_amounts(
    tile: UInt8[np.ndarray, "row column 3"],
    colours: Float64[np.ndarray, "stain 3"],
    factors: Float64[np.ndarray, " stain"],
) -> UInt8[np.ndarray, "row column 3"]:
    """Return the tile with the amount of each stain multiplied by its factor; factors of 1 return an equal tile.

    Amounts are the least-squares ones. Densities are clipped to those of the values 0 to 255.
    """
    change = np.eye(3) + np.linalg.pinv(colours) @ np.diag(factors - 1) @ colours
    values: Float32[np.ndarray, "pixel 3"] = _LOGARITHMS[tile.reshape(-1, 3)] @ change.astype(np.float32)
    np.exp(values, out=values)
    values *= 256
    values -= 1
    np.rint(np.clip(values, 0, 255, out=values), out=values)
    return values.astype(np.uint8).reshape(tile.shape)


def _unit(colours: Float64[np.ndarray, "stain 3"]) -> Float64[np.ndarray, "stain 3"]:
    normalised: Float64[np.ndarray, "stain 3"] = colours / np.linalg.norm(colours, axis=1, keepdims=True)
    return normalised
