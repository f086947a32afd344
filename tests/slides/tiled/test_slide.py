"""Slides read by their tiles: the same pixels as OpenSlide's, each stored tile decoded once for any request."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import Float64, UInt8

from raystp.errors import SlideError
from raystp.slides.open import open_slide, read_tiles
from raystp.slides.tiled.byte_source import LocalSource
from raystp.slides.tiled.decoders.tiles import StoredTile
from raystp.slides.tiled.slide import TiledSlide
from raystp.storage import StoragePath
from raystp.units import Level0Pixels, TilePixels
from tests.slides.tiled.tiled_files import KINDS, oracle, sample_image, write

Rgb = UInt8[np.ndarray, "row col 3"]
Opened = Callable[[str, int], Path]

WIDTH, HEIGHT = 700, 532  # a whole number of fours: each level is exactly half of the one before


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Opened:
    """Write the image as a kind of file with tiles of a side, once."""
    folder = tmp_path_factory.mktemp("tiled")

    def path(kind: str, side: int) -> Path:
        file = folder / f"{kind}-{side}.tiff"
        return file if file.exists() else write(file, sample_image(WIDTH, HEIGHT), kind, side=side)

    return path


def opened(path: Path) -> TiledSlide:
    slide = open_slide("A1", StoragePath.of(path), given_mpp=0.5)
    assert isinstance(slide, TiledSlide)
    return slide


def grid(side: float, offset: float, width: int = WIDTH, height: int = HEIGHT) -> Float64[np.ndarray, "tile 3"]:
    x, y = np.meshgrid(np.arange(offset, width, side), np.arange(offset, height, side))
    return np.stack([x.ravel(), y.ravel(), np.full(x.size, side)], axis=1)


JPEG_SIDES = [("ycbcr420", 256), ("ycbcr422", 240), ("aperio_rgb", 240)]
CROPS = [(64, 64.0, 0.0), (96, 96.0, -50.0), (48, 48.0, 7.0), (200, 200.0, 130.0)]
RESAMPLED = [(64, 80.0, 0.0), (64, 75.3, -3.7), (100, 64.0, 0.5)]
COARSER = [(64, 128.0, 0.0), (32, 128.0, 64.0), (64, 128.0, -64.0)]


@pytest.mark.parametrize(("kind", "side"), [(kind, 64 if kind == "raw" else 80) for kind in KINDS] + JPEG_SIDES)
def test_pixels_are_equal_to_openslides(written: Opened, kind: str, side: int) -> None:
    path = written(kind, side)
    with opened(path) as slide, oracle(path) as truth:
        assert (slide.reader, slide.width, slide.height) == ("tiled", WIDTH, HEIGHT)
        for pixels, length, offset in CROPS + RESAMPLED + COARSER:
            boxes = grid(length, offset)
            expected = read_tiles(truth, boxes, TilePixels(pixels))
            np.testing.assert_array_equal(read_tiles(slide, boxes, TilePixels(pixels)), expected)
        np.testing.assert_array_equal(slide.thumbnail(90), truth.thumbnail(90))


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize(("pixels", "length"), [(64, 64.0), (64, 71.5), (32, 128.0)])
def test_a_batch_equals_single_reads_in_any_order_with_any_threads(
    written: Opened, threads: int, pixels: int, length: float
) -> None:
    boxes = np.random.default_rng(1).permutation(np.concatenate([grid(length, 5.0), grid(length, 20.5)[:9]]))
    boxes = np.concatenate([boxes, boxes[:5]])
    with opened(written("ycbcr420", 64)) as slide:
        tiles = read_tiles(slide, boxes, TilePixels(pixels), threads=threads)
        for tile, (x, y, side) in zip(tiles, boxes.tolist(), strict=True):
            one = slide.read(Level0Pixels(x), Level0Pixels(y), Level0Pixels(side), TilePixels(pixels))
            np.testing.assert_array_equal(tile, one)


def count_decodes(slide: TiledSlide) -> list[int]:
    """Count the tiles that each level decodes from now on."""
    counts = [0] * len(slide._readers)
    for number, reader in enumerate(slide._readers):

        def decode(
            content: StoredTile, pixels: Rgb, number: int = number, own: Callable[..., None] = reader.decode
        ) -> None:
            counts[number] += 1
            own(content, pixels)

        reader.decode = decode
    return counts


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("boxes", [grid(64.0, 0.0), grid(64.0, 30.0), grid(77.7, 0.0)], ids=["on", "off", "finer"])
def test_each_stored_tile_is_decoded_once_a_call(
    written: Opened, threads: int, boxes: Float64[np.ndarray, "tile 3"]
) -> None:
    with opened(written("ycbcr420", 64)) as slide:
        counts = count_decodes(slide)
        read_tiles(slide, np.random.default_rng(0).permutation(boxes), TilePixels(64), threads=threads)
        across, down = -(-WIDTH // 64), -(-HEIGHT // 64)
        assert counts == [across * down, 0, 0]


SCALES = (40.0, 80.0, 160.0, 320.0)
STORED = -(-WIDTH // 64) * -(-HEIGHT // 64)


def concentric(stride: float, sides: tuple[float, ...] = SCALES) -> Float64[np.ndarray, "tile scale 3"]:
    """Return tiles of several sides around each place of a grid."""
    places = grid(stride, stride / 2)[:, :2]
    boxes = [np.column_stack([places - side / 2, np.full(len(places), side)]) for side in sides]
    return np.stack(boxes, axis=1)


def read_in_batches(slide: TiledSlide, boxes: Float64[np.ndarray, "tile scale 3"], places: int) -> list[Rgb]:
    batches = [boxes[start : start + places].reshape(-1, 3) for start in range(0, len(boxes), places)]
    return [tile for batch in batches for tile in read_tiles(slide, batch, TilePixels(40))]


@pytest.mark.parametrize(("places", "order"), [(7, "rows"), (17, "rows"), (40, "rows"), (40, "any")])
def test_several_scales_of_one_level_decode_what_the_largest_alone_would(
    tmp_path: Path, places: int, order: str
) -> None:
    file = write(tmp_path / "flat.tiff", sample_image(WIDTH, HEIGHT), "ycbcr420", side=64, levels=1)
    boxes = concentric(40.0)
    if order == "any":  # spots in the order of their names
        boxes = np.random.default_rng(0).permutation(boxes)
    decoded = {}
    for sides in (SCALES, SCALES[-1:]):
        with opened(file) as slide:
            counts = count_decodes(slide)
            read_in_batches(slide, boxes[:, -len(sides) :], places)
            decoded[sides] = counts[0]
    assert decoded[SCALES] <= 1.05 * decoded[SCALES[-1:]]
    assert decoded[SCALES] <= 1.1 * STORED


def test_several_scales_over_two_levels_decode_each_level_once(written: Opened) -> None:
    with opened(written("ycbcr420", 64)) as slide:
        counts = count_decodes(slide)
        read_in_batches(slide, concentric(40.0, (40.0, 80.0)), 7)
        halved = -(-WIDTH // 128) * -(-HEIGHT // 128)
        assert counts == [STORED, halved, 0]


def test_tiles_of_several_scales_are_those_of_each_scale_alone(written: Opened) -> None:
    boxes = concentric(40.0)
    with opened(written("ycbcr420", 64)) as slide:
        together = np.stack(read_in_batches(slide, boxes, 7)).reshape(*boxes.shape[:2], 40, 40, 3)
    for scale in range(len(SCALES)):
        with opened(written("ycbcr420", 64)) as slide:
            alone = np.stack(read_in_batches(slide, boxes[:, scale : scale + 1], 64))
        np.testing.assert_array_equal(together[:, scale], alone)


def test_batches_in_the_files_order_decode_few_tiles_twice(written: Opened) -> None:
    with opened(written("ycbcr420", 64)) as slide:
        counts = count_decodes(slide)
        boxes = grid(64.0, 30.0)
        for start in range(0, len(boxes), 8):
            read_tiles(slide, boxes[start : start + 8], TilePixels(64))
        assert counts[0] <= 1.1 * -(-WIDTH // 64) * -(-HEIGHT // 64)


def test_a_batch_that_does_not_fit_in_memory_is_read_in_parts(written: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = grid(77.7, 0.0)
    with opened(written("ycbcr420", 64)) as slide:
        whole = read_tiles(slide, boxes, TilePixels(64), threads=2)
        monkeypatch.setattr("raystp.slides.tiled.slide.REGION_BYTES", 100_000)
        np.testing.assert_array_equal(read_tiles(slide, boxes, TilePixels(64), threads=2), whole)


def test_tiles_are_written_into_the_given_memory(written: Opened) -> None:
    boxes = grid(64.0, 30.0)
    with opened(written("ycbcr420", 64)) as slide:
        into = np.empty((len(boxes), 64, 64, 3), np.uint8)
        assert read_tiles(slide, boxes, TilePixels(64), into=into) is into
        np.testing.assert_array_equal(into, read_tiles(slide, boxes, TilePixels(64)))
        with pytest.raises(SlideError, match="do not fit an array"):
            read_tiles(slide, boxes[1:], TilePixels(64), into=into)


@pytest.mark.parametrize("threads", [1, 4])
def test_the_first_tile_that_cannot_be_read_is_named(written: Opened, tmp_path: Path, threads: int) -> None:
    path = tmp_path / "a.tiff"
    content = bytearray(written("ycbcr420", 64).read_bytes())
    with opened(written("ycbcr420", 64)) as slide:
        level = slide._readers[0].level
    for tile in (14, 40, 41):  # (192, 64), (448, 192), (512, 192)
        start = int(level.offsets[tile])
        content[start : start + int(level.counts[tile])] = b"\xa5" * int(level.counts[tile])
    path.write_bytes(content)
    boxes = np.array([[0.0, 0.0, 64.0], [500.0, 200.0, 64.0], [200.0, 70.0, 64.0], [0.0, 0.0, -1.0]])
    message = r"tile 1 \(x 500\.0, y 200\.0, side 64\.0 px\) of slide 'A1': .*a\.tiff.* at x 448, y 192, level 0: "
    with opened(path) as slide:
        with pytest.raises(SlideError, match=message):
            read_tiles(slide, boxes, TilePixels(64), threads=threads)
        with pytest.raises(SlideError, match=r"tile 0 \(x 0\.0, y 0\.0, side -1\.0 px\).*not a tile that can be read"):
            read_tiles(slide, boxes[::-1], TilePixels(64), threads=threads)
        assert read_tiles(slide, boxes[:1], TilePixels(64)).std() > 0


def test_a_file_that_is_replaced_while_it_is_read_is_an_error(written: Opened, tmp_path: Path) -> None:
    path = tmp_path / "a.tiff"
    path.write_bytes(written("ycbcr420", 64).read_bytes())
    with opened(path) as slide:
        read_tiles(slide, grid(64.0, 0.0)[:3], TilePixels(64))
        other = tmp_path / "b.tiff"
        other.write_bytes(written("ycbcr422", 64).read_bytes())
        other.rename(path)
        with pytest.raises(SlideError, match=r"a\.tiff\) was replaced while it was read"):
            read_tiles(slide, grid(64.0, 0.0)[40:50], TilePixels(64))


@pytest.mark.parametrize("offsets", [[0, 100, 200, 300], [300, 0, 200, 100], [0, 50, 9000, 20], [400], []])
def test_a_file_gives_each_range_in_any_order(tmp_path: Path, offsets: list[int]) -> None:
    content = np.random.default_rng(0).bytes(10_000)
    (tmp_path / "a.bin").write_bytes(content)
    source = LocalSource("a.bin", tmp_path / "a.bin")
    counts = [100, 99, 100, 7][: len(offsets)]
    expected = [content[offset : offset + count] for offset, count in zip(offsets, counts, strict=True)]
    assert [bytes(found) for found in source.fetch(offsets, counts)] == expected
    with pytest.raises(SlideError, match=r"returned .* of the .* bytes at .*cut off"):
        source.fetch([*offsets, 9950], [*counts, 100])
    source.close()


def test_a_file_that_is_cut_off_while_it_is_read_is_an_error(written: Opened, tmp_path: Path) -> None:
    path = tmp_path / "a.tiff"
    path.write_bytes(written("ycbcr420", 64).read_bytes())
    with opened(path) as slide:
        with path.open("r+b") as file:
            file.truncate(2000)
        with pytest.raises(SlideError, match=r"cut off|replaced"):
            read_tiles(slide, grid(64.0, 0.0), TilePixels(64))


def test_a_real_slide_reads_as_openslide_reads_it(wsi: Path) -> None:
    path = wsi / "CMU-1-Small-Region.svs"
    with open_slide("A1", StoragePath.of(path)) as slide, oracle(path) as truth:
        assert (slide.reader, slide.mpp, slide.mpp_from) == ("tiled", 0.499, "slide")
        for pixels, length, offset in [(256, 256.0, 0.0), (240, 240.0, 0.0), (224, 224.0, -13.0), (256, 301.3, 2.2)]:
            boxes = grid(length, offset, slide.width, slide.height)
            expected = read_tiles(truth, boxes, TilePixels(pixels))
            np.testing.assert_array_equal(read_tiles(slide, boxes, TilePixels(pixels), threads=2), expected)
        np.testing.assert_array_equal(slide.thumbnail(300), truth.thumbnail(300))


@pytest.mark.parametrize("file", ["small.svs", "boxes.tiff"])
def test_small_real_files_read_as_openslide_reads_them(wsi: Path, file: str) -> None:
    with open_slide("A1", StoragePath.of(wsi / file), given_mpp=0.5) as slide, oracle(wsi / file) as truth:
        assert slide.reader == "tiled"
        boxes = grid(16.0, -8.0, slide.width, slide.height)
        expected = read_tiles(truth, boxes, TilePixels(16))
        np.testing.assert_array_equal(read_tiles(slide, boxes, TilePixels(16)), expected)
