"""Targets: headers of slides and their OME-XML; whole slides; outlines of tissue; XML is text in a TIFF."""

import io
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from raystp.errors import SlideError
from raystp.interop.geojson import outlines
from raystp.slides.open import open_slide
from raystp.slides.readers.tiff.ome import read_ome
from raystp.slides.tiled.open import read_header
from raystp.slides.tissue.frames import place_mask
from raystp.slides.tissue.geojson import from_geojson
from raystp.storage import StoragePath
from tests.security.fuzz.changes import change_bytes, change_json
from tests.security.fuzz.target import Execute, Prepare, Target, known, of_bytes, of_file
from tests.slides.mutated import BASES, all_tags, mutate
from tests.slides.readers.test_fuzz import open_or_refuse
from tests.slides.tissue.test_geojson import GROUND, HEIGHT, POLYGON, WIDTH, collection, feature

OME = (
    '<OME><Image Name="a"><Pixels SizeX="200" SizeY="140" SizeC="3" SizeZ="1" SizeT="1" PhysicalSizeX="0.5"'
    ' PhysicalSizeY="0.5" PhysicalSizeXUnit="µm"><Channel Name="red" Color="-16776961" SamplesPerPixel="1"/>'
    '<TiffData IFD="0" FirstC="0" PlaneCount="1"/><TiffData IFD="1" FirstC="1"/></Pixels></Image></OME>'
)


class MemoryFile(io.RawIOBase):
    """A file of these bytes, as the header of an object in a store is read."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self._bytes = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._bytes.seek(offset, whence)

    def tell(self) -> int:
        return self._bytes.tell()

    def readinto(self, buffer: Any) -> int:
        return self._bytes.readinto(buffer)


def _header(base: str) -> Prepare:
    """Read the directories alone, from memory."""

    def prepare(folder: Path) -> Execute:
        logging.getLogger("tifffile").setLevel(logging.CRITICAL)
        path = folder / "a.tif"
        BASES[base](path)
        content, tags = path.read_bytes(), all_tags(path)

        def execute(rng: np.random.Generator) -> object:
            is_tag = rng.random() < 0.8
            changed = mutate(content, tags, rng) if is_tag else change_bytes(content[:4096], rng) + content[4096:]
            return read_header("a.tif", MemoryFile(changed))

        return execute

    return prepare


def _slide(base: str) -> Prepare:
    """Open the slide and read tiles and a thumbnail."""

    def prepare(folder: Path) -> Execute:
        logging.getLogger("tifffile").setLevel(logging.CRITICAL)
        path = folder / "a.tif"
        BASES[base](path)
        content, tags = path.read_bytes(), all_tags(path)

        def execute(rng: np.random.Generator) -> object:
            path.write_bytes(mutate(content, tags, rng))
            return open_or_refuse(StoragePath.of(path), 0.5)

        return execute

    return prepare


def _flat(kind: str) -> list[bytes]:
    sink = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    Image.fromarray(pixels).save(sink, kind, dpi=(25_400, 25_400))
    return [sink.getvalue()]


def _open_flat(file: Path) -> object:
    with open_slide("A1", StoragePath.of(file), given_mpp=0.5) as slide:
        return slide.thumbnail(32)


def _ome(content: bytes) -> object:
    try:
        return read_ome(content.decode("utf-8", "replace"))
    except ValueError as error:  # what it documents; the caller refuses the slide with it
        raise SlideError(str(error)[:4000] or "no message") from None


def _mask(content: bytes) -> object:
    drawn = from_geojson(content, "the mask A1.geojson", width=WIDTH, height=HEIGHT)
    return place_mask(drawn, "the mask A1.geojson", GROUND, frame="auto")


def _masks() -> list[bytes]:
    nested = {**feature(None), "childObjects": [feature(POLYGON), feature(POLYGON, "Ignore*")]}
    several = {"type": "MultiPolygon", "coordinates": [POLYGON["coordinates"]]}
    values = (collection(feature(POLYGON), feature(several, "Tumor")), [feature(POLYGON)], nested, POLYGON)
    return [json.dumps(one).encode() for one in values]


TARGETS = (
    *(Target(f"TIFF header: {base}", "TIFF headers", _header(base), 4) for base in BASES),
    *(Target(f"slide: {base}", "TIFF headers", _slide(base), 0) for base in BASES),
    Target("OME-XML", "TIFF headers", of_bytes(known(OME.encode()), change_bytes, _ome), 30),
    Target("slide.png", "TIFF headers", of_file("a.png", lambda: _flat("PNG"), change_bytes, _open_flat)),
    Target("slide.jpg", "TIFF headers", of_file("a.jpg", lambda: _flat("JPEG"), change_bytes, _open_flat)),
    Target("tissue mask", "GeoJSON", of_bytes(_masks, change_json, _mask), 30),
    Target(
        "outlines of other tools",
        "GeoJSON",
        of_bytes(lambda: _masks()[:1], change_json, lambda content: outlines(content, "x")),
        20,
    ),
)
