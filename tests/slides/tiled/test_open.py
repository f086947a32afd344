"""Which reader a slide gets: its tiles if they are supported exactly, else OpenSlide; `reader` says which."""

import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from jaxtyping import UInt8
from PIL import Image

from raystp.errors import SlideError
from raystp.slides.open import open_slide, read_tiles
from raystp.slides.tiled.buffers import BufferPool
from raystp.storage import StoragePath
from raystp.units import Level0Pixels, TilePixels
from tests.slides.tiled.tiled_files import APERIO, as_rgb, oracle, sample_image, write

Rgb = UInt8[np.ndarray, "row col 3"]

IMAGE = sample_image(300, 200)
BOXES = np.array([[x, y, 64.0] for y in (0.0, 50.0, 130.0) for x in (-20.0, 31.0, 280.0)])


def empty_tile(path: Path, tile: int, image: int = 0) -> None:
    """Remove a stored tile's bytes, as some scanners do."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[image]
        assert isinstance(page, tifffile.TiffPage)
        tag = page.tags["TileByteCounts"]
    form = {3: "<H", 4: "<I"}[int(tag.dtype)]
    with path.open("r+b") as file:
        file.seek(tag.valueoffset + tile * struct.calcsize(form))
        file.write(bytes(struct.calcsize(form)))


def reads_as_openslide(path: Path, reader: str) -> None:
    with open_slide("A1", StoragePath.of(path), given_mpp=0.5) as slide, oracle(path) as truth:
        assert slide.reader == reader
        for side in (64.0, 128.0):
            boxes = BOXES * np.array([1.0, 1.0, side / 64.0])
            expected = read_tiles(truth, boxes, TilePixels(64))
            np.testing.assert_array_equal(read_tiles(slide, boxes, TilePixels(64)), expected)


def written(path: Path, pixels: np.ndarray, **options: Any) -> Path:
    tifffile.imwrite(path, pixels, tile=(64, 64), metadata=None, **options)
    return path


def test_a_ycbcr_jpeg_in_an_rgb_file_is_read_by_openslide(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tiff", IMAGE, photometric="rgb", compression="jpeg")
    as_rgb(path)
    reads_as_openslide(path, "openslide")


@pytest.mark.parametrize("compression", ["jpeg", "lzw"])
def test_grey_tiles_read_as_openslide_reads_them(tmp_path: Path, compression: str) -> None:
    path = written(tmp_path / "a.tiff", IMAGE[..., 0], photometric="minisblack", compression=compression)
    reads_as_openslide(path, "tiled")
    path = written(tmp_path / "b.tiff", IMAGE[..., 0], photometric="miniswhite", compression="deflate")
    reads_as_openslide(path, "tiled")


def test_separate_planes_read_as_openslide_reads_them(tmp_path: Path) -> None:
    planes = np.ascontiguousarray(np.moveaxis(IMAGE, 2, 0))
    path = written(tmp_path / "a.tiff", planes, photometric="rgb", planarconfig="separate", compression="lzw")
    reads_as_openslide(path, "tiled")


def test_palettes_and_alpha_are_read_by_openslide(tmp_path: Path) -> None:
    colormap = np.stack([np.arange(256), np.arange(256)[::-1], np.full(256, 7)]).astype(np.uint16) * 257
    options: dict[str, Any] = {"photometric": "palette", "colormap": colormap, "compression": "lzw"}
    reads_as_openslide(written(tmp_path / "a.tiff", IMAGE[..., 0], **options), "openslide")
    alpha = np.concatenate([IMAGE, IMAGE[..., :1]], axis=2)
    options = {"photometric": "rgb", "extrasamples": ["unassalpha"], "compression": "lzw"}
    reads_as_openslide(written(tmp_path / "b.tiff", alpha, **options), "openslide")


def test_a_file_that_may_be_another_vendors_is_read_by_its_tiles_if_openslide_knows_none(tmp_path: Path) -> None:
    xmp = (700, 1, 5, b"<xmp>", True)
    path = written(tmp_path / "a.tiff", IMAGE, photometric="rgb", compression="jpeg", extratags=[xmp])
    reads_as_openslide(path, "tiled")
    xml = '<?xml version="1.0"?><PerkinElmer-QPI-ImageDescription/>'
    path = written(tmp_path / "b.tiff", IMAGE, photometric="rgb", compression="lzw", description=xml)
    reads_as_openslide(path, "tiled")


def test_an_aperio_file_in_a_codec_that_openslide_does_not_know_is_read_by_its_tiles(tmp_path: Path) -> None:
    options: dict[str, Any] = {"compression": "zstd", "description": APERIO.format(300, 200)}
    path = written(tmp_path / "a.svs", IMAGE, photometric="rgb", **options)
    with open_slide("A1", StoragePath.of(path)) as slide:
        assert (slide.reader, slide.mpp, slide.mpp_from) == ("tiled", 0.499, "slide")
        np.testing.assert_array_equal(read_tiles(slide, BOXES[4:5], TilePixels(64))[0], IMAGE[50:114, 31:95])


def test_an_objective_is_not_a_um_per_px_and_is_named(tmp_path: Path) -> None:
    description = "Aperio Image Library v11.2.1\n300x200 JPEG/RGB|AppMag = 20"
    path = written(tmp_path / "a.svs", IMAGE, photometric="rgb", compression="lzw", description=description)
    with pytest.raises(SlideError, match=r"no um/px of its own, only an objective of 20x"):
        open_slide("A1", StoragePath.of(path))
    with open_slide("A1", StoragePath.of(path), derived_mpp=0.5) as slide:
        assert (slide.mpp_from, slide.own_mpp) == ("spots", None)


def test_black_and_white_tiles_are_read_as_one_image(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tiff", IMAGE[..., 0] > 99, photometric="minisblack")
    with open_slide("A1", StoragePath.of(path), given_mpp=0.5) as slide:
        assert slide.reader == "flat"
        expected = np.where(IMAGE[50:114, 31:95, :1] > 99, 255, 0).repeat(3, axis=2)
        np.testing.assert_array_equal(read_tiles(slide, BOXES[4:5], TilePixels(64))[0], expected)


def test_empty_tiles_of_an_aperio_pyramid_are_read_by_openslide(tmp_path: Path) -> None:
    path = write(tmp_path / "a.svs", IMAGE, "aperio_rgb", side=64)
    empty_tile(path, 6)
    reads_as_openslide(path, "openslide")


@pytest.mark.parametrize("image", [0, 1])
def test_empty_tiles_of_a_plain_tiff_are_white(tmp_path: Path, image: int) -> None:
    path = write(tmp_path / "a.tiff", IMAGE, "ycbcr420", side=64)
    empty_tile(path, 4, image)
    reads_as_openslide(path, "tiled")


def test_images_that_are_not_marked_as_reduced_are_not_levels(tmp_path: Path) -> None:
    path = tmp_path / "a.tiff"
    with tifffile.TiffWriter(path) as tiff:
        for level in (IMAGE, np.ascontiguousarray(255 - IMAGE[::2, ::2])):
            tiff.write(level, tile=(64, 64), photometric="rgb", compression="lzw", metadata=None)
    reads_as_openslide(path, "tiled")


def test_an_associated_image_is_not_a_level(tmp_path: Path) -> None:
    path = tmp_path / "a.svs"
    with tifffile.TiffWriter(path) as tiff:
        common: dict[str, Any] = {"photometric": "rgb", "compression": "jpeg", "metadata": None}
        tiff.write(IMAGE, tile=(64, 64), description=APERIO.format(300, 200), **common)
        tiff.write(255 - IMAGE[::3, ::3], rowsperstrip=16, description="Aperio\nthumbnail", **common)
        tiff.write(IMAGE[::2, ::2], tile=(64, 64), subfiletype=1, description="Aperio", **common)
    reads_as_openslide(path, "tiled")


def test_a_flat_image_has_the_flat_reader(tmp_path: Path) -> None:
    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    with open_slide("A1", StoragePath.of(tmp_path / "a.png"), given_mpp=0.5) as slide:
        assert slide.reader == "flat"


def test_many_threads_may_read_one_slide(tmp_path: Path) -> None:
    with open_slide("A1", StoragePath.of(write(tmp_path / "a.tiff", IMAGE, "ycbcr420", side=64))) as slide:

        def read(box: list[float]) -> Rgb:
            x, y, side = box
            return slide.read(Level0Pixels(x), Level0Pixels(y), Level0Pixels(side), TilePixels(64))

        boxes = np.tile(BOXES, (20, 1))
        boxes[::3, 2] = 70.5
        alone = [read(box) for box in boxes.tolist()]
        with ThreadPoolExecutor(8) as pool:
            for tile, expected in zip(pool.map(read, boxes.tolist()), alone, strict=True):
                np.testing.assert_array_equal(tile, expected)


@pytest.mark.parametrize("side", range(16, 272, 16))
def test_no_row_of_a_buffer_starts_where_the_decoder_writes_past_the_cache(side: int) -> None:
    buffer = BufferPool(limit=1 << 20).take((side, side, 3))
    assert buffer.shape == (side, side, 3)
    assert buffer.flags.c_contiguous
    assert all((buffer.ctypes.data + row * buffer.strides[0]) % 32 for row in range(side))


def test_memory_for_decoded_tiles_is_bounded_and_reused() -> None:
    pool = BufferPool(limit=10 * 48)
    shape = (4, 4, 3)
    for tile in range(50):
        pool.give_back(pool.take(shape), (0, tile))
    assert sum(buffer is not None for buffer in pool.take_cached(0, list(range(50)))) == 10
    last = pool.take(shape)
    pool.give_back(last, None)
    assert pool.take(shape) is last
