"""Stored tiles without bytes are named amid tissue, and are glass elsewhere."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from jaxtyping import Bool, Float64

from raystp.slides.coordinates import Area
from raystp.slides.open import open_slide
from raystp.slides.tissue.empty import note_missing_tiles, tiles_missing_in_tissue
from raystp.storage import StoragePath

AREA = Area(0, 0, 3200, 2400)
SIDE = 160


def disc(scale: int = 20) -> Bool[np.ndarray, "row col"]:
    """Tissue: a disc of 800 px around (1600, 1200), as a mask."""
    row, column = np.mgrid[0 : AREA.height // scale, 0 : AREA.width // scale]
    inside: Bool[np.ndarray, "row col"] = (column * scale - 1600) ** 2 + (row * scale - 1200) ** 2 < 800**2
    return inside


def stored(*places: tuple[int, int]) -> Float64[np.ndarray, "region 4"]:
    """Stored tiles by column and row."""
    return np.array([[x * SIDE, y * SIDE, SIDE, SIDE] for x, y in places], np.float64).reshape(-1, 4)


def test_a_missing_tile_amid_tissue_is_named_with_its_place() -> None:
    mask = disc()
    mask[1120 // 20 : 1280 // 20, 1600 // 20 : 1760 // 20] = False  # white, so no tissue
    found = tiles_missing_in_tissue(stored((10, 7), (0, 0), (19, 14)), mask, AREA)
    assert found == [(1600, 1120, SIDE, SIDE)]
    (note,) = note_missing_tiles(stored((10, 7)), mask, AREA)
    assert "without bytes amid tissue, which are white: 1, the first at" in note
    assert "x 1600, y 1120 (160 x 160 px)" in note


def test_missing_tiles_side_by_side_are_one_place() -> None:
    mask = disc()
    mask[1120 // 20 : 1280 // 20, 1600 // 20 : 1920 // 20] = False
    assert tiles_missing_in_tissue(stored((10, 7), (11, 7)), mask, AREA) == [(1600, 1120, 2 * SIDE, SIDE)]


def test_glass_that_was_left_out_is_not_a_fault() -> None:
    mask = disc()
    share = mask[: 2400 // 8 * 8].reshape(2400 // SIDE, SIDE // 20, 3200 // SIDE, SIDE // 20).mean(axis=(1, 3))
    glass = stored(*[(x, y) for y, x in np.argwhere(share == 0.0).tolist()])
    assert len(glass) > 100
    assert tiles_missing_in_tissue(glass, mask, AREA) == []


def test_a_lumen_that_was_left_out_is_not_a_fault() -> None:
    mask = disc()
    row, column = np.mgrid[0 : AREA.height // 20, 0 : AREA.width // 20]
    mask &= (column * 20 - 1600) ** 2 + (row * 20 - 1200) ** 2 > 300**2
    share = mask.reshape(2400 // SIDE, SIDE // 20, 3200 // SIDE, SIDE // 20).mean(axis=(1, 3))
    inner = [(x, y) for y, x in np.argwhere(share == 0.0).tolist() if 8 <= x <= 11 and 5 <= y <= 9]
    assert inner
    assert tiles_missing_in_tissue(stored(*inner), mask, AREA) == []


def test_a_mask_of_a_part_of_the_slide_has_its_own_frame() -> None:
    part = Area(800, 400, 1600, 1600)
    mask = disc()[400 // 20 : 2000 // 20, 800 // 20 : 2400 // 20]
    assert tiles_missing_in_tissue(stored((10, 7)), mask, part) == [(1600, 1120, SIDE, SIDE)]


@pytest.mark.parametrize("compression", ["deflate", "jpeg"])
def test_a_slide_gives_its_stored_tiles_without_bytes(tmp_path: Path, compression: str) -> None:
    path = tmp_path / "a.tif"
    pixels = np.full((300, 500, 3), 90, np.uint8)
    tifffile.imwrite(path, pixels, tile=(64, 64), photometric="rgb", compression=compression, metadata=None)
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tag = tiff.pages.first.tags["TileByteCounts"]
        counts = list(tag.value)
        counts[9], counts[39] = 0, 0
        tag.overwrite(counts)
    with open_slide("A1", StoragePath.of(path), given_mpp=0.5) as slide:
        assert slide.empty.tolist() == [[64.0, 64.0, 64.0, 64.0], [448.0, 256.0, 52.0, 44.0]]
        assert (slide.thumbnail(500)[64:128, 64:128] == 255).all()
