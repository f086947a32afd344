"""TIFFs whose headers are changed at random: bytes of directories, whole tags, OME-XML, and the file's length."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from tests.slides.tiled.tiled_files import APERIO, sample_image

IMAGE = sample_image(200, 140)
EXTREMES = (0, 1, 2, 3, 4, 7, 8, 16, 255, 256, 4096, 32_768, 65_535, 2**31 - 1, 2**32 - 1)


def _pyramid(path: Path, **options: Any) -> None:
    with tifffile.TiffWriter(path, bigtiff=options.pop("bigtiff", False)) as tiff:
        for factor in (1, 2, 4):
            level = np.ascontiguousarray(IMAGE[::factor, ::factor])
            more = {"subfiletype": 1 if factor > 1 else 0, "metadata": None, "photometric": "rgb"} | options
            tiff.write(level, tile=(64, 64), resolution=(2e4 / factor, 2e4 / factor), resolutionunit=3, **more)


def _ome(path: Path, *, planar: bool) -> None:
    with tifffile.TiffWriter(path, ome=True) as tiff:
        for factor in (1, 2):
            level = IMAGE[::factor, ::factor]
            stored = np.ascontiguousarray(np.moveaxis(level, -1, 0) if planar else level)
            axes = {"axes": "CYX" if planar else "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
            more: dict[str, Any] = {"subifds": 1, "metadata": axes} if factor == 1 else {"subfiletype": 1}
            colour = "minisblack" if planar else "rgb"
            tiff.write(stored, tile=(64, 64), photometric=colour, compression="deflate", **more)


BASES: dict[str, Callable[[Path], object]] = {
    "tiled": lambda path: _pyramid(path, compression="deflate"),
    "tiled_jpeg": lambda path: _pyramid(path, compression="jpeg"),
    "tiled_big": lambda path: _pyramid(path, compression="webp", bigtiff=True),
    "aperio": lambda path: _pyramid(path, compression="jpeg", description=APERIO.format(200, 140)),
    "ome": lambda path: _ome(path, planar=False),
    "ome_planes": lambda path: _ome(path, planar=True),
    "flat": lambda path: tifffile.imwrite(path, IMAGE, photometric="rgb", compression="deflate", rowsperstrip=32),
    "imagej": lambda path: tifffile.imwrite(path, IMAGE, imagej=True, resolution=(2, 2), metadata={"unit": "um"}),
}


def mutate(content: bytes, tags: list[tifffile.TiffTag], rng: np.random.Generator) -> bytes:
    """Return a copy with one to three changes; `tags` are those of the good file."""
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        tag = tags[int(rng.integers(len(tags)))]
        size = 20 if content[2] == 43 else 12
        kind = int(rng.integers(6))
        if kind == 0:  # any byte of a tag
            changed[tag.offset + int(rng.integers(size))] = int(rng.integers(256))
        elif kind == 1:  # its value
            value = EXTREMES[int(rng.integers(len(EXTREMES)))]
            struct.pack_into("<I", changed, tag.offset + size - (8 if size == 20 else 4), value)
        elif kind == 2:  # its type
            struct.pack_into("<H", changed, tag.offset + 2, int(rng.integers(0, 20)))
        elif kind == 3:  # its count
            struct.pack_into("<I", changed, tag.offset + 4, EXTREMES[int(rng.integers(len(EXTREMES)))])
        elif kind == 4:  # values stored elsewhere: offsets, byte counts, OME-XML
            at = min(len(changed) - 1, tag.valueoffset + int(rng.integers(max(1, tag.valuebytecount))))
            changed[at] = int(rng.integers(256))
        else:  # its code: another tag
            struct.pack_into(
                "<H",
                changed,
                tag.offset,
                int(rng.choice([254, 256, 257, 258, 259, 262, 274, 277, 284, 317, 322, 330, 347, 530])),
            )
    if rng.random() < 0.05:
        del changed[int(rng.integers(len(changed))) :]
    return bytes(changed)


def all_tags(path: Path) -> list[tifffile.TiffTag]:
    """Return the tags of all directories of a file, SubIFDs included."""
    with tifffile.TiffFile(path) as tiff:
        pages = [page for page in tiff.pages if isinstance(page, tifffile.TiffPage)]
        subs = [sub for page in pages if page.pages for sub in page.pages if isinstance(sub, tifffile.TiffPage)]
        return [tag for page in (*pages, *subs) for tag in page.tags]
