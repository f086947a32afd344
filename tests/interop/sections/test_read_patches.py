"""Patches that raystp writes, and those of hest-bench, are tiles again: the same boxes, names and pixels."""

from pathlib import Path
from typing import Any

import numpy as np

from raystp.interop.choice import TableChoice
from raystp.interop.sections.hest_bench import table_files
from raystp.interop.sections.patches import PatchBatch, PatchGeometry, write
from raystp.slides.open import open_slide, read_tiles
from raystp.slides.table import SlideRow, read_slide_table
from raystp.steps.tile.config import TileConfig
from raystp.steps.tile.work import TileResult, TileTask, tile_slide
from raystp.storage import StoragePath
from raystp.units import TilePixels
from tests.interop.sections.foreign import bench_folder


def _tile(row: SlideRow, folder: Path, tile_um: float) -> tuple[TileResult, dict[str, list[Any]]]:
    config = TileConfig.of({"slides": "slides.csv", "tile_um": tile_um, "tile_px": 16, "run": {}})
    found = tile_slide(TileTask(row, config, StoragePath.of(folder)))
    assert isinstance(found, dict), found
    return found, StoragePath.of(folder / "tiles" / f"{row.slide}.parquet").read_table().to_pydict()


def test_written_patches_are_the_same_tiles_again(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    corners, side = np.array([[40.0, 7.0], [-3.0, 0.0], [9.0, 90.0]]), 44.8
    geometry = PatchGeometry("S1", corners, side, 16, 0.25, ("c", "a", "b"))
    write(geometry, [PatchBatch(np.arange(3), images)], StoragePath.of(tmp_path))
    path = StoragePath.of(tmp_path / "patches" / "S1.h5")
    row = SlideRow("S1", path, "P", None, None, None, None, "S1", None)
    found, tiles = _tile(row, tmp_path / "tile", side * 0.25)
    assert (found["mpp"], found["warnings"], tiles["spot"]) == (0.25, [], ["c", "a", "b"])
    boxes = np.stack([tiles["x"], tiles["y"], tiles["side"]], axis=1).astype(np.float64)
    np.testing.assert_array_equal(boxes, np.column_stack([corners, [side] * 3]))
    with open_slide("S1", path, given_mpp=found["mpp"]) as slide:
        np.testing.assert_array_equal(read_tiles(slide, boxes, TilePixels(16)), images)


def test_the_slide_table_of_a_task_of_hest_bench_is_tiled(tmp_path: Path) -> None:
    root = bench_folder(tmp_path / "bench", [(["A", "B"], ["C"])])
    (tmp_path / "slides.csv").write_bytes(table_files(StoragePath.of(root), TableChoice()).files["slides.csv"])
    rows = read_slide_table(str(tmp_path / "slides.csv"), None, "/none")
    assert [row.slide for row in rows] == ["A", "B", "C"]
    for row in rows:
        found, tiles = _tile(row, tmp_path / "tile", 4.0)
        assert (found["mpp"], tiles["spot"]) == (0.5, [f"{row.slide}-a", f"{row.slide}-b"])
