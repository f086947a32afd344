"""Tissue is found in um: pieces of one size are found on any glass, and within the bounds of a slide that has them."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from raystp.slides.coordinates import Area
from raystp.slides.open import open_slide
from raystp.slides.tissue.area import SEARCH_MPP, SEARCH_PX, scanned_area, tissue_image, um_per_px, whole_area
from raystp.slides.tissue.masks import TissueMask, slide_mask
from raystp.storage import StoragePath
from tests.slides.tissue.glass import glass, stain, write_scn

MPP = 10.0
"""Of the drawn glasses: 25 x 55 mm has 2,500 x 5,500 px."""


def tissue_of(path: Path, mpp: float | None = MPP) -> TissueMask:
    with open_slide("S1", StoragePath.of(path), given_mpp=mpp) as slide:
        area = scanned_area(slide)
        return slide_mask(slide, area, tissue_image(slide, area), None)


def drawn_glass(path: Path, size_mm: tuple[float, float], piece_um: float) -> Path:
    """Write a glass with one round piece of tissue."""
    width, height = (round(side * 1000 / MPP) for side in size_mm)
    radius = piece_um / 2 / MPP
    Image.fromarray(stain(glass(width, height), (width * 0.6, height * 0.7), (radius, radius))).save(
        path, compress_level=1
    )
    return path


@pytest.mark.parametrize("size_mm", [(5, 5), (15, 15), (25, 55), (26, 76)])
@pytest.mark.parametrize("piece_um", [300, 800])
def test_a_small_piece_is_found_with_its_area_on_a_glass_of_any_size(
    tmp_path: Path, size_mm: tuple[float, float], piece_um: float
) -> None:
    tissue = tissue_of(drawn_glass(tmp_path / "S1.png", size_mm, piece_um))
    found_um2 = tissue.share * size_mm[0] * size_mm[1] * 1e6
    assert len(tissue.regions.geoms) == 1
    rim_um = 40.0  # two px of the image on which it is searched, and a pixel of the glass
    assert (piece_um - 20) ** 2 < found_um2 / (np.pi / 4) < (piece_um + 2 * rim_um) ** 2


@pytest.mark.parametrize("size_mm", [(15, 15), (25, 55)])
def test_dust_is_not_tissue_on_a_glass_of_any_size(tmp_path: Path, size_mm: tuple[float, float]) -> None:
    tissue = tissue_of(drawn_glass(tmp_path / "S1.png", size_mm, 30))
    assert tissue.share == 0.0
    assert tissue.smallest_um2 == 10_000


@pytest.mark.parametrize("size_mm", [(15, 15), (25, 55)])
def test_a_hole_of_half_a_mm_stays_a_hole_on_a_glass_of_any_size(tmp_path: Path, size_mm: tuple[float, float]) -> None:
    path = drawn_glass(tmp_path / "S1.png", size_mm, 3000)
    pixels = np.array(Image.open(path))
    row, column = round(pixels.shape[0] * 0.7), round(pixels.shape[1] * 0.6)
    pixels[row - 25 : row + 25, column - 25 : column + 25] = pixels[0, 0]
    Image.fromarray(pixels).save(path)
    (part,) = tissue_of(path).regions.geoms
    (hole,) = part.interiors
    width = hole.bounds[2] - hole.bounds[0]
    assert 40 <= width <= 50


@pytest.mark.parametrize(("size_mm", "expected"), [((3, 5), None), ((25, 55), SEARCH_MPP), ((40, 100), 100_000 / 4096)])
def test_the_image_has_a_fixed_um_per_px_within_limits_of_its_size(
    tmp_path: Path, size_mm: tuple[float, float], expected: float | None
) -> None:
    with open_slide("S1", StoragePath.of(drawn_glass(tmp_path / "S1.png", size_mm, 300)), given_mpp=MPP) as slide:
        area = whole_area(slide)
        image = tissue_image(slide, area)
        assert max(image.shape) <= SEARCH_PX[1]
        if expected is None:
            assert image.shape[:2] == (slide.height, slide.width)  # below 1024 px it is never enlarged
        else:
            assert um_per_px(slide, area, image) == pytest.approx(expected, rel=1e-3)


def test_tissue_is_searched_within_the_bounds_at_their_own_resolution(tmp_path: Path) -> None:
    scan = stain(glass(1500, 1300), (700, 640), (400, 300))
    path = write_scn(tmp_path / "S1.scn", scan, (3000, 5000))
    with open_slide("S1", StoragePath.of(path)) as slide:
        area = scanned_area(slide)
        assert area == Area(3000, 5000, 1500, 1300)
        image = tissue_image(slide, area)
        assert image.shape == (round(1300 * 1024 / 1500), 1024, 3)
        tissue = slide_mask(slide, area, image, None)
    ellipse_px = np.pi * 400 * 300
    assert tissue.share == pytest.approx(ellipse_px / (1500 * 1300), rel=0.05)
    assert tissue.regions.area == pytest.approx(ellipse_px, rel=0.05)
    assert tissue.regions.bounds == pytest.approx((3300, 5340, 4100, 5940), abs=12)


def test_a_damaged_stored_tile_within_the_bounds_is_white_and_named(tmp_path: Path) -> None:
    scan = stain(glass(2000, 1600), (1000.0, 800.0), (700.0, 500.0))
    path = write_scn(tmp_path / "a.scn", scan, (500, 900))
    with tifffile.TiffFile(path) as tiff:
        pages = [page for page in tiff.pages if isinstance(page, tifffile.TiffPage)][1:]
    content = bytearray(path.read_bytes())
    for page in pages:  # of each level the tile in the middle
        column, row = page.imagewidth // page.tilewidth // 2, page.imagelength // page.tilelength // 2
        tile = row * -(-page.imagewidth // page.tilewidth) + column
        start, count = page.dataoffsets[tile], page.databytecounts[tile]
        content[start : start + count] = b"\xa5" * count
    (tmp_path / "b.scn").write_bytes(content)
    with open_slide("A1", StoragePath.of(path)) as slide:
        expected = tissue_image(slide, scanned_area(slide))
        assert slide.damaged == []
    with open_slide("A1", StoragePath.of(tmp_path / "b.scn")) as slide:
        image = tissue_image(slide, scanned_area(slide))
        assert slide.damaged
        assert "cannot be read" in slide.damaged[0].reason
    differs = (image != expected).any(axis=2)
    assert 0.0 < differs.mean() < 0.5
