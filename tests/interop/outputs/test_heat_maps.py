"""OME-Zarr and OME-TIFF are read back by readers written from the formats' descriptions, not from raystp."""

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from raystp.errors import FormatError
from raystp.interop.outputs import ometiff, omezarr
from raystp.interop.outputs.raster import raster_of
from raystp.interop.outputs.slide import OutputOptions, SlideExpression
from raystp.storage import StoragePath
from tests.interop.outputs.toy import COLUMNS, GENES, ROWS, contents, of_tiles, toy_slide


@dataclass(frozen=True)
class ReadMap:
    """What a viewer finds: channels, values and the place of the first px's centre in um."""

    genes: list[str]
    values: np.ndarray
    step_um: tuple[float, float]
    first_um: tuple[float, float]


def read_omezarr(path: Path) -> ReadMap:
    new = (path / "zarr.json").exists()
    stated = json.loads((path / ("zarr.json" if new else ".zattrs")).read_text())
    ome = stated["attributes"]["ome"] if new else stated
    (image,) = ome["multiscales"]
    assert [axis["name"] for axis in image["axes"]] == ["c", "y", "x"]
    assert [axis.get("unit") for axis in image["axes"]] == [None, "micrometer", "micrometer"]
    (level,) = image["datasets"]
    scale, translation = level["coordinateTransformations"]
    assert (scale["type"], translation["type"]) == ("scale", "translation")
    values = zarr.open_array(path / level["path"], mode="r", zarr_format=3 if new else 2)
    assert np.isnan(values.fill_value)
    (_, sy, sx), (_, y, x) = scale["scale"], translation["translation"]
    genes = [channel["label"] for channel in ome["omero"]["channels"]]
    return ReadMap(genes, np.asarray(values[:]), (sx, sy), (x, y))


def read_ometiff(path: Path) -> ReadMap:
    with tifffile.TiffFile(path) as file:
        assert file.is_ome
        values, text = file.asarray(), file.ome_metadata
    assert text is not None
    spaces = {"ome": "http://www.openmicroscopy.org/Schemas/OME/2016-06"}
    pixels = ET.fromstring(text).find(".//ome:Pixels", spaces)
    assert pixels is not None
    channels = [one.attrib["Name"] for one in pixels.findall("ome:Channel", spaces)]
    plane = pixels.find("ome:Plane", spaces)
    assert plane is not None
    assert pixels.attrib["PhysicalSizeXUnit"] == plane.attrib["PositionXUnit"] == "µm"
    step = float(pixels.attrib["PhysicalSizeX"]), float(pixels.attrib["PhysicalSizeY"])
    return ReadMap(channels, values, step, (float(plane.attrib["PositionX"]), float(plane.attrib["PositionY"])))


def written(slide: SlideExpression, folder: Path, form: str) -> ReadMap:
    target, ngff = StoragePath.of(folder), OutputOptions(ngff="0.5" if form == "0.5" else "0.4")
    if form == "tiff":
        ometiff.write(slide, target, ngff)
        return read_ometiff(folder / f"{slide.slide}.ome.tif")
    omezarr.write(slide, target, ngff)
    return read_omezarr(folder / f"{slide.slide}.ome.zarr")


FORMS = ["0.4", "0.5", "tiff"]


@pytest.mark.parametrize("form", FORMS)
def test_each_px_is_a_tile_and_the_first_is_placed_by_its_centre(tmp_path: Path, form: str) -> None:
    found = written(toy_slide(), tmp_path, form)
    assert found.genes == list(GENES)
    assert found.values.shape == (3, ROWS, COLUMNS)
    assert found.values.dtype == np.float32
    assert found.values[0].ravel().tolist() == list(range(ROWS * COLUMNS))
    assert found.values[2, :, 0].tolist() == [0, 1, 2, 3]
    assert np.isnan(found.values[1, 0, 3])  # GNAS of tile 3 has no prediction
    assert found.step_um == pytest.approx((100.0, 100.0))
    assert found.first_um == pytest.approx((100.0, 200.0))  # centre (200, 400) px at .5 um/px


@pytest.mark.parametrize("form", FORMS)
def test_a_px_without_a_tile_has_no_value(tmp_path: Path, form: str) -> None:
    whole = toy_slide()
    kept = np.delete(np.arange(len(whole.boxes)), 6)
    found = written(of_tiles(whole, kept), tmp_path, form)
    assert np.isnan(found.values[0, 1, 1])
    assert np.nansum(found.values[0]) == sum(kept)


@pytest.mark.parametrize("form", FORMS)
def test_two_exports_are_identical(tmp_path: Path, form: str) -> None:
    for name in ("a", "b"):
        written(toy_slide(), tmp_path / name, form)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.parametrize("form", FORMS)
