"""Every public test slide behaves as the data's README says: good ones are read, bad ones fail with one message."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raystp.errors import SlideError
from raystp.slides.coordinates import Area, TileGeometry, grid_boxes
from raystp.slides.open import open_slide, read_around, read_tiles
from raystp.slides.tissue.detect import detect_tissue
from raystp.slides.tissue.quality import sharpness
from raystp.slides.tissue.regions import outline, share_under
from raystp.storage import StoragePath
from raystp.units import Level0Pixels, Microns, TilePixels

GOOD = {
    "CMU-1-Small-Region.svs": (2220, 2967),
    "small.svs": (16, 16),
    "boxes_0.dcm": (16, 16),
    "boxes_1.dcm": (16, 16),
}


@pytest.mark.parametrize("name", list(GOOD))
def test_a_good_slide_reads_whole_and_in_parts(wsi: Path, name: str) -> None:
    with open_slide("A1", StoragePath.of(wsi / name)) as slide:
        assert (slide.width, slide.height, slide.mpp, slide.mpp_from) == (*GOOD[name], 0.499, "slide")
        thumbnail = slide.thumbnail(1024)
        assert max(thumbnail.shape) == min(1024, max(GOOD[name]))
        middle = Level0Pixels(slide.width / 2), Level0Pixels(slide.height / 2)
        tile = read_around(slide, *middle, tile_um=Microns(8.0), tile_px=TilePixels(16))
        assert tile.shape == (16, 16, 3)
        assert tile.std() > 0
        assert detect_tissue(thumbnail, 0.499 * slide.height / thumbnail.shape[0]).mask.shape == thumbnail.shape[:2]


def test_the_real_scan_is_tiled_over_its_tissue(wsi: Path) -> None:
    with open_slide("A1", StoragePath.of(wsi / "CMU-1-Small-Region.svs")) as slide:
        area = Area(0, 0, slide.width, slide.height)
        thumbnail = slide.thumbnail(1024)
        mask = detect_tissue(thumbnail, 0.499 * slide.height / 1024).mask
        geometry = TileGeometry(Microns(112.0), TilePixels(224), slide.mpp)
        boxes = grid_boxes(mask, geometry, area, stride=None, min_tissue=0.5)
        everywhere = grid_boxes(mask, geometry, area, stride=None, min_tissue=0.0)
        assert len(everywhere) == 10 * 14
        exact = share_under(outline(mask, area), everywhere)
        np.testing.assert_array_equal(everywhere[exact >= 0.5 - 1e-9], boxes)
        assert 45 <= len(boxes) <= 55
        tiles = read_tiles(slide, boxes, TilePixels(224))
        brightness = tiles.mean(axis=(1, 2, 3))
        assert brightness.max() < 230  # glass is 244
        sharp = sharpness(slide, boxes, 5)
        assert sharp is not None
        assert sharp > 100


@pytest.mark.parametrize(
    ("name", "reason"),
    [("broken.svs", "unknown to OpenSlide"), ("unopenable.tiff", "is a TIFF compressed as 52479.*vips tiffsave")],
)
def test_a_slide_that_does_not_open_fails_with_the_reason(wsi: Path, name: str, reason: str) -> None:
    with pytest.raises(SlideError, match=reason) as caught:
        open_slide("A1", StoragePath.of(wsi / name), given_mpp=0.5)
    assert f"slide 'A1' ({wsi / name})" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_slide_that_opens_and_cannot_be_read_fails_at_its_thumbnail_and_at_a_tile(wsi: Path) -> None:
    with open_slide("A1", StoragePath.of(wsi / "unreadable.svs")) as slide:
        with pytest.raises(SlideError, match=r"unreadable\.svs\) cannot be read at x 0, y 0") as caught:
            slide.thumbnail(1024)
        assert "\n" not in str(caught.value)
        with pytest.raises(SlideError, match=r"tile 0 .*cannot be read at x 0, y 0"):
            read_tiles(slide, np.array([[0.0, 0.0, 16.0]]), TilePixels(16))


def test_a_wrong_dpi_tag_is_refused_and_the_tables_mpp_replaces_it(wsi: Path) -> None:
    path = StoragePath.of(wsi / "boxes.tiff")
    with pytest.raises(SlideError, match=r"boxes\.tiff.*352\.778 um/px.*column `mpp`"):
        open_slide("A1", path)
    with open_slide("A1", path, given_mpp=0.5) as slide, Image.open(wsi / "boxes.png") as png:
        np.testing.assert_array_equal(slide.thumbnail(1024), np.asarray(png.convert("RGB")))
