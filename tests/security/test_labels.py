"""Labels and macro images of slides, which may show a patient's name, are in no file that raystp writes."""

import ast
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from raystp.slides.open import open_slide, read_tiles_or_fail
from raystp.slides.table import SlideRow
from raystp.steps.tile.config import TileConfig
from raystp.steps.tile.work import TileTask, tile_slide
from raystp.storage import StoragePath
from raystp.units import TilePixels
from tests.slides.object_path import as_object
from tests.slides.tissue.glass import glass, stain

WIDTH, HEIGHT = 768, 640
LABEL = (255, 0, 255)
"""A colour that no stain has."""
APERIO = "Aperio Image Library v12.0.15\r\n{}|AppMag = 20|MPP = 0.5"


def _slide(path: Path, *, macro: tuple[int, int], first: bool) -> Path:
    """Write an Aperio slide with a thumbnail, a label and a macro image, after the slide or before it."""
    level0 = stain(glass(WIDTH, HEIGHT), (300, 300), (200, 200))
    pictures: list[tuple[np.ndarray, dict[str, Any]]] = [
        (level0, {"tile": (256, 256), "description": APERIO.format(f"{WIDTH}x{HEIGHT} (256x256) JPEG/RGB Q=70")}),
        (level0[::4, ::4], {"description": APERIO.format(f"{WIDTH}x{HEIGHT} -> {WIDTH // 4}x{HEIGHT // 4}")}),
    ]
    attached: list[tuple[np.ndarray, dict[str, Any]]] = [
        (_plain(387, 463), {"subfiletype": 1, "description": "Aperio Image Library v12.0.15\r\nlabel 387x463"}),
        (
            _plain(*macro),
            {"subfiletype": 9, "description": f"Aperio Image Library v12.0.15\r\nmacro {macro[0]}x{macro[1]}"},
        ),
    ]
    with tifffile.TiffWriter(path) as tiff:
        for pixels, options in [*attached, *pictures] if first else [*pictures, *attached]:
            tiff.write(np.ascontiguousarray(pixels), photometric="rgb", metadata=None, compression="deflate", **options)
    return path


def _plain(width: int, height: int) -> np.ndarray:
    return np.full((height, width, 3), LABEL, np.uint8)


def _has_label(pixels: np.ndarray) -> bool:
    return bool((np.abs(pixels.astype(int) - LABEL).max(axis=-1) < 40).any())


CASES = {"small macro": ((400, 200), False), "large macro": ((1600, 900), False), "labels first": ((1600, 900), True)}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("place", ["file", "object"])
def test_the_slide_is_never_its_label_or_macro_image(tmp_path: Path, case: str, place: str) -> None:
    macro, first = CASES[case]
    file = _slide(tmp_path / "a.svs", macro=macro, first=first)
    with open_slide("A1", StoragePath.of(file) if place == "file" else as_object(file), given_mpp=0.5) as slide:
        assert (slide.width, slide.height) == (WIDTH, HEIGHT)
        assert not _has_label(slide.thumbnail(256))
        tiles, failed = read_tiles_or_fail(slide, np.array([[0.0, 0.0, 512.0], [200.0, 100.0, 112.0]]), TilePixels(112))
    assert not failed
    assert not _has_label(tiles)


@pytest.mark.parametrize("case", CASES)
def test_no_file_of_the_tile_step_shows_a_label(tmp_path: Path, case: str) -> None:
    macro, first = CASES[case]
    file = _slide(tmp_path / "a.svs", macro=macro, first=first)
    config = TileConfig.of({"slides": "slides.csv", "tile_um": 56, "tile_px": 112, "run": {}})
    row = SlideRow("S1", StoragePath.of(file), "P1", 0.5, None, None, None, "S1", None)
    assert not isinstance(tile_slide(TileTask(row, config, StoragePath.of(tmp_path / "out"))), str)
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    images = [path for path in written if path.suffix in {".png", ".jpg", ".jpeg"}]
    assert images
    assert [path.name for path in images if _has_label(np.asarray(Image.open(path).convert("RGB")))] == []
    stored = b"".join(path.read_bytes() for path in written)
    for other in (b"label 387x463", b"macro 1600x900", _compressed()):
        assert other not in stored


def _compressed() -> bytes:
    """The start of the label as the slide stores it."""
    sink = io.BytesIO()
    tifffile.imwrite(sink, _plain(387, 463), photometric="rgb", compression="deflate", metadata=None)
    with tifffile.TiffFile(io.BytesIO(sink.getvalue())) as tiff:
        page = tiff.pages.first
        return sink.getvalue()[page.dataoffsets[0] :][: page.databytecounts[0]]


def test_no_code_asks_a_slide_for_its_associated_images() -> None:
    sources = Path(__file__).parents[2] / "raystp"
    found = []
    for path in sources.rglob("*.py"):
        text = path.read_text()
        if "associated_images" in text:
            found += [path for node in ast.walk(ast.parse(text)) if getattr(node, "attr", "") == "associated_images"]
    assert found == []