def test_genes_drawn_in_blocks_equal_those_drawn_at_once(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(toy_slide(), tmp_path / "once", form)
    monkeypatch.setattr("raystp.interop.outputs.heatmap.BLOCK_BYTES", 1)
    written(toy_slide(), tmp_path / "blocks", form)
    assert contents(tmp_path / "once") == contents(tmp_path / "blocks")


def test_a_map_wider_than_a_block_of_the_tiff_keeps_its_places(tmp_path: Path) -> None:
    whole = toy_slide()
    boxes = whole.boxes.copy()
    boxes[-1, 0] += 400 * 200.0
    found = written(replace(whole, boxes=boxes), tmp_path, "tiff")
    assert found.values.shape == (3, ROWS, COLUMNS + 400)
    assert found.values[0, 3, 404] == 19


def staggered(boxes: np.ndarray) -> np.ndarray:
    """Return the hexagonal places of Visium: every other row is shifted by half a pitch."""
    moved = boxes.copy()
    row = (boxes[:, 1] - boxes[0, 1]) / 200
    moved[:, 0] += np.where(row % 2, 100.0, 0.0)
    moved[:, 1] = boxes[0, 1] + row * 200 * np.sqrt(3) / 2
    return moved


def scattered(boxes: np.ndarray) -> np.ndarray:
    """Return places that start at a corner of their own, as those of CLAM."""
    return boxes + np.where(np.arange(len(boxes)) < 9, 0.0, 1.0)[:, None] * (37.0, 61.0, 0.0)


@pytest.mark.parametrize("move", [staggered, scattered])
def test_places_off_a_lattice_show_the_nearest_within_half_a_pitch_and_say_so(
    tmp_path: Path, move: Callable[[np.ndarray], np.ndarray]
) -> None:
    slide = replace(toy_slide(), boxes=move(toy_slide().boxes))
    assert len(ometiff.write(slide, StoragePath.of(tmp_path), OutputOptions())) == 1
    found = read_ometiff(tmp_path / "S1.ome.tif")
    with tifffile.TiffFile(tmp_path / "S1.ome.tif") as file:
        assert "not on a square lattice" in str(file.ome_metadata)
    assert set(found.values[0][np.isfinite(found.values[0])].tolist()) == set(range(20))  # no place is lost
    pitch = found.step_um[0] * 2
    centres = slide.centres * slide.mpp
    for row, column in np.ndindex(found.values.shape[1:]):
        place = np.asarray(found.first_um) + np.asarray([column, row]) * found.step_um
        distance = np.hypot(*(centres - place).T)
        shown = found.values[0, row, column]
        if np.isnan(shown):
            assert distance.min() > pitch / 2 - 1e-6
        else:
            assert distance[int(shown)] == pytest.approx(distance.min())


def test_corners_rounded_to_whole_px_are_on_a_lattice_however_wide_it_is() -> None:
    side = 112 / 0.2277
    column, row = np.meshgrid(np.arange(300), np.arange(40))
    corners = np.rint(np.column_stack([column.ravel(), row.ravel()]) * side)
    kept = np.random.default_rng(0).random(len(corners)) < 0.7
    boxes = np.column_stack([corners, np.full(len(corners), side)])[kept]
    raster = raster_of(boxes, "S1")
    assert raster.tile.shape == (40, 300)
    assert raster.step == pytest.approx(side, rel=1e-4)
    rows, columns = np.nonzero(raster.tile >= 0)
    np.testing.assert_array_equal(np.sort(raster.tile[rows, columns]), np.arange(kept.sum()))
    place = np.asarray(raster.first) + np.column_stack([columns, rows]) * raster.step
    assert np.abs(place - (boxes[:, :2] + side / 2)[raster.tile[rows, columns]]).max() < 1


def test_a_single_tile_is_a_map_of_one_px() -> None:
    raster = raster_of(np.asarray([[100.0, 300.0, 200.0]]), "S1")
    assert raster.tile.tolist() == [[0]]
    assert (raster.first, raster.step) == ((200.0, 400.0), 200.0)


def test_a_slide_without_tiles_has_no_map() -> None:
    with pytest.raises(FormatError, match="slide 'S1' has no tile"):
        raster_of(np.empty((0, 3)), "S1")


def test_places_too_close_to_each_other_are_refused_before_memory_is_taken() -> None:
    boxes = np.asarray([[0.0, 0.0, 1.0], [0.01, 0.0, 1.0], [1e5, 1e5, 1.0], [1e5, 1e5 + 0.01, 1.0]])
    with pytest.raises(FormatError, match="100000000 are allowed"):
        raster_of(boxes, "S1")
