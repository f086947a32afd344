"""What is known twice about a slide is compared: um/px, spots and image, spots and tissue, tiles and pixels."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from raystp.slides.table import SlideRow
from raystp.steps.tile.checks import SectionScale
from raystp.steps.tile.config import TileConfig
from raystp.steps.tile.work import TileTask, tile_slide
from raystp.storage import StoragePath
from tests.slides.tissue.glass import glass, stain, write_scn
from tests.steps.tile.conftest import TileOne, hexagons

SpotsAt = Callable[..., Path]


def tagged(path: Path, mpp: float) -> Path:
    """Write the ellipse as a tiled TIFF that gives its own um/px."""
    options = {"tile": (256, 256), "photometric": "rgb", "metadata": None, "resolutionunit": "centimeter"}
    pixels = stain(glass(1200, 1000), (350, 450), (250, 350))
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(pixels, resolution=(1e4 / mpp, 1e4 / mpp), **options)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("factor", [0.5, 0.96, 1.04, 2.0])
def test_a_slides_own_um_per_px_must_be_that_of_its_spots(
    tmp_path: Path, tile_one: TileOne, spots_at: SpotsAt, factor: float
) -> None:
    slide = tagged(tmp_path / "S1.tif", 0.5 * factor)
    reason = tile_one(slide, mpp=None, section=spots_at(hexagons()), scale=SectionScale(0.5, 0.5))
    assert isinstance(reason, str)
    assert f"slide 'S1' has {0.5 * factor:.4g} um/px by its own file, but 0.5 by the measured section" in reason
    assert "Set the right um/px in the column `mpp` of the slide table, which decides" in reason


@pytest.mark.parametrize("factor", [0.98, 1.0, 1.02])
def test_a_difference_of_up_to_three_percent_is_allowed(
    tmp_path: Path, tile_one: TileOne, spots_at: SpotsAt, factor: float
) -> None:
    slide = tagged(tmp_path / "S1.tif", 0.5 * factor)
    row = tile_one(slide, mpp=None, section=spots_at(hexagons()), scale=SectionScale(0.5, 0.5))
    assert isinstance(row, dict)
    assert row["warnings"] == []


def test_the_tables_um_per_px_decides_and_the_others_are_named(
    tmp_path: Path, tile_one: TileOne, spots_at: SpotsAt
) -> None:
    slide = tagged(tmp_path / "S1.tif", 0.25)
    row = tile_one(slide, mpp=0.5, section=spots_at(hexagons()), scale=SectionScale(0.5, 0.47))
    assert isinstance(row, dict)
    assert (row["mpp"], row["mpp_from"]) == (0.5, "table")
    assert row["warnings"] == [
        "0.5 um/px by the slide table is used, but it has 0.25 by its own file and 0.47 by the distance between its "
        "spots"
    ]


def test_without_a_um_per_px_of_its_own_the_spots_give_it(ellipse: Path, tile_one: TileOne, spots_at: SpotsAt) -> None:
    row = tile_one(ellipse, mpp=None, section=spots_at(hexagons()), scale=SectionScale(0.5, None))
    assert isinstance(row, dict)
    assert (row["mpp"], row["mpp_from"], row["warnings"]) == (0.5, "spots", [])


@pytest.mark.parametrize(("mpp", "is_warned"), [(0.5, False), (0.74, False), (0.76, True), (2.0, True)])
def test_tiles_enlarged_more_than_one_and_a_half_times_get_a_warning(
    ellipse: Path, tile_one: TileOne, mpp: float, *, is_warned: bool
) -> None:
    row = tile_one(ellipse, mpp=mpp)
    assert isinstance(row, dict)
    assert bool(row["warnings"]) == is_warned
    if is_warned:
        assert f"tiles are read at 0.5 um/px and the slide has {mpp:g} um/px" in row["warnings"][0]
        assert f"enlarged {mpp / 0.5:.2g} times" in row["warnings"][0]


def test_a_spot_outside_the_slide_loses_only_that_spot(
    tmp_path: Path, ellipse: Path, tile_one: TileOne, spots_at: SpotsAt
) -> None:
    centres = hexagons()
    centres[7] = -3.0, 300.0
    row = tile_one(ellipse, section=spots_at(centres), scale=SectionScale(0.5, None))
    assert isinstance(row, dict)
    assert (row["tiles"], row["spots_outside"]) == (len(centres) - 1, 1)
    (warning,) = row["warnings"]
    assert warning == (
        f"1 of {len(centres)} spots have their centre outside the slide and no tile: 's7 (x -3.0, y 300.0)'"
    )
    tiles = StoragePath.of(tmp_path / "out" / "tiles" / "S1.parquet").read_table()
    expected = [f"s{number}" for number in range(len(centres)) if number != 7]
    assert tiles["spot"].to_pylist() == expected
    assert tiles["tile"].to_pylist() == list(range(len(expected)))


@pytest.mark.parametrize(
    "turn",
    [
        (lambda pixels: pixels[:, ::-1], "if the picture is mirrored left to right it is 0%"),
        (lambda pixels: pixels[::-1, ::-1], "if the picture is turned by 180 degrees it is 0%"),
        (lambda pixels: np.rot90(pixels, -1), "if the picture is turned by 90 degrees clockwise it is 0%"),
    ],
)
def test_the_picture_of_a_section_must_not_be_turned(
    tmp_path: Path, tile_one: TileOne, spots_at: SpotsAt, turn: tuple[Callable[[np.ndarray], np.ndarray], str]
) -> None:
    picture, cause = turn
    pixels = stain(glass(1200, 1000), (350, 450), (250, 350))
    Image.fromarray(np.ascontiguousarray(picture(pixels))).save(tmp_path / "S1.png")
    section = spots_at(hexagons())
    reason = tile_one(tmp_path / "S1.png", section=section)
    assert isinstance(reason, str)
    assert "spots are on bare glass" in reason
    assert cause in reason
    row = tile_one(tmp_path / "S1.png", section=section, allow_glass=1.0)
    assert isinstance(row, dict)
    assert "spots are on bare glass" in row["warnings"][0]


def test_positions_in_the_pixels_of_a_reduced_picture_are_refused(
    ellipse: Path, tile_one: TileOne, spots_at: SpotsAt
) -> None:
    reason = tile_one(ellipse, section=spots_at(hexagons() * 0.2))
    assert isinstance(reason, str)
    assert "spots are on bare glass" in reason


def test_a_mask_of_the_user_does_not_make_spots_on_tissue_spots_on_glass(
    tmp_path: Path, ellipse: Path, tile_one: TileOne, spots_at: SpotsAt
) -> None:
    corner = [[300, 400], [400, 400], [400, 500], [300, 500], [300, 400]]
    mask = tmp_path / "mask.geojson"
    mask.write_text(f'{{"type": "Polygon", "coordinates": [{corner}]}}')
    row = tile_one(ellipse, section=spots_at(hexagons()), mask=mask)
    assert isinstance(row, dict)
    assert row["warnings"] == []


@pytest.mark.parametrize("frame", ["auto", "level0", "bounds"])
def test_a_written_mask_of_a_slide_with_bounds_gives_the_same_tiles_again(
    tmp_path: Path, tile_one: TileOne, frame: str
) -> None:
    path = write_scn(tmp_path / "S1.scn", stain(glass(1500, 1300), (700, 640), (400, 300)), (3000, 5000))
    first = tile_one(path, mpp=None)
    assert isinstance(first, dict)
    assert first["bounds"] == [3000, 5000, 1500, 1300]
    tiles = StoragePath.of(tmp_path / "out" / "tiles" / "S1.parquet").read_table()
    mask = tmp_path / "mask.geojson"
    mask.write_bytes((tmp_path / "out" / "masks" / "S1.geojson").read_bytes())
    again = tile_one(path, mpp=None, mask=mask, mask_frame=frame)
    if frame == "level0":  # the file starts at the bounds, as QuPath has it
        assert "outside the scanned part of the slide" in str(again)
        return
    assert isinstance(again, dict)
    assert again["tissue"] == pytest.approx(first["tissue"], abs=1e-9)
    assert StoragePath.of(tmp_path / "out" / "tiles" / "S1.parquet").read_table().equals(tiles)
    corner = np.array([tiles["x"].to_numpy().min(), tiles["y"].to_numpy().min()])
    assert (np.abs(corner - (3300, 5340)) < 112).all()


def test_a_section_that_failed_at_spots_gives_that_reason(tmp_path: Path, ellipse: Path) -> None:
    config = TileConfig.of({"slides": "slides.csv", "run": {}})
    row = SlideRow("S1", StoragePath.of(ellipse), "P1", 0.5, "toy", None, None, "S1", None)
    section = StoragePath.of(tmp_path / "none.h5ad")
    reason = tile_slide(TileTask(row, config, StoragePath.of(tmp_path), section, section_failure="no barcode fits"))
    assert reason == "the measured section 'S1' of slide 'S1' is missing in the spots: no barcode fits"
