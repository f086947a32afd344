"""Resampling is one stated filter, and a tile of any level is that filter of the level's own pixels."""

from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import tifffile
from jaxtyping import Float64
from PIL import Image

from raystp.slides.open import open_slide, read_tiles
from raystp.slides.readers.resample import (
    FILTER,
    LEAST_SIDE,
    WHITE,
    Box,
    resample,
    resample_into,
    resample_with_pillow,
    wide_window,
)
from raystp.slides.readers.triangle import load_filter
from raystp.slides.tiled.slide import TiledSlide
from raystp.storage import StoragePath
from raystp.units import TilePixels
from tests.slides.tiled.tiled_files import CODECS, sample_image


def triangle(length: int, low: float, high: float, pixels: int) -> Float64[np.ndarray, "pixel source"]:
    """Weights of source pixels in each output pixel: a triangle of one step to either side, a step being at least 1."""
    step = (high - low) / pixels
    centres = low + (np.arange(pixels) + 0.5) * step
    distance = np.abs(np.arange(length) + 0.5 - centres[:, None]) / max(step, 1.0)
    weights = np.clip(1.0 - distance, 0.0, None)
    normal: Float64[np.ndarray, "pixel source"] = weights / weights.sum(axis=1, keepdims=True)
    return normal


@pytest.mark.parametrize(
    ("box", "columns", "rows"),
    [
        (Box(10.0, 12.0, 74.0, 44.0), 32, 16),
        (Box(3.3, 4.7, 67.1, 33.2), 20, 11),
        (Box(8.5, 9.25, 28.5, 29.25), 20, 20),
        (Box(20.0, 20.0, 30.0, 30.0), 35, 35),
    ],
)
def test_resampling_is_a_triangle_filter_within_rounding(box: Box, columns: int, rows: int) -> None:
    source = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    across = triangle(90, box.left, box.right, columns)
    down = triangle(60, box.top, box.bottom, rows)
    expected = np.einsum("ph,hwc,qw->pqc", down, source.astype(float), across)
    # Rounded to whole values after the rows and again after the columns: twice a half, and the last bits of a float.
    assert np.abs(resample(source, box, columns, rows) - expected).max() <= 1.0 + 1e-9


def test_the_kernel_gives_pillows_bytes() -> None:
    rng, kernel = np.random.default_rng(0), load_filter()
    for number in range(200):
        width, height = rng.integers(LEAST_SIDE, 200, 2).tolist()
        columns, rows = int(rng.integers(LEAST_SIDE, 150)), int(rng.integers(1, 150))
        if number % 4 == 0:
            columns, rows = width, height  # one source pixel for each, at a shifted place
        source = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        if number % 3 == 0:
            source = np.where(source > 127, 255, 0).astype(np.uint8)
        across, down = rng.uniform(0.5, width), rng.uniform(0.5, height)
        left, top = rng.uniform(0, width - across), rng.uniform(0, height - down)
        image = np.zeros((rows, columns + 2, 3), np.uint8)[:, 1:-1]
        kernel(source, (left, top, left + across, top + down), image)
        expected = resample_with_pillow(source, Box(left, top, left + across, top + down), columns, rows)
        np.testing.assert_array_equal(image, expected)


def test_the_kernel_keeps_its_own_memory_until_it_is_done() -> None:
    # Freed memory of more than 32 MB goes back to the system at once: an access would end the process.
    source = np.random.default_rng(0).integers(0, 256, (6000, 900, 3), dtype=np.uint8)
    image = np.empty((600, 2100, 3), np.uint8)
    edges = (0.3, 0.2, 899.1, 5999.5)
    load_filter()(source, edges, image)
    np.testing.assert_array_equal(image, resample_with_pillow(source, Box(*edges), 2100, 600))


@pytest.mark.parametrize("side", [9, 15, 16, 17, 40])
def test_images_of_any_size_and_memory_are_resampled(side: int) -> None:
    FILTER.load()  # otherwise Pillow resamples all of them
    source = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    box = Box(20.3, 15.7, 62.1, 57.5)
    strided, turned = np.zeros((side, side, 5), np.uint8)[..., 1:4], np.zeros((3, side, side), np.uint8).T
    for image in (strided, turned, np.zeros((side, side, 3), np.uint8)):
        resample_into(image, source, box)
        np.testing.assert_array_equal(image, resample_with_pillow(source, box, side, side))


def test_the_window_has_all_pixels_that_a_box_needs() -> None:
    source = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    box = Box(20.3, 15.7, 62.1, 40.2)
    region = wide_window(box, 16, 12)
    part = source[region.top : region.top + region.height, region.left : region.left + region.width]
    np.testing.assert_array_equal(
        resample(part, box.moved(-float(region.left), -float(region.top)), 16, 12), resample(source, box, 16, 12)
    )


def test_a_whole_box_of_the_outputs_size_is_a_copy() -> None:
    source = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    np.testing.assert_array_equal(resample(source, Box(3.0, 4.0, 11.0, 9.0), 8, 5), source[4:9, 3:11])


ODD_SIZES = [(700, 532), (283, 217), (105, 80), (31, 23)]  # factors 2.46, 6.66 and 22.9, and not the same on both axes
MARGIN = 64


def write_odd(path: Path, codec: dict[str, Any]) -> Path:
    """Write a pyramid whose levels have fractional factors."""
    finest = Image.fromarray(sample_image(*ODD_SIZES[0]))
    with tifffile.TiffWriter(path) as tiff:
        for number, size in enumerate(ODD_SIZES):
            level = np.asarray(finest.resize(size, Image.Resampling.BOX))
            more: dict[str, Any] = {"subfiletype": 1 if number else 0, "metadata": None, **codec}
            tiff.write(level, tile=(64, 64), photometric="rgb", **more)
    return path


@pytest.mark.parametrize("kind", ["deflate", "ycbcr420"])
@pytest.mark.parametrize("case", [(64, 197.3, 1), (48, 400.0, 2), (37, 253.0, 2), (16, 480.0, 3)])
def test_tiles_of_levels_with_fractional_factors_are_the_filter_of_the_level(
    tmp_path: Path, kind: str, case: tuple[int, float, int]
) -> None:
    # The reference: the level as OpenSlide decodes it whole, white around it, under the exact triangle filter, in
    # floats, at the box's coordinates over the level's mean factor.
    pixels, side, level = case
    path = write_odd(tmp_path / "a.tiff", CODECS[kind])
    with openslide.OpenSlide(path) as handle:
        source = np.asarray(handle.read_region((0, 0), level, handle.level_dimensions[level]))[..., :3]
        factor = handle.level_downsamples[level]
    padded = np.pad(source.astype(float), ((MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)), constant_values=WHITE)
    boxes = np.array([[x, y, side] for x in (-31.3, 0.0, 177.7, 500.0) for y in (-20.0, 91.9, 250.5)])
    with open_slide("A1", StoragePath.of(path), given_mpp=0.5) as slide:
        assert isinstance(slide, TiledSlide)
        tiles = read_tiles(slide, boxes, TilePixels(pixels), threads=2)
    for tile, (x, y, _) in zip(tiles, boxes.tolist(), strict=True):
        left, top, extent = x / factor + MARGIN, y / factor + MARGIN, side / factor
        across = triangle(padded.shape[1], left, left + extent, pixels)
        down = triangle(padded.shape[0], top, top + extent, pixels)
        expected = np.einsum("ph,hwc,qw->pqc", down, padded, across, optimize=True)
        assert np.abs(tile - expected).max() <= 2.0
