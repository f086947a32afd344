"""Textures of synthetic tissue: solid, fibres, holes, rings; all as smooth fields of floats.

A field is drawn on the coarsest grid that its detail allows, and then enlarged. So a slide of 16 million pixels takes
seconds.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

CELLS_PER_PERIOD = 5
"""Cells after which a pattern of cells repeats; warping hides the repetition."""

BASE_UM = 9.0
"""Width of the ring of a gland's nuclei."""


@dataclass(frozen=True)
class TextureLayer:
    """One texture over a whole slide, relative to its tissue type's own amounts."""

    eosin: Float32[np.ndarray, "row col"]
    haze: Float32[np.ndarray, "row col"]
    nucleus_chance: Float32[np.ndarray, "row col"]
    """Probability that a nucleus is kept here, 0 to 1."""
    angle: Float32[np.ndarray, "row col"]
    """Direction of a nucleus's long axis, radians from the x axis."""


def enlarge(field: Float32[np.ndarray, "from_row from_col"], shape: tuple[int, int]) -> Float32[np.ndarray, "row col"]:
    """Return a field resampled to (rows, columns) `shape`, bicubic, edges aligned with edges."""
    image = Image.fromarray(field).resize((shape[1], shape[0]), Image.Resampling.BICUBIC)
    return np.asarray(image, dtype=np.float32)


def noise(rng: np.random.Generator, shape: tuple[int, int], sigma: float) -> Float32[np.ndarray, "row col"]:
    """Return smooth Gaussian noise of mean 0 and standard deviation 1, with features about 2 `sigma` pixels wide."""
    step = max(1, int(sigma / 2.0))
    coarse = (-(-shape[0] // step), -(-shape[1] // step))
    field = gaussian_filter(rng.standard_normal(coarse, dtype=np.float32), sigma / step, truncate=3.0)
    field = (field - field.mean()) / max(float(field.std()), 1e-6)
    return enlarge(field, shape) if step > 1 else field


def solid(rng: np.random.Generator, shape: tuple[int, int], um: float) -> TextureLayer:
    """Return sheets of unordered cells; `um` is the size of a pixel."""
    eosin = 1.0 + 0.16 * noise(rng, shape, 9.0 / um) + 0.12 * noise(rng, shape, 2.5 / um)
    angle = 3.0 * noise(rng, shape, 12.0 / um)
    return TextureLayer(np.maximum(eosin, 0.2), np.maximum(eosin, 0.2), np.ones(shape, np.float32), angle)


def fibres(rng: np.random.Generator, shape: tuple[int, int], um: float) -> TextureLayer:
    """Return wavy bundles: contour lines of a smooth height map, with clefts between the bundles."""
    rows, cols = np.indices((shape[0] // 4 + 1, shape[1] // 4 + 1), dtype=np.float32) * np.float32(4.0 * um)
    slope = rng.uniform(0.0, 2.0 * np.pi)
    bumps = noise(rng, rows.shape, 70.0 / (4.0 * um)) * 80.0 + noise(rng, rows.shape, 20.0 / (4.0 * um)) * 8.0
    height = (cols * np.cos(slope) + rows * np.sin(slope) + bumps).astype(np.float32)
    down, across = np.gradient(height)
    phase = enlarge(height, shape) + 1.2 * noise(rng, shape, 4.0 / um)
    strands = 0.16 * np.sin(phase * np.float32(0.9)) + 0.12 * np.sin(phase * np.float32(0.37))
    cleft = np.clip(6.0 * (np.sin(phase * np.float32(0.13)) + 0.25 * noise(rng, shape, 8.0 / um) - 0.95), 0.0, 1.0)
    eosin = np.clip((1.0 + strands + 0.10 * noise(rng, shape, 2.0 / um)) * (1.0 - 0.85 * cleft), 0.0, None)
    along = np.arctan2(-enlarge(across, shape), enlarge(down, shape))  # perpendicular to the gradient
    return TextureLayer(eosin.astype(np.float32), eosin.astype(np.float32), (1.0 - cleft).astype(np.float32), along)


def holes(rng: np.random.Generator, shape: tuple[int, int], um: float) -> TextureLayer:
    """Return fat: empty cells of 65 um, thin membranes, and flat nuclei along them."""
    first, second, angle = _cells(rng, shape, 65.0 / um)
    gap = (second - first) * np.float32(um)
    membrane = np.clip(1.6 - gap / 3.0, 0.0, 1.0)
    return TextureLayer(membrane, membrane, membrane, angle + np.float32(np.pi / 2.0))


def rings(rng: np.random.Generator, shape: tuple[int, int], um: float) -> TextureLayer:
    """Return glands: a bright lumen, a ring of tall cells with nuclei at their base, fibrous tissue between."""
    first, _, angle = _cells(rng, shape, 92.0 / um)
    radius = first * np.float32(um)
    inside = np.clip((radius - 12.0) / 3.0, 0.0, 1.0)
    outside = np.clip((radius - 37.0) / 3.0, 0.0, 1.0)
    grain = np.maximum(1.0 + 0.14 * noise(rng, shape, 3.0 / um), 0.2)
    base = (np.abs(radius - 30.5) < 0.5 * BASE_UM).astype(np.float32) + 0.03 * outside
    return TextureLayer(grain * (inside + 0.15 * outside), grain * inside * (1.0 - 0.9 * outside), base, angle)


TEXTURES: dict[str, Callable[[np.random.Generator, tuple[int, int], float], TextureLayer]] = {
    "solid": solid,
    "fibres": fibres,
    "holes": holes,
    "rings": rings,
}


def _cells(
    rng: np.random.Generator, shape: tuple[int, int], spacing: float
) -> tuple[Float32[np.ndarray, "row col"], Float32[np.ndarray, "row col"], Float32[np.ndarray, "row col"]]:
    """Return distances in pixels to the nearest and second nearest cell centre, and the direction from the nearest."""
    period = round(CELLS_PER_PERIOD * spacing)
    grid = np.stack(np.meshgrid(*[np.arange(CELLS_PER_PERIOD)] * 2, indexing="ij"), axis=-1).reshape(-1, 2)
    centres = (grid + 0.5 + rng.uniform(-0.28, 0.28, grid.shape)) * period / CELLS_PER_PERIOD
    pixels = np.stack(np.meshgrid(*[np.arange(period)] * 2, indexing="ij"), axis=-1).reshape(-1, 2)
    distance, nearest = cKDTree(centres, boxsize=period).query(pixels, k=2)
    offset = (pixels - centres[nearest[:, 0]] + period / 2.0) % period - period / 2.0
    rows, cols = np.indices(shape, dtype=np.float32)
    warp = spacing / 14.0
    at_row = (rows + warp * noise(rng, shape, spacing / 3.0)).astype(np.int32) % period
    at_col = (cols + warp * noise(rng, shape, spacing / 3.0)).astype(np.int32) % period
    at = at_row * period + at_col
    first, second = distance.astype(np.float32).T
    return first[at], second[at], np.arctan2(*offset.T).astype(np.float32)[at]
