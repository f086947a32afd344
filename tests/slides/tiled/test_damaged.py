"""Single stored tiles that cannot be decoded: they cost the tiles over them, and a white place in the thumbnail."""

import re
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import Float64

from raystp.errors import SlideError
from raystp.slides.open import Slide, open_slide, read_tiles, read_tiles_or_fail
from raystp.slides.tiled.slide import TiledSlide
from raystp.storage import StoragePath
from raystp.units import TilePixels
from tests.slides.tiled.tiled_files import oracle, sample_image, write

WIDTH, HEIGHT = 700, 532


def opened(path: Path) -> TiledSlide:
    slide = open_slide("A1", StoragePath.of(path), given_mpp=0.5)
    assert isinstance(slide, TiledSlide)
    return slide


def with_reader(path: Path, reader: str) -> Slide:
    return opened(path) if reader == "tiled" else oracle(path)


def grid(side: float) -> Float64[np.ndarray, "tile 3"]:
    x, y = np.meshgrid(np.arange(0.0, WIDTH, side), np.arange(0.0, HEIGHT, side))
    return np.stack([x.ravel(), y.ravel(), np.full(x.size, side)], axis=1)


def spoiled(path: Path, tiles: tuple[int, ...], levels: int = 1) -> Path:
    """Write a file of 64-px tiles of which some cannot be decoded; it has one level unless told otherwise."""
    write(path, sample_image(WIDTH, HEIGHT), "ycbcr420", side=64, levels=levels)
    content = bytearray(path.read_bytes())
    with opened(path) as slide:
        level = slide._readers[0].level
    for tile in tiles:
        start, count = int(level.offsets[tile]), int(level.counts[tile])
        content[start : start + count] = b"\xa5" * count
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("reader", ["tiled", "openslide"])
@pytest.mark.parametrize("threads", [1, 4])
def test_a_damaged_stored_tile_costs_only_the_tiles_over_it(tmp_path: Path, threads: int, reader: str) -> None:
    path = spoiled(tmp_path / "a.tiff", (14, 40))  # (192, 64), (448, 192)
    boxes = np.concatenate([grid(64.0), [[190.0, 60.0, 75.5], [600.0, 300.0, 75.5]]])
    with with_reader(path, reader) as slide:
        whole, failed = read_tiles_or_fail(slide, boxes, TilePixels(64), threads=threads)
    over = [
        number
        for number, (x, y, side) in enumerate(boxes.tolist())
        for left, top in ((192, 64), (448, 192))
        if x < left + 64 and y < top + 64 and x + side > left and y + side > top
    ]
    assert list(failed) == over
    assert re.match(r"tile 14 \(x 192\.0, y 64\.0, side 64\.0 px\) of slide 'A1': .*level 0: ", failed[14])
    assert (whole[over] == 255).all()
    good = np.setdiff1d(np.arange(len(boxes)), over)
    with with_reader(spoiled(tmp_path / "b.tiff", ()), reader) as slide:
        np.testing.assert_array_equal(whole[good], read_tiles(slide, boxes[good], TilePixels(64)))


@pytest.mark.parametrize("longest", [700, 90])
def test_the_thumbnail_is_white_where_a_stored_tile_is_damaged(tmp_path: Path, longest: int) -> None:
    with opened(spoiled(tmp_path / "b.tiff", ())) as slide:
        expected = slide.thumbnail(longest)
        assert slide.damaged == []
    with opened(spoiled(tmp_path / "a.tiff", (14,))) as slide:
        image = slide.thumbnail(longest)
        (region,) = slide.damaged
        assert (region.x, region.y, region.width, region.height) == (192, 64, 64, 64)
        assert "x 192, y 64, level 0" in region.reason
        # The white of the thumbnail is not the content of the stored tile.
        with pytest.raises(SlideError, match="x 192, y 64"):
            read_tiles(slide, np.array([[192.0, 64.0, 64.0]]), TilePixels(64))
    scale = longest / 700
    same = (image == expected).all(axis=2)
    rows, columns = np.mgrid[0 : image.shape[0], 0 : image.shape[1]] / scale
    near = (
        (rows > 64 - 2 / scale) & (rows < 128 + 2 / scale) & (columns > 192 - 2 / scale) & (columns < 256 + 2 / scale)
    )
    assert same[~near].all()
    assert (image[round(96 * scale), round(224 * scale)] == 255).all()


def test_a_slide_that_is_mostly_damaged_has_no_thumbnail(tmp_path: Path) -> None:
    with opened(spoiled(tmp_path / "a.tiff", tuple(range(1, 60)))) as slide:
        assert len(slide._readers[0].level.counts) < 120
        with pytest.raises(SlideError, match=r"a\.tiff.*x 64, y 0, level 0"):
            slide.thumbnail(300)


@pytest.mark.parametrize("longest", [700, 350])
def test_openslides_thumbnail_is_white_around_a_damaged_stored_tile(tmp_path: Path, longest: int) -> None:
    with oracle(spoiled(tmp_path / "b.tiff", ())) as slide:
        expected = slide.thumbnail(longest)
    with oracle(spoiled(tmp_path / "a.tiff", (14,))) as slide:
        image = slide.thumbnail(longest)
        assert slide.damaged
        assert all("level 0" in region.reason for region in slide.damaged)
        assert (slide.thumbnail(longest) == image).all()
    differs = np.argwhere((image != expected).any(axis=2)) * 700 / longest
    assert len(differs)
    (top, left), (bottom, right) = differs.min(axis=0), differs.max(axis=0)
    reach = 66 * 700 / longest
    assert 64 - reach <= top <= bottom <= 128 + reach
    assert 192 - reach <= left <= right <= 256 + reach


@pytest.mark.parametrize("reader", ["tiled", "openslide"])
def test_a_slide_whose_first_stored_tile_is_damaged_is_still_read(tmp_path: Path, reader: str) -> None:
    with with_reader(spoiled(tmp_path / "a.tiff", (0,)), reader) as slide:
        _, failed = read_tiles_or_fail(slide, grid(64.0), TilePixels(64))
        assert list(failed) == [0]
        assert slide.thumbnail(300).min() < 255
