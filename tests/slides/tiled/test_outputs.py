"""Outputs are the same with kernels as without, and for many tiles at once as for each alone."""

from pathlib import Path

import numpy as np
import pytest
from jaxtyping import UInt8

from raystp.errors import SlideError
from raystp.slides.open import open_slide, read_tiles
from raystp.slides.readers.kernels import LateKernel
from raystp.slides.readers.resample import FILTER, square_box
from raystp.slides.tiled.buffers import RegionBuffers
from raystp.slides.tiled.outputs.copies import COPY_KERNEL, Copier
from raystp.slides.tiled.outputs.regions import SlideLevels, SourceRegion
from raystp.slides.tiled.read_plan import ReadPlan
from raystp.storage import StoragePath
from raystp.units import TilePixels
from tests.slides.tiled.tiled_files import oracle, sample_image, write

STORED = 80


def plan(targets: int, side: int) -> ReadPlan:
    """Return rectangles of all sizes from 1 px up, some of them as wide as the stored tile."""
    rng = np.random.default_rng(0)
    rects = []
    for number in range(200):
        height, width = rng.integers(1, min(side, STORED) + 1, 2).tolist()
        top, left = (int(rng.integers(0, side - length + 1)) for length in (height, width))
        row, column = (int(rng.integers(0, STORED - length + 1)) for length in (height, width))
        rect = (number % targets, top, top + height, left, left + width, row, row + height, column, column + width)
        rects.append(rect)
    return ReadPlan([0], [0, len(rects)], np.array(rects, np.int64), is_whole=[False], needed_again=[False])


@pytest.mark.parametrize("past_cache", [True, False])
@pytest.mark.parametrize("side", [64, 90])
def test_the_kernel_copies_what_numpy_copies(side: int, *, past_cache: bool) -> None:
    rng = np.random.default_rng(1)
    stored = rng.integers(0, 256, (STORED, STORED, 3), dtype=np.uint8)
    COPY_KERNEL.load()
    tiles: UInt8[np.ndarray, "tile row col 3"] = np.zeros((4, side, side, 3), np.uint8)
    expected = np.zeros((4, 3, side, side), np.uint8).transpose(0, 2, 3, 1)  # memory that only numpy copies to
    elsewhere = [np.zeros((side, side, 3), np.uint8) for _ in range(2)]
    for target, memory in ((tiles, elsewhere[0]), (expected, elsewhere[1])):
        copier = Copier(target, plan(4, side), past_cache=past_cache)
        copier.set_target(2, memory)
        copier.copy(3, 197, stored)
    np.testing.assert_array_equal(tiles, expected)
    np.testing.assert_array_equal(elsewhere[0], elsewhere[1])
    assert not tiles[2].any()
    assert elsewhere[0].any()


@pytest.mark.parametrize("kind", ["ycbcr420", "aperio_rgb"])
def test_tiles_read_with_kernels_are_openslides(tmp_path: Path, kind: str) -> None:
    COPY_KERNEL.load()
    FILTER.load()
    path = write(tmp_path / "a.tiff", sample_image(400, 300), kind, side=80)
    with open_slide("A1", StoragePath.of(path), given_mpp=0.5) as slide, oracle(path) as truth:
        for pixels, side, offset in ((64, 64.0, -20.0), (64, 75.3, -20.0), (48, 100.7, 3.2)):
            x, y = np.meshgrid(np.arange(offset, 400, side), np.arange(offset, 300, side))
            boxes = np.stack([x.ravel(), y.ravel(), np.full(x.size, side)], axis=1)
            tiles = read_tiles(slide, boxes, TilePixels(pixels), threads=2)
            np.testing.assert_array_equal(tiles, read_tiles(truth, boxes, TilePixels(pixels)))


def test_regions_of_many_boxes_are_those_of_each() -> None:
    rng = np.random.default_rng(0)
    levels = SlideLevels("slide 'A1'", 5000, 4000, [1.0, 4.0, 16.0003])
    boxes = np.stack([*rng.uniform(-500, 5500, (2, 300)), rng.uniform(1, 9000, 300)], axis=1)
    boxes[::3] = np.round(boxes[::3] / 64) * 64
    boxes[1::10, 2], boxes[2::10, 2] = 64.0, 256.0
    boxes[:9] = [
        *([[np.nan, 0, 64], [0, np.inf, 64], [0, 0, np.nan], [0, 0, 0], [0, 0, -3]]),
        *([[1e300, 0, 64], [-1e300, 0, 64], [0, 0, 1e300], [0, 0, 64]]),
    ]
    for tile_px in (64, 100):
        regions, faults = levels.source_regions(boxes, tile_px)
        assert sorted([*regions, *faults]) == list(range(len(boxes)))
        for tile, (x, y, side) in enumerate(boxes.tolist()):
            found = faults[tile] if tile in faults else regions[tile]
            assert found == region_or_reason(levels, (x, y), side, tile_px)


def region_or_reason(
    levels: SlideLevels, corner: tuple[float, float], side: float, tile_px: int
) -> SourceRegion | str | None:
    try:
        return levels.source_region(square_box(levels.where, corner, side, tile_px), tile_px, tile_px)
    except SlideError as error:
        return str(error)


def test_memory_of_regions_is_used_again_up_to_a_limit() -> None:
    buffers = RegionBuffers(limit=100_000)
    first = buffers.take(100, 100)
    address = first.ctypes.data
    buffers.give_back(first)
    again, other = buffers.take(101, 101), buffers.take(101, 101)
    assert (again.shape, again.ctypes.data) == ((101, 101, 3), address)
    assert not np.shares_memory(again, other)
    for large in [buffers.take(200, 200) for _ in range(3)]:
        buffers.give_back(large)
    assert buffers.take(200, 200).ctypes.data != address


def test_a_kernel_is_loaded_after_some_uses() -> None:
    kernel = LateKernel(lambda: "kernel", after=5)
    assert [kernel.use(2), kernel.use(3), kernel.use(1), kernel.use(1)] == [None, None, "kernel", "kernel"]
    assert LateKernel(lambda: "kernel", after=5).load() == "kernel"
