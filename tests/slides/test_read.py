from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import Float64, UInt8
from PIL import Image

from raystp.errors import SlideError
from raystp.slides.open import Slide, open_slide, read_around, read_tiles
from raystp.storage import StoragePath
from raystp.units import Level0Pixels, Microns, TilePixels

Rgb = UInt8[np.ndarray, "row col 3"]
TileBox = tuple[float, float, float]
Write = Callable[[str, Rgb], Path]


def opened(path: Path, mpp: float = 0.5) -> Slide:
    return open_slide("A1", StoragePath.of(path), given_mpp=mpp)


def read(slide: Slide, box: TileBox, pixels: int) -> Rgb:
    x, y, side = box
    return slide.read(Level0Pixels(x), Level0Pixels(y), Level0Pixels(side), TilePixels(pixels))


def on_slope(box: TileBox, pixels: int) -> Float64[np.ndarray, "pixel pixel 3"]:
    """The slope's own values at the centres of a tile's pixels: a symmetric filter does not change a slope."""
    x, y, side = box
    step = (np.arange(pixels) + 0.5) * side / pixels - 0.5
    column, row = np.meshgrid(x + step, y + step)
    return np.stack([column / 2.5, row / 2.0, 250 - column / 4 - row / 4], axis=2)


@pytest.mark.parametrize("corner", [(0, 0), (300, 17), (436, 236), (63, 65)])
def test_tile_reads_back_its_own_pixels_with_x_along_the_columns(
    written: Write, numbers: Rgb, corner: tuple[int, int]
) -> None:
    x, y = corner
    with opened(written("numbers", numbers)) as slide:
        assert (slide.width, slide.height) == (500, 300)
        tile = read(slide, (float(x), float(y), 64.0), 64)
    np.testing.assert_array_equal(tile, numbers[y : y + 64, x : x + 64])
    assert tile[0, 0].tolist() == [x % 256, y % 256, (x // 256) * 16 + y // 256]


@pytest.mark.parametrize(
    ("box", "pixels"),
    [
        ((40.0, 30.0, 96.0), 64),  # 1.5 level-0 px per px
        ((40.25, 30.75, 64.0), 64),  # between the pixels
        ((33.3, 41.7, 256.0), 64),  # a whole level of the pyramid, off its grid
        ((20.0, 20.0, 333.0), 37),  # 9 level-0 px per px
        ((100.5, 80.25, 40.0), 100),  # enlarged
    ],
)
def test_resampled_tile_has_the_values_at_its_pixels(written: Write, slope: Rgb, box: TileBox, pixels: int) -> None:
    with opened(written("slope", slope)) as slide:
        tile = read(slide, box, pixels)
    assert np.abs(tile - on_slope(box, pixels)).max() <= 2.0


def test_levels_with_a_fractional_factor_are_not_shifted(written: Write, slope: Rgb) -> None:
    with opened(written("odd", slope[:383, :509])) as slide:
        for box in ((300.3, 200.7, 160.0), (7.1, 9.2, 330.0)):
            assert np.abs(read(slide, box, 40) - on_slope(box, 40)).max() <= 2.0


def test_outside_the_slide_is_white(written: Write, numbers: Rgb) -> None:
    with opened(written("numbers", numbers)) as slide:
        tile = read(slide, (-10.0, 280.0, 64.0), 64)
        np.testing.assert_array_equal(tile[:20, 10:], numbers[280:, :54])
        assert (tile[:, :10] == 255).all()
        assert (tile[20:] == 255).all()
        for x, y in ((-64.0, 0.0), (500.0, 0.0), (0.0, 300.0), (0.0, -64.0), (1e18, -1e18)):
            assert (read(slide, (x, y, 64.0), 64) == 255).all()
            assert (read(slide, (x, y, 63.5), 16) == 255).all()


def test_neighbouring_resampled_tiles_agree_with_one_larger_tile(written: Write, slope: Rgb) -> None:
    with opened(written("slope", slope)) as slide:
        whole = read(slide, (50.0, 60.0, 192.0), 128)
        parts = [[read(slide, (50.0 + x, 60.0 + y, 96.0), 64) for x in (0.0, 96.0)] for y in (0.0, 96.0)]
    np.testing.assert_array_equal(np.concatenate([np.concatenate(row, axis=1) for row in parts]), whole)


def test_thumbnail_shows_the_whole_slide_and_never_enlarges(written: Write, slope: Rgb) -> None:
    with opened(written("slope", slope)) as slide:
        small, large = slide.thumbnail(64), slide.thumbnail(10_000)
    assert small.shape == (48, 64, 3)
    inner = small[2:-2, 2:-2].astype(float)
    column, row = np.meshgrid((np.arange(2, 62) + 0.5) * 8 - 0.5, (np.arange(2, 46) + 0.5) * 8 - 0.5)
    assert np.abs(inner[..., 0] - column / 2.5).max() <= 2.0
    assert np.abs(inner[..., 1] - row / 2.0).max() <= 2.0
    np.testing.assert_array_equal(large, slope)


@pytest.mark.parametrize("threads", [1, 4])
def test_tiles_come_in_the_order_given_for_any_number_of_threads(written: Write, numbers: Rgb, threads: int) -> None:
    boxes = np.array([[400.0, 3.0, 32.0], [0.0, 0.0, 32.0], [7.0, 250.0, 32.0], [90.5, 20.5, 50.0]] * 8)
    with opened(written("numbers", numbers)) as slide:
        tiles = read_tiles(slide, boxes, TilePixels(32), threads=threads)
        each = np.stack([read(slide, (x, y, side), 32) for x, y, side in boxes.tolist()])
        assert read_tiles(slide, np.zeros((0, 3)), TilePixels(32), threads=threads).shape == (0, 32, 32, 3)
    np.testing.assert_array_equal(tiles, each)
    np.testing.assert_array_equal(tiles[0], numbers[3:35, 400:432])


@pytest.mark.parametrize("threads", [1, 3])
def test_a_tile_that_cannot_be_read_is_named(wsi: Path, threads: int) -> None:
    boxes = np.array([[2.0, 3.0, 8.0], [4.0, 4.0, 8.0]])
    message = r"tile 0 \(x 2\.0, y 3\.0, side 8\.0 px\) of slide 'A1': .*unreadable\.svs.*OpenSlide reports"
    with opened(wsi / "unreadable.svs") as slide, pytest.raises(SlideError, match=message):
        read_tiles(slide, boxes, TilePixels(8), threads=threads)


@pytest.mark.parametrize("bad", [(np.nan, 0.0, 8.0), (0.0, np.inf, 8.0), (0.0, 0.0, 0.0), (0.0, 0.0, -1.0)])
def test_an_invalid_box_is_refused(written: Write, numbers: Rgb, bad: TileBox) -> None:
    with opened(written("numbers", numbers)) as slide, pytest.raises(SlideError, match="not a tile that can be read"):
        read_tiles(slide, np.array([bad]), TilePixels(8))


def test_a_read_that_would_fill_the_memory_is_refused(written: Write, numbers: Rgb) -> None:
    with opened(written("numbers", numbers)) as slide, pytest.raises(SlideError, match="use a smaller tile"):
        read(slide, (-1e6, -1e6, 2e6), 8)


def test_a_closed_slide_raises(written: Write, numbers: Rgb) -> None:
    with opened(written("numbers", numbers)) as slide:
        pass
    with pytest.raises(SlideError, match="is closed"):
        read(slide, (0.0, 0.0, 8.0), 8)


def test_a_box_in_microns_covers_the_same_tissue_at_any_resolution(written: Write) -> None:
    # A disc of 60 um across, around (80, 70) um, on two scans of one tissue.
    for mpp in (0.25, 0.5):
        row, column = np.mgrid[0 : round(140 / mpp), 0 : round(160 / mpp)]
        disc = np.hypot((column + 0.5) * mpp - 80, (row + 0.5) * mpp - 70) < 30
        image = np.where(disc[..., None], 0, 255).astype(np.uint8).repeat(3, axis=2)
        with opened(written(f"disc-{mpp}", image), mpp) as slide:
            centre = Level0Pixels(80 / mpp), Level0Pixels(70 / mpp)
            for pixels in (100, 200, 400):  # 1.0, 0.5 and 0.25 um/px
                tile = read_around(slide, *centre, tile_um=Microns(100.0), tile_px=TilePixels(pixels))
                dark = 1.0 - tile[..., 0] / 255.0
                assert dark.sum() * (100 / pixels) ** 2 == pytest.approx(np.pi * 30**2, rel=0.01)
                middle = (np.arange(pixels) + 0.5) @ dark.sum(axis=0) / dark.sum()
                assert middle == pytest.approx(pixels / 2, abs=0.02 * pixels)


def test_a_scan_within_one_percent_is_read_without_resampling(written: Write, numbers: Rgb) -> None:
    with opened(written("numbers", numbers), 0.499) as slide:
        tile = read_around(
            slide, Level0Pixels(100.0), Level0Pixels(90.4), tile_um=Microns(32.0), tile_px=TilePixels(64)
        )
    np.testing.assert_array_equal(tile, numbers[58:122, 68:132])


def test_both_readers_give_the_same_tiles(pyramid: Callable[..., Path], tmp_path: Path, numbers: Rgb) -> None:
    Image.fromarray(numbers).save(tmp_path / "n.png")
    boxes = np.array([[0.0, 0.0, 64.0], [436.0, 236.0, 64.0], [480.0, -20.0, 64.0], [10.3, 20.7, 90.0]])
    tiles = []
    for path in (tmp_path / "n.png", pyramid(tmp_path / "n.tiff", numbers)):
        with opened(path) as slide:
            tiles.append(read_tiles(slide, boxes, TilePixels(64)))
    np.testing.assert_array_equal(tiles[0], tiles[1])
