"""Tiles of a file of image patches: each patch once, its spot by barcode, and no option that would cut others."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from raystp.steps.tile.checks import SectionScale
from raystp.steps.tile.work import TileResult
from raystp.storage import StoragePath
from tests.slides.patches.files import SIDE, centres, images, names, write_patches
from tests.steps.tile.conftest import TileOne

SpotsAt = Callable[..., Path]
BY_HEST: dict[str, Any] = {"mpp": None, "tile_um": 112, "tile_px": 224}
SCALE = SectionScale(0.25, None)


def _tiles(folder: Path) -> dict[str, list[Any]]:
    table: dict[str, list[Any]] = StoragePath.of(folder / "out" / "tiles" / "S1.parquet").read_table().to_pydict()
    return table


def _done(result: TileResult | str) -> TileResult:
    assert isinstance(result, dict), result
    return result


def test_each_patch_is_a_tile_with_the_spot_of_its_barcode(
    tmp_path: Path, tile_one: TileOne, spots_at: SpotsAt
) -> None:
    order = [3, 0, 4, 1]  # the file has neither all spots nor their order
    coords = np.trunc(centres(5) - SIDE // 2).astype(np.int64)[order]
    path = write_patches(tmp_path / "S1.h5", images(4), coords=coords, barcodes=[names(5)[row] for row in order])
    row = _done(tile_one(path, section=spots_at(centres(5), 0.25), scale=SCALE, **BY_HEST))
    assert (row["tiles"], row["spots_without_patch"], row["native"], row["reader"]) == (4, 1, False, "patches")
    assert (row["mpp"], row["mpp_from"], row["quality"]["mask"]) == (0.25, "slide", "none")
    assert row["warnings"] == ["1 of 5 spots have no patch: 's2'"]
    tiles = _tiles(tmp_path)
    assert tiles["spot"] == ["s3", "s0", "s4", "s1"]
    assert tiles["tile"] == [0, 1, 2, 3]
    np.testing.assert_array_equal(np.stack([tiles["x"], tiles["y"]], axis=1), coords)
    assert set(tiles["side"]) == {float(SIDE)}


def test_a_patch_without_a_spot_is_left_out_and_counted(tmp_path: Path, tile_one: TileOne, spots_at: SpotsAt) -> None:
    path = write_patches(tmp_path / "S1.h5", images(5), barcodes=["s0", "s1", "other", "s3", "s4"])
    row = _done(tile_one(path, section=spots_at(centres(5), 0.25), scale=SCALE, **BY_HEST))
    assert row["warnings"] == [
        "1 of 5 spots have no patch: 's2'",
        "1 of 5 patches have no spot and are left out: 'other'",
    ]
    assert _tiles(tmp_path)["spot"] == ["s0", "s1", "s3", "s4"]


def test_without_a_section_a_tile_keeps_its_barcode(tmp_path: Path, tile_one: TileOne) -> None:
    path = write_patches(tmp_path / "S1.h5", images(3))
    row = _done(tile_one(path, **BY_HEST))
    assert row["warnings"] == []
    assert _tiles(tmp_path)["spot"] == ["s0", "s1", "s2"]
    write_patches(path, images(3), barcodes=[])
    _done(tile_one(path, **BY_HEST))
    assert _tiles(tmp_path)["spot"] == [None] * 3


def test_a_section_is_never_joined_without_barcodes(tmp_path: Path, tile_one: TileOne, spots_at: SpotsAt) -> None:
    path = write_patches(tmp_path / "S1.h5", images(5), barcodes=[])
    reason = tile_one(path, section=spots_at(centres(5), 0.25), scale=SCALE, **BY_HEST)
    assert isinstance(reason, str)
    assert "has no 'barcode', and without it no patch is known to be a spot's" in reason


def test_images_for_checking_are_drawn_from_the_patches(tmp_path: Path, tile_one: TileOne) -> None:
    img = np.full((5, 224, 224, 3), 60, np.uint8)
    row = _done(tile_one(write_patches(tmp_path / "S1.h5", img), **BY_HEST))
    with Image.open(tmp_path / "out" / "thumbnails" / "S1.png") as thumbnail:
        drawn = np.asarray(thumbnail)
    assert drawn.shape == (round(1024 * row["height"] / row["width"]), 1024, 3)
    assert row["tissue"] == pytest.approx((drawn == 60).all(axis=2).mean(), abs=0.01)
    assert (tmp_path / "out" / "overviews" / "S1.png").exists()
    assert not (tmp_path / "out" / "masks").exists()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"stride": 56}, "`stride`"),
        ({"tile_um": [112, 224]}, "several sizes in `tile_um`"),
        ({"mask": True}, "a mask in `masks`"),
    ],
)
def test_options_that_would_cut_other_tiles_are_refused(
    tmp_path: Path, tile_one: TileOne, options: dict[str, Any], named: str
) -> None:
    path = write_patches(tmp_path / "S1.h5", images(2))
    values = {**BY_HEST, **options, **({"mask": tmp_path / "S1.geojson"} if "mask" in options else {})}
    reason = tile_one(path, **values)
    assert isinstance(reason, str)
    assert f"is a file of image patches, which are tiles already: {named} cannot be used; remove it" in reason


def test_patches_of_256_px_are_tiles_of_128_um_and_say_so(tmp_path: Path, tile_one: TileOne) -> None:
    attributes = {"patch_size_src": 512, "pixel_size": 0.25, "patch_size_target": 256}
    path = write_patches(tmp_path / "S1.h5", images(2, px=256), attributes=attributes)
    reason = tile_one(path, **BY_HEST)
    assert isinstance(reason, str)
    assert (
        "its patches are 128 um wide (256 px of 0.5 um/px), and tile_um is 112: run `raystp tile` with tile_um=128"
        in (reason)
    )
    row = _done(tile_one(path, **{**BY_HEST, "tile_um": 128}))
    assert (row["tiles"], set(_tiles(tmp_path)["side"])) == (2, {512.0})


def test_spots_far_from_the_centres_of_their_patches_are_named(
    tmp_path: Path, tile_one: TileOne, spots_at: SpotsAt
) -> None:
    path = write_patches(tmp_path / "S1.h5", images(5))
    row = _done(tile_one(path, section=spots_at(centres(5) + np.array([300.0, 400.0]), 0.25), scale=SCALE, **BY_HEST))
    (warning,) = row["warnings"]
    assert warning.startswith("spots are 500.0 px (median) from the centres of their patches, which are 448 px wide")


def test_a_section_of_another_um_per_px_is_refused(tmp_path: Path, tile_one: TileOne, spots_at: SpotsAt) -> None:
    path = write_patches(tmp_path / "S1.h5", images(5))
    reason = tile_one(path, section=spots_at(centres(5), 0.3), scale=SectionScale(0.3, None), **BY_HEST)
    assert isinstance(reason, str)
    assert "slide 'S1' has 0.25 um/px by its own file, but 0.3 by the measured section" in reason


@pytest.mark.parametrize("given", [0.5, 0.25])
def test_without_attributes_the_spots_give_the_places_and_the_table_the_um_per_px(
    tmp_path: Path, tile_one: TileOne, spots_at: SpotsAt, given: float
) -> None:
    path = write_patches(tmp_path / "S1.h5", images(5), attributes={})
    row = _done(tile_one(path, section=spots_at(centres(5), 0.25), scale=SCALE, **{**BY_HEST, "mpp": given}))
    assert (row["mpp"], row["mpp_from"], row["warnings"]) == (0.25, "spots", [])
    assert set(_tiles(tmp_path)["side"]) == {float(SIDE)}


def test_without_attributes_a_um_per_px_that_the_spots_contradict_is_refused(
    tmp_path: Path, tile_one: TileOne, spots_at: SpotsAt
) -> None:
    path = write_patches(tmp_path / "S1.h5", images(5), attributes={})
    reason = tile_one(path, section=spots_at(centres(5), 0.25), scale=SCALE, **{**BY_HEST, "mpp": 0.35})
    assert isinstance(reason, str)
    assert (
        "by the spots a patch is 448 px wide at 0.25 um/px, so its images have 0.5; correct the column `mpp`" in reason
    )
    aside = spots_at(centres(5) + np.array([100.0, 0.0]), 0.25)
    reason = tile_one(path, section=aside, scale=SCALE, **{**BY_HEST, "mpp": 0.5})
    assert isinstance(reason, str)
    assert "spots are 324.0 px right of the corners of their patches and 224.0 px below them" in reason


def test_without_attributes_or_spots_places_are_in_px_of_the_patches_and_a_warning_says_so(
    tmp_path: Path, tile_one: TileOne
) -> None:
    path = write_patches(tmp_path / "S1.h5", images(5), attributes={})
    row = _done(tile_one(path, **{**BY_HEST, "mpp": 0.5}))
    (warning,) = row["warnings"]
    assert "corners are taken as px of 0.5 um/px, the patches' own" in warning
    assert set(_tiles(tmp_path)["side"]) == {224.0}


def test_small_patches_for_large_tiles_get_the_warning_of_slides(tmp_path: Path, tile_one: TileOne) -> None:
    row = _done(tile_one(write_patches(tmp_path / "S1.h5", images(2)), **{**BY_HEST, "tile_px": 448}))
    assert row["warnings"][0].startswith(
        "tiles are read at 0.25 um/px and the slide has 0.5 um/px: they are enlarged 2"
    )
