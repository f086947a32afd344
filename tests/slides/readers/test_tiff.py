"""um/px, pyramids and planes of OME-TIFF and ImageJ, and which directories are levels."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from raystp.errors import SlideError
from raystp.slides.open import Slide, open_slide, read_tiles
from raystp.slides.readers.tiff.lengths import unit_um
from raystp.slides.readers.tiff.ome import MAX_CHARACTERS, read_ome
from raystp.storage import StoragePath
from raystp.units import TilePixels
from tests.slides.object_path import as_object
from tests.slides.tiled.tiled_files import sample_image

IMAGE = sample_image(320, 256)
BOXES = np.array([[x, y, 64.0] for x in (0.0, 130.0, 250.0) for y in (0.0, 70.0, 150.0)])


def halved(pixels: np.ndarray, factor: int) -> np.ndarray:
    return np.ascontiguousarray(pixels[::factor, ::factor])


def shows_the_image(slide: Slide) -> None:
    padded = np.pad(IMAGE, ((0, 64), (0, 64), (0, 0)), constant_values=255)
    for box, tile in zip(BOXES.tolist(), read_tiles(slide, BOXES, TilePixels(64)), strict=True):
        x, y = int(box[0]), int(box[1])
        np.testing.assert_array_equal(tile, padded[y : y + 64, x : x + 64])


def write_pyramid(path: Path, *, planar: bool, metadata: dict[str, Any] | None = None, **options: Any) -> Path:
    """Write an OME-TIFF with two SubIFD levels, RGB or three grey planes."""
    common: dict[str, Any] = {"tile": (64, 64), "compression": "deflate"} | options
    common["photometric"] = "minisblack" if planar else "rgb"

    def stored(factor: int) -> np.ndarray:
        level = halved(IMAGE, factor)
        return np.ascontiguousarray(np.moveaxis(level, -1, 0)) if planar else level

    with tifffile.TiffWriter(path, ome=True) as tiff:
        axes = {"axes": "CYX" if planar else "YXS"}
        tiff.write(stored(1), subifds=2, metadata=axes | (metadata or {}), **common)
        for factor in (2, 4):
            tiff.write(stored(factor), subfiletype=1, **common)
    return path


@pytest.mark.parametrize("remote", [False, True], ids=["local", "remote"])
@pytest.mark.parametrize("compression", ["deflate", "lzw", "jpeg2000", "zstd", None])
@pytest.mark.parametrize("planar", [False, True], ids=["interleaved", "planes"])
def test_an_ome_pyramid_is_read_by_its_levels(
    tmp_path: Path, compression: str | None, *, planar: bool, remote: bool
) -> None:
    size = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    more = {"compressionargs": {"level": 0}} if compression == "jpeg2000" else {}
    path = write_pyramid(tmp_path / "a.ome.tif", planar=planar, metadata=size, compression=compression, **more)
    with open_slide("A1", as_object(path) if remote else StoragePath.of(path)) as slide:
        assert (slide.reader, slide.mpp, slide.mpp_from, slide.own_mpp) == ("tiled", 0.5, "slide", 0.5)
        shows_the_image(slide)
        # A level is read where a tile has four times the pixels: the second one has every fourth pixel.
        coarse = read_tiles(slide, np.array([[0.0, 0.0, 256.0]]), TilePixels(64))[0]
        np.testing.assert_array_equal(coarse, halved(IMAGE, 4)[:64, :64])
        assert ["taken for red, green and blue" in warning for warning in slide.warnings] == [True] * planar


@pytest.mark.parametrize("tiled", [True, False])
@pytest.mark.parametrize("names", [["Red", "Green", "Blue"], ["R", "G", "B"]])
def test_planes_that_are_named_red_green_and_blue_need_no_warning(
    tmp_path: Path, names: list[str], *, tiled: bool
) -> None:
    options: dict[str, Any] = {"tile": (64, 64)} if tiled else {}
    planes = np.ascontiguousarray(np.moveaxis(IMAGE, -1, 0))
    metadata = {"axes": "CYX", "Channel": {"Name": names}}
    tifffile.imwrite(tmp_path / "a.ome.tif", planes, ome=True, photometric="minisblack", metadata=metadata, **options)
    with open_slide("A1", StoragePath.of(tmp_path / "a.ome.tif"), given_mpp=0.5) as slide:
        assert slide.warnings == []
        shows_the_image(slide)


@pytest.mark.parametrize("tiled", [True, False])
def test_three_stains_of_fluorescence_are_not_red_green_and_blue(tmp_path: Path, *, tiled: bool) -> None:
    options: dict[str, Any] = {"tile": (64, 64)} if tiled else {}
    planes = np.ascontiguousarray(np.moveaxis(IMAGE, -1, 0))
    metadata = {"axes": "CYX", "Channel": {"Name": ["DAPI", "FITC", "Cy5"]}}
    tifffile.imwrite(tmp_path / "a.ome.tif", planes, ome=True, photometric="minisblack", metadata=metadata, **options)
    with pytest.raises(SlideError, match="with 3 pictures of 320 x 256 px, a stack and not one image"):
        open_slide("A1", StoragePath.of(tmp_path / "a.ome.tif"), given_mpp=0.5)


UNITS = [("µm", 0.5), ("μm", 0.5), ("um", 0.5), ("micron", 0.5), ("nm", 500.0), ("mm", 0.0005), ("cm", 5e-5)]


@pytest.mark.parametrize(("unit", "size"), UNITS)
@pytest.mark.parametrize("tiled", [True, False])
def test_every_unit_of_ome_is_read(tmp_path: Path, unit: str, size: float, *, tiled: bool) -> None:
    options: dict[str, Any] = {"tile": (64, 64)} if tiled else {}
    names = {"PhysicalSizeX": size, "PhysicalSizeY": size, "PhysicalSizeXUnit": unit, "PhysicalSizeYUnit": unit}
    tifffile.imwrite(tmp_path / "a.ome.tif", IMAGE, photometric="rgb", metadata=names, **options)
    with open_slide("A1", StoragePath.of(tmp_path / "a.ome.tif")) as slide:
        assert slide.mpp == pytest.approx(0.5)


@pytest.mark.parametrize("unit", ["pixel", "reference frame", "parsec", ""])
def test_a_unit_that_is_no_length_gives_no_um_per_px(tmp_path: Path, unit: str) -> None:
    names = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, "PhysicalSizeXUnit": unit, "PhysicalSizeYUnit": unit}
    tifffile.imwrite(tmp_path / "a.ome.tif", IMAGE, photometric="rgb", metadata=names)
    with pytest.raises(SlideError, match="no um/px of its own"):
        open_slide("A1", StoragePath.of(tmp_path / "a.ome.tif"))


IMAGEJ_UNITS = [
    ("um", 2.0),
    ("micron", 2.0),
    ("microns", 2.0),
    (r"\u00B5m", 2.0),
    ("mm", 2000.0),
    ("nm", 0.002),
    ("inch", 50_800.0),
]


@pytest.mark.parametrize(("unit", "resolution"), IMAGEJ_UNITS)
def test_the_unit_of_imagej_is_read(tmp_path: Path, unit: str, resolution: float) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, IMAGE, imagej=True, resolution=(resolution, resolution), metadata={"unit": unit})
    with open_slide("A1", StoragePath.of(path)) as slide:
        assert slide.mpp == pytest.approx(0.5, rel=1e-3)
        assert slide.own_mpp == slide.mpp
    tifffile.imwrite(path, IMAGE, imagej=True, resolution=(2.0, 2.0), metadata={"unit": "pixel"})
    with pytest.raises(SlideError, match="no um/px of its own"):
        open_slide("A1", StoragePath.of(path))


@pytest.mark.parametrize("tiled", [True, False])
def test_resolution_tags_are_read_of_any_tiff(tmp_path: Path, *, tiled: bool) -> None:
    options: dict[str, Any] = {"tile": (64, 64)} if tiled else {}
    for unit, per_unit in (("centimeter", 20_000.0), ("inch", 50_800.0), ("millimeter", 2000.0)):
        path = tmp_path / f"{unit}.tif"
        tifffile.imwrite(path, IMAGE, photometric="rgb", resolution=(per_unit,) * 2, resolutionunit=unit, **options)
        with open_slide("A1", StoragePath.of(path)) as slide:
            assert slide.mpp == pytest.approx(0.5, rel=1e-6)


def test_a_screens_resolution_of_an_untiled_tiff_is_not_its_own_and_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, IMAGE, photometric="rgb", resolution=(72, 72), resolutionunit="inch")
    with pytest.raises(SlideError, match=r"no um/px of its own but a dpi tag, which would be 352\.778 um/px"):
        open_slide("A1", StoragePath.of(path))
    with open_slide("A1", StoragePath.of(path), derived_mpp=0.6) as slide:
        assert (slide.mpp, slide.mpp_from, slide.own_mpp) == (0.6, "spots", None)


def test_ome_and_resolution_tags_that_differ_are_named(tmp_path: Path) -> None:
    path, names = tmp_path / "a.ome.tif", {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    tags: dict[str, Any] = {"resolution": (10_000, 10_000), "resolutionunit": "centimeter"}
    tifffile.imwrite(path, IMAGE, photometric="rgb", metadata=names, **tags)
    with open_slide("A1", StoragePath.of(path)) as slide:
        assert slide.mpp == 0.5
        assert ["gives 0.5 um/px, its resolution tags 1" in warning for warning in slide.warnings] == [True]


EVIL = (
    '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><OME>&b;</OME>',
    "<OME><Image></OME>",
    '<OME><Image><Pixels SizeX="nan" SizeY="1"/></Image></OME>',
    f'<OME><Image><Pixels SizeX="{"9" * 50}" SizeY="1"/></Image></OME>',
)


@pytest.mark.parametrize("xml", EVIL)
@pytest.mark.parametrize("tiled", [True, False])
def test_ome_xml_that_cannot_be_used_is_named_and_the_picture_is_read(tmp_path: Path, xml: str, *, tiled: bool) -> None:
    options: dict[str, Any] = {"tile": (64, 64)} if tiled else {}
    tifffile.imwrite(tmp_path / "a.tif", IMAGE, photometric="rgb", description=xml, metadata=None, **options)
    with open_slide("A1", StoragePath.of(tmp_path / "a.tif"), given_mpp=0.5) as slide:
        shows_the_image(slide)
        assert ["its OME-XML was not used: it" in warning for warning in slide.warnings] == [True]


def test_ome_xml_is_bounded() -> None:
    with pytest.raises(ValueError, match="characters, allowed are"):
        read_ome("<OME>" + " " * MAX_CHARACTERS + "</OME>")
    pixels = '<Pixels SizeX="9" SizeY="9" SizeC="1" SizeZ="{0}"><TiffData IFD="0" PlaneCount="{0}"/></Pixels>'
    (image,) = read_ome(f"<OME><Image>{pixels.format(10**9)}</Image></OME>")
    assert len(image.directories) <= 5000


@pytest.mark.parametrize(
    ("text", "um"),
    [
        ("µm", 1.0),
        ("Âµm", 1.0),
        (" Micrometers ", 1.0),
        ("micrometre", 1.0),
        ("Å", 1e-4),
        ("in", 25_400.0),
        ("px", None),
    ],
)
def test_units_are_read_however_they_are_spelled(text: str, um: float | None) -> None:
    assert unit_um(text) == um


def test_a_folder_is_refused_with_the_file_to_name(tmp_path: Path) -> None:
    for name in ("empty", "dicom", "bare", "images", "scan"):
        (tmp_path / name).mkdir()
    (tmp_path / "dicom" / "1.dcm").write_bytes(b"x")
    (tmp_path / "bare" / "000001").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "images" / "a.svs").write_bytes(b"x")
    (tmp_path / "scan" / "Data0000.dat").write_bytes(b"x")
    (tmp_path / "scan.mrxs").write_bytes(b"x")
    reasons = {
        "empty": "is a folder, which has no files; name one slide file",
        "dicom": r"is a folder of DICOM files; name one file of it, such as 1\.dcm",
        "bare": "is a folder of DICOM files; name one file of it, such as 000001",
        "images": r"is a folder, which has 'a\.svs'; name one slide file",
        "scan": r"is a folder with the data of a MIRAX slide; name the file scan\.mrxs beside it",
    }
    for name, reason in reasons.items():
        with pytest.raises(SlideError, match=rf"slide 'A1' \(.*{name}\) {reason}"):
            open_slide("A1", StoragePath.of(tmp_path / name), given_mpp=0.5)
