"""The pixels of tiles as HEST's files of patches: they are those that `embed` reads, and come back as tiles."""

from pathlib import Path

import h5py
import numpy as np
from PIL import Image

from raystp import tables
from raystp.artifacts import Artifact, Manifest
from raystp.digests import content_id
from raystp.slides.open import open_slide, read_tiles
from raystp.slides.patches.slide import PatchSlide
from raystp.steps.export.config import ExportConfig
from raystp.steps.export.features import Exported
from raystp.steps.export.patches import export_patches, patch_tasks
from raystp.storage import StoragePath
from raystp.units import TilePixels

BOXES = np.array([[10.0, 20.0, 64.0], [100.5, 40.0, 64.0], [200.0, 180.0, 64.0]])


def _tiles(folder: Path, spots: list[str | None]) -> Artifact:
    """Write the parts of a tile artifact that an export reads, of a slide of random pixels."""
    slide = folder / "S1.png"
    folder.mkdir(parents=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)).save(slide)
    path = StoragePath.of(folder / "tile" / "x-0")
    columns = [["S1"] * len(BOXES), range(len(BOXES)), *BOXES.T, spots]
    (path / "tiles" / "S1.parquet").write_table(tables.of_columns(columns, tables.TILES))
    row = {"slide": "S1", "path": str(slide), "patient": "P", "content": content_id(StoragePath.of(slide)), "mpp": 0.5}
    row |= {"mpp_from": "table", "width": 300, "height": 300, "native": False, "tissue": 1.0, "tiles": len(BOXES)}
    (path / "slides.parquet").write_table(tables.of_rows([row], tables.SLIDES))
    return Artifact(path, Manifest("tile", "x", "0", notes={"side": 32.0, "pixels": 32}))


def _export(tiles: Artifact, out: Path) -> Exported:
    config = ExportConfig.of({"format": "patches", "artifact": "tile/x", "out": str(out)})
    (task,) = patch_tasks(tiles, config)
    written = export_patches(task)
    assert isinstance(written, Exported), written
    return written


def test_patches_are_the_pixels_that_embed_reads_and_are_named_by_their_spots(tmp_path: Path) -> None:
    tiles = _tiles(tmp_path / "a", ["s1", "s2", "s3"])
    written = _export(tiles, tmp_path / "out")
    assert (written.slide, written.tiles) == ("S1", 3)
    assert written.notes == ("1 of 3 corners were not whole px; moved by at most 0.5 px",)
    with open_slide("S1", StoragePath.of(tmp_path / "a" / "S1.png"), given_mpp=0.5) as slide:
        expected = read_tiles(slide, BOXES, TilePixels(32))
    with h5py.File(tmp_path / "out" / "patches" / "S1.h5") as file:
        np.testing.assert_array_equal(file["img"][:], expected)
        assert file["barcode"][:].ravel().tolist() == [b"s1", b"s2", b"s3"]
    with open_slide("S1", StoragePath.of(tmp_path / "out" / "patches" / "S1.h5")) as back:
        assert isinstance(back, PatchSlide)
        assert (float(back.mpp), float(back.scale.side)) == (0.5, 64.0)
        moved = np.column_stack([back.header.corners, BOXES[:, 2]])
        np.testing.assert_array_equal(read_tiles(back, moved, TilePixels(32)), expected)


def test_two_exports_have_equal_bytes_and_tiles_of_a_grid_are_named_by_their_corners(tmp_path: Path) -> None:
    tiles = _tiles(tmp_path / "a", [None, None, None])
    _export(tiles, tmp_path / "one")
    _export(tiles, tmp_path / "two")
    first, second = (tmp_path / name / "patches" / "S1.h5" for name in ("one", "two"))
    assert first.read_bytes() == second.read_bytes()
    with h5py.File(first) as file:
        assert file["barcode"][:].ravel().tolist() == [b"10x20", b"100x40", b"200x180"]


def test_a_slide_that_was_replaced_after_tiling_is_a_failure_with_its_reason(tmp_path: Path) -> None:
    tiles = _tiles(tmp_path / "a", ["s1", "s2", "s3"])
    Image.new("RGB", (300, 300)).save(tmp_path / "a" / "S1.png")
    (task,) = patch_tasks(
        tiles, ExportConfig.of({"format": "patches", "artifact": "tile/x", "out": str(tmp_path / "o")})
    )
    assert "was replaced after it was tiled: run `raystp tile` again" in str(export_patches(task))
