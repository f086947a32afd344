"""Reading a unit's tiles: boxes and pixels are of one slide, also after an error, and of the file that was tiled."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raystp import tables
from raystp.artifacts import ArtifactWriter
from raystp.cluster.streams.units import WorkUnit
from raystp.digests import content_id
from raystp.errors import RaystpError, SlideError
from raystp.steps.embed.reader import SlideTiles, UnitReader
from raystp.steps.train.spots.pixels import TileRows
from raystp.storage import StoragePath
from raystp.units import TilePixels
from tests.slides.conftest import write_pyramid

SIDE = 16


def _write_tiles(folder: StoragePath, slide: str, x: float) -> None:
    columns = [[slide], [0], [x], [40.0], [float(SIDE)], [None]]
    (folder / "tiles" / f"{slide}.parquet").write_table(tables.of_columns(columns, tables.TILES))


def _tiled(path: Path) -> SlideTiles:
    return SlideTiles(str(path), 0.5, content_id(StoragePath.of(path)))


def test_after_an_error_the_boxes_of_the_slide_before_are_not_used(
    tmp_path: Path, drawn: Callable[[Path], Path]
) -> None:
    paths = {name: drawn(tmp_path / f"{name}.png") for name in ("A", "B")}
    folder = StoragePath.of(tmp_path / "tiles")
    _write_tiles(folder, "A", 0.0)
    reader = UnitReader(folder, {n: _tiled(p) for n, p in paths.items()}, TilePixels(SIDE), cache=None, buffers=2)
    glass = reader(WorkUnit("A.0", "A", 0, 1), 0, 1).pixels
    with pytest.raises(RaystpError):
        reader(WorkUnit("B.0", "B", 0, 1), 0, 1)
    _write_tiles(folder, "B", 60.0)
    tissue = reader(WorkUnit("B.0", "B", 0, 1), 0, 1).pixels
    assert (glass.mean(), tissue.mean()) == pytest.approx((240, 130), abs=1)


def test_a_closed_reader_holds_no_file_and_reads_again(tmp_path: Path) -> None:
    path = write_pyramid(tmp_path / "A.tif", np.full((300, 500, 3), 77, np.uint8))
    folder = StoragePath.of(tmp_path / "tiles")
    _write_tiles(folder, "A", 32.0)
    reader = UnitReader(folder, {"A": _tiled(path)}, TilePixels(SIDE), cache=None, buffers=2)
    unit = WorkUnit("A.0", "A", 0, 1)
    for _ in range(2):
        assert reader(unit, 0, 1).pixels.mean() == pytest.approx(77, abs=1)
        assert str(path) in _open_files()
        reader.close()
        assert str(path) not in _open_files()
    reader.close()


def _open_files() -> list[str]:
    return [os.path.realpath(file) for file in Path("/proc/self/fd").iterdir()]


def test_a_training_from_pixels_refuses_a_slide_that_was_replaced_after_tiling(
    tmp_path: Path, drawn: Callable[[Path], Path]
) -> None:
    path = drawn(tmp_path / "A.png")
    row = ["A", str(path), "P", content_id(StoragePath.of(path)), 0.5, "table", 160, 192, True, 0.5, 1]
    writer = ArtifactWriter(StoragePath.of(tmp_path / "tile" / "a-0"), "tile", "a", "0", {}, {})
    rows = [dict(zip(tables.SLIDES.names, row, strict=True))]
    (writer.path / "slides.parquet").write_table(tables.of_rows(rows, tables.SLIDES))
    tiles = writer.finish({}, [], {"pixels": SIDE})

    def read() -> np.ndarray:
        boxes = np.array([[60.0, 40.0, SIDE]])
        return TileRows(tiles, ("A",), np.zeros(1, np.int64), boxes)(np.zeros(1, np.int64))

    assert read().mean() == pytest.approx(130, abs=1)
    Image.new("RGB", (160, 192), (9, 9, 9)).save(path)
    with pytest.raises(SlideError, match=r"slide 'A' .* was replaced after it was tiled: run `raystp tile` again"):
        read()
    path.unlink()
    with pytest.raises(
        SlideError, match=r"slide 'A' .*A\.png\) is not there: make it readable on this machine, or run"
    ):
        read()
