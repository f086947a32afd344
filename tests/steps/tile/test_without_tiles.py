"""A slide without a tile is a failure with its reason, never a slide of zero tiles."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raystp import cli
from raystp.artifacts import resolve
from tests.slides.tissue.glass import Rgb, glass, stain
from tests.steps.tile.conftest import TileOne


def faint() -> Rgb:
    return glass(1200, 1000)


def pale() -> Rgb:
    """A tint without texture, paler than the halo of eosin; the image is not grey."""
    image = glass(1200, 1000)
    image[300:600, 300:600] = (240, 229, 236)
    return image


def grey() -> Rgb:
    coloured = stain(glass(1200, 1000), (350, 450), (250, 350))
    return np.repeat(np.asarray(Image.fromarray(coloured).convert("L"))[..., None], 3, axis=2)


def small() -> Rgb:
    return np.full((70, 80, 3), (200, 110, 175), np.uint8)


def pieces() -> Rgb:
    """Pieces of 40 um, on which no tile of 56 um has half of tissue."""
    image = glass(1200, 1000)
    for x in range(100, 1200, 300):
        stain(image, (x, 500), (40, 40))
    return image


@pytest.mark.parametrize(
    "kind",
    [
        (faint, "tissue covers 0.00% of its 600 x 500 um (the smallest piece allowed is 37 um2)", "is grey or empty"),
        (pale, "tissue covers 0.00% of its 600 x 500 um", "No stained tissue was found"),
        (grey, "tissue covers 0.00% of its 600 x 500 um", "The image is grey or empty"),
        (small, "tissue covers 100.00% of its 40 x 35 um", "The slide is smaller than a tile: lower tile_um"),
        (pieces, "tissue covers 1.8", "smaller than a tile: lower tile_um, or set min_tissue=0.4"),
    ],
)
def test_each_kind_of_slide_without_a_tile_gives_its_reason(
    tmp_path: Path, tile_one: TileOne, kind: tuple[Callable[[], Rgb], str, str]
) -> None:
    draw, found, cause = kind
    Image.fromarray(draw()).save(tmp_path / "S1.png")
    reason = tile_one(tmp_path / "S1.png")
    assert isinstance(reason, str)
    assert reason.startswith("slide 'S1' has no tile: ")
    assert found in reason
    assert "a tile of 56 um needs min_tissue=0.5 of tissue" in reason
    assert cause in reason
    assert (tmp_path / "out" / "overviews" / "S1.png").exists()  # to see why
    assert not (tmp_path / "out" / "tiles").exists()


def test_the_named_min_tissue_gives_a_tile(tmp_path: Path, tile_one: TileOne) -> None:
    Image.fromarray(pieces()).save(tmp_path / "S1.png")
    reason = str(tile_one(tmp_path / "S1.png"))
    row = tile_one(tmp_path / "S1.png", min_tissue=float(reason.rpartition("min_tissue=")[2]))
    assert isinstance(row, dict)
    assert row["tiles"] >= 1


def test_an_empty_mask_of_the_user_is_the_reason(tmp_path: Path, ellipse: Path, tile_one: TileOne) -> None:
    mask = tmp_path / "mask.geojson"
    mask.write_text('{"type": "FeatureCollection", "features": []}')
    reason = tile_one(ellipse, mask=mask)
    assert "your mask covers 0.00%" in str(reason)
    assert "Your mask has no area on this slide" in str(reason)


def test_a_biopsy_on_a_large_scan_has_tiles(tmp_path: Path, tile_one: TileOne) -> None:
    image = stain(glass(2500, 5500), (1500, 3900), (20, 60))  # 0.4 x 1.2 mm on a glass of 25 x 55 mm, at 10 um/px
    Image.fromarray(image).save(tmp_path / "S1.png", compress_level=1)
    row = tile_one(tmp_path / "S1.png", mpp=10.0, tile_um=160, tile_px=16)
    assert isinstance(row, dict)
    assert row["tiles"] >= 12


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_a_cohort_without_a_tile_ends_with_a_status_and_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("A", "B"):
        Image.fromarray(faint()).save(tmp_path / f"{name}.png")
    (tmp_path / "slides.csv").write_text("slide,path,patient,mpp\nA,A.png,P,0.5\nB,B.png,P,0.5\n")
    store = tmp_path / "store"
    assert cli.main(["tile", "--set", f"slides={tmp_path / 'slides.csv'}", "--set", f"run.store={store}"]) == 3
    printed = capsys.readouterr().out
    assert "none of the 2 slides has a tile: no later step can use this artifact" in printed
    last = json.loads(printed.splitlines()[-1])
    assert (last["exit"], last["failures"], last["rows"]) == (3, 2, {"slides": 0, "tiles": 0})
    rows = resolve(str(store), "tile/default", "tile").failures().to_pylist()
    assert [(row["slide"], row["stage"]) for row in rows] == [("A", "tile"), ("B", "tile")]
    assert all("has no tile" in row["reason"] for row in rows)
