"""Altered copies of a slide: each reads as in OpenSlide, or fails with one message that names it; none crashes."""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tifffile
from jaxtyping import Float64, UInt8

from raystp.errors import SlideError
from raystp.slides.open import open_slide, read_tiles
from raystp.storage import StoragePath
from raystp.units import TilePixels
from tests.slides.object_path import as_object
from tests.slides.tiled.tiled_files import oracle, sample_image, write

Rgb = UInt8[np.ndarray, "row col 3"]

TILE = 7
"""The stored tile that is altered."""


@dataclass
class Copy:
    """A slide's content, and its first image's directory."""

    content: bytearray
    page: tifffile.TiffPage

    def tile(self) -> tuple[int, int]:
        return self.page.dataoffsets[TILE], self.page.databytecounts[TILE]

    def set_tag(self, name: str, value: int, index: int = 0) -> None:
        tag = self.page.tags[name]
        form = {3: "<H", 4: "<I", 16: "<Q"}[int(tag.dtype)]
        struct.pack_into(form, self.content, tag.valueoffset + index * struct.calcsize(form), value)

    def fill(self, start: int, count: int, value: bytes) -> None:
        self.content[start : start + count] = (value * count)[:count]

    def frame(self, size: int) -> None:
        start, count = self.tile()
        at = self.content.index(b"\xff\xc0", start, start + count)
        struct.pack_into(">HH", self.content, at + 5, size, size)

    def replace(self, old: bytes, new: bytes) -> None:
        at = self.content.index(old)
        self.content[at : at + len(new)] = new


def random_tile(copy: Copy) -> None:
    start, count = copy.tile()
    copy.content[start : start + count] = np.random.default_rng(0).bytes(count)


def flipped_bits(copy: Copy) -> None:
    start, count = copy.tile()
    for at in np.random.default_rng(1).integers(start + count // 4, start + count - 2, 5).tolist():
        copy.content[at] ^= 1 << (at % 8)


def zeroed_tables(copy: Copy) -> None:
    tag = copy.page.tags["JPEGTables"]
    copy.fill(tag.valueoffset, tag.count, b"\0")


def loop(copy: Copy) -> None:
    """Link the last directory to the first."""
    offset = copy.page.offset
    while offset:
        tags = struct.unpack_from("<H", copy.content, offset)[0]
        link = offset + 2 + 12 * tags
        offset = struct.unpack_from("<I", copy.content, link)[0]
    struct.pack_into("<I", copy.content, link, copy.page.offset)


def cut_off(share: float) -> Callable[[Copy], None]:
    def alter(copy: Copy) -> None:
        del copy.content[int(len(copy.content) * share) :]

    return alter


def other_tile(copy: Copy) -> None:
    copy.set_tag("TileOffsets", copy.page.dataoffsets[TILE + 1], TILE)
    copy.set_tag("TileByteCounts", copy.page.databytecounts[TILE + 1], TILE)


def sides(across: str, down: str, pixels: int) -> Callable[[Copy], None]:
    def alter(copy: Copy) -> None:
        copy.set_tag(across, pixels)
        copy.set_tag(down, pixels)

    return alter


def whole(content: bytes) -> Callable[[Copy], None]:
    def alter(copy: Copy) -> None:
        copy.content[:] = content

    return alter


PNG = bytes.fromhex("89504e470d0a1a0a0000000d49484452000000010000000108020000009077 53de".replace(" ", ""))
ALTERED: dict[str, Callable[[Copy], None]] = {
    "empty": whole(b""),
    "garbage": whole(np.random.default_rng(0).bytes(50_000)),
    "a store's error page": whole(b'<?xml version="1.0"?><Error><Code>NoSuchKey</Code></Error>'),
    "a PNG": whole(PNG),
    "65,535 entries": lambda copy: struct.pack_into("<H", copy.content, copy.page.offset, 65_535),
    "half": cut_off(0.5),
    "90 percent": cut_off(0.9),
    "99 percent": cut_off(0.99),
    "tile half zero": lambda copy: copy.fill(copy.tile()[0] + copy.tile()[1] // 2, copy.tile()[1] // 2, b"\0"),
    "tile with flipped bits": flipped_bits,
    "tile of random bytes": random_tile,
    "tables zero": zeroed_tables,
    "tile of 16 px": lambda copy: copy.frame(16),
    "tile of 65,000 px": lambda copy: copy.frame(65_000),
    "tile without bytes": lambda copy: copy.set_tag("TileByteCounts", 0, TILE),
    "tile of 4 GB": lambda copy: copy.set_tag("TileByteCounts", 2**32 - 2, TILE),
    "tile beyond the end": lambda copy: copy.set_tag("TileOffsets", 2**31, TILE),
    "tile at another's offset": other_tile,
    "65,535 px wide": sides("ImageWidth", "ImageLength", 65_535),
    "tiles of 65,520 px": sides("TileWidth", "TileLength", 65_520),
    "um per px that is not a number": lambda copy: copy.replace(b"MPP = 0.499", b"MPP = nan  "),
    "a ring of directories": loop,
}
READ_BY_ALL = {"tile without bytes", "tile at another's offset"}
"""No reader can detect these: the first is empty glass in the format."""


@pytest.fixture(scope="module", params=["real", "drawn"])
def slide_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "drawn":
        return write(
            tmp_path_factory.mktemp("drawn") / "a.svs", sample_image(700, 532), "aperio_rgb", side=80, levels=1
        )
    folder: Path = request.getfixturevalue("wsi")
    return folder / "CMU-1-Small-Region.svs"


def boxes_of(width: int, height: int) -> Float64[np.ndarray, "tile 3"]:
    x, y = np.meshgrid(np.arange(0.0, min(width, 2400), 256.0), np.arange(0.0, min(height, 800), 256.0))
    return np.stack([x.ravel(), y.ravel(), np.full(x.size, 256.0)], axis=1)


def tiles_or_message(
    path: StoragePath,
) -> tuple[Float64[np.ndarray, "tile 3"], UInt8[np.ndarray, "tile 256 256 3"]] | str:
    """Return boxes over a slide with their pixels, or the error message."""
    try:
        with open_slide("A1", path) as slide:
            boxes = boxes_of(slide.width, slide.height)
            return boxes, read_tiles(slide, boxes, TilePixels(256), threads=2)
    except SlideError as error:
        return str(error)


@pytest.mark.parametrize("remote", [False, True], ids=["local", "remote"])
@pytest.mark.parametrize("kind", ALTERED)
def test_an_altered_copy_reads_as_openslide_reads_it_or_fails_with_a_reason(
    slide_file: Path, tmp_path: Path, kind: str, *, remote: bool
) -> None:
    path = tmp_path / "altered.svs"
    with tifffile.TiffFile(slide_file) as tiff:
        copy = Copy(bytearray(slide_file.read_bytes()), tiff.pages.first)
        ALTERED[kind](copy)
    path.write_bytes(copy.content)
    source = as_object(path) if remote else StoragePath.of(path)
    found = tiles_or_message(source)
    if isinstance(found, str):
        assert kind not in READ_BY_ALL
        assert "slide 'A1' (" in found
        assert "altered.svs" in found
        assert "\n" not in found
        return
    boxes, tiles = found
    with oracle(path) as truth:
        np.testing.assert_array_equal(tiles, read_tiles(truth, boxes, TilePixels(256)))
    assert kind in READ_BY_ALL
