"""Nuclei of synthetic slides: a set of drawn shapes per tissue type, placed where its texture allows them."""

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8
from scipy.ndimage import gaussian_filter

from raystp.slides.synthetic.texture import TextureLayer
from raystp.slides.synthetic.tissues import TissueType

DIRECTIONS, VARIANTS = 16, 5
"""Directions of the shapes, and variants of each in size, outline and chromatin."""


def nucleus_shapes(rng: np.random.Generator, tissue: TissueType, mpp: float) -> Float32[np.ndarray, "shape side side"]:
    """Return drawn nuclei as optical density of haematoxylin, `VARIANTS` of each direction.

    The direction of shape k is `pi * (k // VARIANTS) / DIRECTIONS`; each nucleus is centred in its square.
    """
    half = int(np.ceil(0.75 * tissue.nucleus_um / mpp)) + 2
    down, right = np.mgrid[-half : half + 1, -half : half + 1] * mpp
    shapes = DIRECTIONS * VARIANTS

    def one_each(values: Float64[np.ndarray, " shape"]) -> Float64[np.ndarray, "shape 1 1"]:
        return values[:, None, None]

    angle = one_each(np.pi * (np.arange(shapes) // VARIANTS) / DIRECTIONS)
    long = one_each(0.5 * tissue.nucleus_um * np.clip(rng.lognormal(0.0, 0.16, shapes), 0.65, 1.45))
    short = long / tissue.elongation * one_each(np.clip(rng.lognormal(0.0, 0.08, shapes), 0.8, 1.25))
    u = right * np.cos(angle) + down * np.sin(angle)
    v = down * np.cos(angle) - right * np.sin(angle)
    turn, phases = np.arctan2(v, u), rng.uniform(0.0, 2.0 * np.pi, (2, shapes))
    wobble = sum(0.05 * np.cos(n * turn + one_each(phase)) for n, phase in zip((2, 3), phases, strict=True))
    radius = np.hypot(u / long, v / short) * (1.0 + wobble)
    outline = np.clip((1.0 - radius) * short / (1.2 * mpp) + 0.5, 0.0, 1.0)
    grain = 0.45 * gaussian_filter(rng.standard_normal(u.shape), (0.0, 1.2, 1.2)) + one_each(rng.normal(0, 0.1, shapes))
    x, y = rng.uniform(-0.15, 0.15, (2, shapes)) * tissue.nucleus_um
    nucleolus = 1.1 * tissue.pallor * np.exp(-((u - one_each(x)) ** 2 + (v - one_each(y)) ** 2) / 1.4)
    inside = 1.0 - tissue.pallor * np.clip(1.0 - radius**2, 0.0, 1.0) + grain + nucleolus
    return np.asarray(tissue.darkness * np.clip(outline * inside, 0.0, 2.0), dtype=np.float32)


def nucleus_centres(
    rng: np.random.Generator, layer: TextureLayer, density: float, shape: tuple[int, int]
) -> tuple[Float64[np.ndarray, "nucleus 2"], Float32[np.ndarray, " nucleus"]]:
    """Return centres (x, y) in pixels of a `shape` image, and directions, as if the tissue covered all of it.

    The centres are a jittered grid, so that nuclei seldom overlap, thinned by the layer's `nucleus_chance`. `density`
    is the mean number of nuclei per pixel after thinning.
    """
    pitch = float(np.sqrt(max(float(layer.nucleus_chance.mean()), 1e-3) / density))
    grid = np.indices((int(shape[0] / pitch) + 1, int(shape[1] / pitch) + 1)).reshape(2, -1)[::-1].T
    xy = (grid + 0.5 + rng.uniform(-0.36, 0.36, grid.shape)) * pitch
    xy = xy[(xy[:, 0] < shape[1]) & (xy[:, 1] < shape[0])]
    col, row = (
        (xy * (layer.nucleus_chance.shape[1] / shape[1], layer.nucleus_chance.shape[0] / shape[0])).astype(np.int64).T
    )
    kept = rng.random(len(xy), dtype=np.float32) < layer.nucleus_chance[row, col]
    direction = layer.angle[row, col] + rng.normal(0.0, 0.2, len(xy)).astype(np.float32)
    return xy[kept], direction[kept]


def centres_of_type(
    xy: Float64[np.ndarray, "nucleus 2"], tissue_map: UInt8[np.ndarray, "row col"], *, cell: int, kind: int
) -> Int64[np.ndarray, " kept"]:
    """Return the numbers of the centres on cells of type `kind`."""
    col, row = (xy / cell).astype(np.int64).T
    return np.flatnonzero(tissue_map[row, col] == kind)


def stamp(
    image: Float32[np.ndarray, "row col"],
    shapes: Float32[np.ndarray, "shape side side"],
    xy: Float64[np.ndarray, "nucleus 2"],
    which: Int64[np.ndarray, " nucleus"],
) -> None:
    """Draw shapes into the image at their centres, with the maximum of overlaps; skip shapes that an edge would cut."""
    side = shapes.shape[1]
    corners = np.floor(xy).astype(np.int64)[:, ::-1] - side // 2
    fits = ((corners >= 0) & (corners + side <= image.shape)).all(axis=1)
    for (row, col), shape in zip(corners[fits].tolist(), which[fits].tolist(), strict=True):
        part = image[row : row + side, col : col + side]
        np.maximum(part, shapes[shape], out=part)
