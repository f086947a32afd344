"""Artefacts drawn over a thumbnail with known tissue: pen marks, borders, dust, halos, coverslips.

Each artefact takes an image at thumbnail scale and its tissue mask, and returns both with the artefact. Pen marks and
borders hide tissue; all others leave the mask unchanged. Light is absorbed as on the synthetic slides.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float64, UInt8
from scipy.ndimage import distance_transform_edt, gaussian_filter

Rgb = UInt8[np.ndarray, "row col 3"]
Mask = Bool[np.ndarray, "row col"]
Artefact = Callable[[np.random.Generator, Rgb, Mask], tuple[Rgb, Mask]]

PENS = {"blue": (1.9, 1.1, 0.25), "green": (1.6, 0.45, 1.3), "black": (2.2, 2.2, 2.1), "red": (0.15, 2.0, 1.6)}
"""Optical density of felt pens in red, green, blue."""


def pen(colour: str) -> Artefact:
    """Return the artefact of two pen strokes, one beside the tissue and one across it."""

    def draw(rng: np.random.Generator, image: Rgb, tissue: Mask) -> tuple[Rgb, Mask]:
        rows, columns = np.indices(tissue.shape, dtype=np.float64)
        height, width = tissue.shape
        wave = 0.03 * height * np.sin(columns / width * 9.0 + rng.uniform(0.0, 6.0))
        half = 0.014 * height
        apart = np.minimum(np.abs(rows - 0.06 * height - wave / 2.0), np.abs(rows - 0.55 * height - wave))
        cover = np.clip(half + 0.5 - apart, 0.0, 1.0)
        density = cover[..., None] * np.array(PENS[colour]) * (1.0 + 0.05 * rng.standard_normal((*tissue.shape, 1)))
        return _through(image, density), tissue & (cover == 0.0)

    return draw


def black_border(_: np.random.Generator, image: Rgb, tissue: Mask) -> tuple[Rgb, Mask]:
    """A scan that is wider than its slide: black on two sides, with a grey edge."""
    image, tissue = image.copy(), tissue.copy()
    depth = image.shape[0] // 12
    image[:, : depth + 1], image[-depth - 1 :] = 120, 120
    image[:, :depth], image[-depth:] = 3, 3
    tissue[:, : depth + 1], tissue[-depth - 1 :] = False, False
    return image, tissue


def dust(rng: np.random.Generator, image: Rgb, tissue: Mask) -> tuple[Rgb, Mask]:
    """Forty grey specks, some sharp and some out of focus, and a hair."""
    density: Float64[np.ndarray, "row col"] = np.zeros(tissue.shape)
    height, width = tissue.shape
    for row, column, spread in zip(
        rng.integers(0, height, 40), rng.integers(0, width, 40), rng.uniform(0.6, 4.0, 40), strict=True
    ):
        speck = np.zeros(tissue.shape)
        speck[row, column] = rng.uniform(2.0, 8.0) * spread
        density += gaussian_filter(speck, spread)
    along = np.arange(width // 3)
    density[(height // 9 + 6.0 * np.sin(along / 25.0)).astype(np.int64), along] += 0.9
    return _through(image, density[..., None] * np.array((1.0, 1.0, 0.95))), tissue


def coverslip(_: np.random.Generator, image: Rgb, tissue: Mask) -> tuple[Rgb, Mask]:
    """The edge of a coverslip, a dark and a bright line, and the glass beyond a little darker."""
    rows, columns = np.indices(tissue.shape, dtype=np.float64)
    beyond = (columns - 0.96 * tissue.shape[1] - 0.01 * rows) / 1.5
    density = 0.03 * (beyond > 0.0) + 0.5 * np.exp(-(beyond**2)) - 0.02 * np.exp(-((beyond - 2.0) ** 2))
    return _through(image, density[..., None] * np.array((0.9, 1.0, 1.0))), tissue


def halo(_: np.random.Generator, image: Rgb, tissue: Mask) -> tuple[Rgb, Mask]:
    """Eosin that ran out of the tissue: pink on the glass around it, fading without an edge."""
    away = distance_transform_edt(~tissue)
    density = 0.14 * np.exp(-away / (0.08 * len(tissue))) * (away > 0.0)
    return _through(image, density[..., None] * np.array((0.1, 1.0, 0.5))), tissue


def uneven_light(_: np.random.Generator, image: Rgb, tissue: Mask) -> tuple[Rgb, Mask]:
    """A lamp that is a quarter darker in one corner, and a bluish glass."""
    rows, columns = (axis / length for axis, length in zip(np.indices(tissue.shape), tissue.shape, strict=True))
    density = 0.28 * (rows * columns)[..., None] + np.array((0.10, 0.11, 0.06))
    return _through(image, density), tissue


ARTEFACTS: dict[str, Artefact] = {
    **{f"{colour} pen": pen(colour) for colour in PENS},
    "black border": black_border,
    "dust": dust,
    "coverslip": coverslip,
    "halo": halo,
    "uneven light": uneven_light,
}


def _through(image: Rgb, density: Float64[np.ndarray, "row col colour"]) -> Rgb:
    """Return an image as seen through this optical density."""
    dimmed: Rgb = np.clip(np.rint(image * np.exp(-density)), 0.0, 255.0).astype(np.uint8)
    return dimmed
