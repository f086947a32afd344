import logging
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from jaxtyping import UInt8

from raystp.errors import SlideError
from raystp.slides.open import open_slide
from raystp.storage import StoragePath
from raystp.units import Level0Pixels, TilePixels

Rgb = UInt8[np.ndarray, "row col 3"]


@pytest.fixture
def slide_file(pyramid: Callable[..., Path], tmp_path: Path, numbers: Rgb) -> Path:
    return pyramid(tmp_path / "a.tiff", numbers)


def refused(path: Path, reason: str) -> None:
    with pytest.raises(SlideError, match=rf"slide 'A1' .*a\.tiff.*{reason}"):
        open_slide("A1", StoragePath.of(path))


def overwrite(path: Path, tag: str, value: int) -> None:
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tiff.pages.first.tags[tag].overwrite(value)


def test_tiles_of_an_impossible_side_are_refused_before_openslide_aborts(slide_file: Path) -> None:
    overwrite(slide_file, "TileWidth", 65_520)
    refused(slide_file, "has tiles of 65520 x 64 px")


def test_a_size_that_its_tiles_cannot_cover_is_refused(slide_file: Path) -> None:
    overwrite(slide_file, "ImageWidth", 65_535)
    refused(slide_file, "65535 x 300 px in 40 tiles, not 5120")


def test_a_file_that_was_cut_off_is_refused(slide_file: Path) -> None:
    slide_file.write_bytes(slide_file.read_bytes()[:-100])
    refused(slide_file, "cut off")


def test_a_tile_beyond_the_files_end_is_refused(slide_file: Path) -> None:
    with tifffile.TiffFile(slide_file) as tiff:
        tag = tiff.pages.first.tags["TileOffsets"]
    content = bytearray(slide_file.read_bytes())
    content[tag.valueoffset : tag.valueoffset + 4] = struct.pack("<I", 2**31)
    slide_file.write_bytes(content)
    refused(slide_file, "cut off")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("TileOffsets", "has an offset or a byte count of -30, which is below 0"),
        ("TileByteCounts", "has an offset or a byte count of -30, which is below 0"),
        ("ImageWidth", "is -30 x 300 px, allowed is 1 or more"),
        ("ImageLength", "is 500 x -30 px, allowed is 1 or more"),
    ],
)
def test_a_number_below_0_is_refused(slide_file: Path, name: str, message: str) -> None:
    with tifffile.TiffFile(slide_file) as tiff:
        tag = tiff.pages.first.tags[name]
    content = bytearray(slide_file.read_bytes())
    content[tag.offset + 2 : tag.offset + 4] = struct.pack("<H", tifffile.DATATYPE.SLONG)
    where = tag.offset + 8 if tag.count == 1 else tag.valueoffset  # a single number stands in the tag
    content[where : where + 4] = struct.pack("<i", -30)
    slide_file.write_bytes(content)
    refused(slide_file, message)


@pytest.mark.parametrize("content", [b"", b"II*\x00", b"II*\x00\xff\xff\xff\x7f", b"II*\x00\x08\x00\x00\x00\xff\xff"])
def test_a_header_without_a_directory_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tiff").write_bytes(content)
    refused(tmp_path / "a.tiff", "")


def test_a_file_that_ends_before_its_directories_was_cut_off(
    slide_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "tifffile")
    content = slide_file.read_bytes()
    slide_file.write_bytes(content[:4] + struct.pack("<I", len(content)) + content[8:])  # scanners write them last
    refused(slide_file, "begins as a TIFF, and has no image where its header says: it was cut off")


@pytest.mark.parametrize("tiled", [True, False])
def test_headers_damaged_at_random_give_a_slide_or_an_error(slide_file: Path, numbers: Rgb, *, tiled: bool) -> None:
    rng = np.random.default_rng(0)
    if not tiled:
        tifffile.imwrite(slide_file, numbers, photometric="rgb", compression="adobe_deflate", rowsperstrip=32)
    good = slide_file.read_bytes()
    with tifffile.TiffFile(slide_file) as tiff:
        offsets = [tag.offset for page in tiff.pages if isinstance(page, tifffile.TiffPage) for tag in page.tags]
    for _ in range(50):
        content = bytearray(good)
        content[int(rng.choice(offsets)) + int(rng.integers(0, 12))] = int(rng.integers(0, 256))
        slide_file.write_bytes(content)
        try:
            with open_slide("A1", StoragePath.of(slide_file), given_mpp=0.5) as slide:
                assert slide.thumbnail(32).shape[1] <= 32
                slide.read(Level0Pixels(0.0), Level0Pixels(0.0), Level0Pixels(64.0), TilePixels(64))
        except SlideError as error:
            assert "slide 'A1'" in str(error)  # noqa: PT017 -- either outcome is right
