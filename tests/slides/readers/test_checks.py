"""Every check of a slide holds for every reader: `check-reader` in the test's id."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from raystp.errors import SlideError
from raystp.slides.open import Slide, open_slide, read_tiles
from raystp.storage import StoragePath
from raystp.units import TilePixels
from tests.slides.object_path import as_object
from tests.slides.tiled.tiled_files import APERIO, sample_image

WIDTH, HEIGHT = 300, 200
IMAGE = sample_image(WIDTH, HEIGHT)
BOXES = np.array([[x, y, 64.0] for x in (0.0, 130.0, 250.0) for y in (0.0, 70.0, 150.0)])


@dataclass(frozen=True)
class Layout:
    """How a file for one reader is written; `reader` is the one that reads a good file."""

    reader: str
    tiff: dict[str, Any] = field(default_factory=dict)
    is_ome: bool = False
    is_remote: bool = False
    suffix: str = "tif"


TILED: dict[str, Any] = {"tile": (64, 64), "compression": "lzw"}
LAYOUTS = {
    "tiled": Layout("tiled", TILED),
    "tiled_jpeg2000": Layout("tiled", TILED | {"compression": "jpeg2000", "compressionargs": {"level": 0}}),
    "remote": Layout("tiled", TILED, is_remote=True),
    "openslide": Layout("openslide", TILED | {"extrasamples": ["unassalpha"]}),
    "remote_openslide": Layout("openslide", TILED | {"extrasamples": ["unassalpha"]}, is_remote=True),
    "aperio": Layout("tiled", TILED | {"description": APERIO.format(WIDTH, HEIGHT)}),
    "flat": Layout("flat", {"compression": "deflate", "rowsperstrip": 50}),
    "remote_flat": Layout("flat", {"compression": "deflate", "rowsperstrip": 50}, is_remote=True),
    "ome": Layout("tiled", TILED, is_ome=True),
    "ome_flat": Layout("flat", {"compression": "deflate"}, is_ome=True),
    "png": Layout("flat", suffix="png"),
    "jpeg": Layout("flat", suffix="jpg"),
}
TIFFS = [name for name, layout in LAYOUTS.items() if layout.suffix == "tif"]
PLAIN = [name for name in TIFFS if name != "aperio"]


def with_alpha(pixels: np.ndarray, layout: Layout) -> np.ndarray:
    """Add the alpha channel of the layout for OpenSlide, opaque."""
    if "extrasamples" not in layout.tiff or pixels.ndim < 3 or pixels.shape[-1] != 3:
        return pixels
    return np.concatenate([pixels, np.full_like(pixels[..., :1], 127 if pixels.dtype == np.int8 else 255)], axis=-1)


def write(folder: Path, layout: Layout, pictures: list[tuple[np.ndarray, dict[str, Any]]]) -> StoragePath:
    """Write pictures as one file of a layout; the options of each override the layout's."""
    path = folder / f"a.{layout.suffix}"
    if layout.suffix != "tif":
        pixels, options = pictures[0]
        image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
        quality: dict[str, Any] = {"quality": 100, "subsampling": 0} if layout.suffix == "jpg" else {}
        image.save(path, **quality, **options)
        return StoragePath.of(path)
    with tifffile.TiffWriter(path, ome=layout.is_ome) as tiff:
        for pixels, options in pictures:
            common: dict[str, Any] = {"photometric": "rgb", **layout.tiff, **options}
            if common["photometric"] != "rgb" or pixels.ndim < 3 or pixels.shape[-1] < 3:
                common.pop("extrasamples", None)
            common.setdefault("metadata", {} if layout.is_ome else None)
            tiff.write(with_alpha(pixels, layout) if "extrasamples" in common else pixels, **common)
    return as_object(path) if layout.is_remote else StoragePath.of(path)


def refused(path: StoragePath, reason: str, mpp: float | None = 0.5) -> None:
    with pytest.raises(SlideError, match=rf"slide 'A1' \(.*a\.\w+\).*{reason}") as caught:
        open_slide("A1", path, given_mpp=mpp)
    assert "\n" not in str(caught.value)


def shows_the_image(slide: Slide, image: np.ndarray = IMAGE, tolerance: int = 0) -> None:
    """Compare tiles with a picture in the frame in which it was written."""
    padded = np.pad(image, ((0, 64), (0, 64), (0, 0)), constant_values=255).astype(int)
    assert (slide.width, slide.height) == (image.shape[1], image.shape[0])
    for box, tile in zip(BOXES.tolist(), read_tiles(slide, BOXES, TilePixels(64)), strict=True):
        x, y = int(box[0]), int(box[1])
        assert np.abs(tile - padded[y : y + 64, x : x + 64]).max() <= tolerance


def tolerance(layout: str) -> int:
    return 8 if layout == "jpeg" else 0


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_good_file_is_read_without_a_warning(tmp_path: Path, layout: str) -> None:
    with open_slide("A1", write(tmp_path, LAYOUTS[layout], [(IMAGE, {})]), given_mpp=0.5) as slide:
        assert slide.reader == LAYOUTS[layout].reader
        assert slide.warnings == []
        shows_the_image(slide, tolerance=tolerance(layout))


DEPTHS: dict[str, Callable[[], np.ndarray]] = {
    "16_bits": lambda: IMAGE.astype(np.uint16) * 257,
    "12_bits_in_16": lambda: IMAGE.astype(np.uint16) * 16,
    "signed": lambda: (IMAGE.astype(np.int16) - 128).astype(np.int8),
    "float": lambda: IMAGE.astype(np.float32) / 255,
}
NO_JPEG2000 = {"signed", "float"}


@pytest.mark.parametrize("layout", TIFFS)
@pytest.mark.parametrize("check", DEPTHS)
def test_values_that_are_not_8_bits_are_refused(tmp_path: Path, check: str, layout: str) -> None:
    options = (
        {"compression": "lzw", "compressionargs": None} if layout == "tiled_jpeg2000" and check in NO_JPEG2000 else {}
    )
    bits = {"16_bits": 16, "12_bits_in_16": 16, "signed": 8, "float": 32}[check]
    refused(write(tmp_path, LAYOUTS[layout], [(DEPTHS[check](), options)]), f"with {bits} bits, not 8-bit")


def test_16_bits_are_refused_of_a_png(tmp_path: Path) -> None:
    grey = IMAGE[..., 0].astype(np.uint16) * 257
    refused(write(tmp_path, LAYOUTS["png"], [(grey, {})]), "with 16 bits, not 8-bit")


@pytest.mark.parametrize("layout", TIFFS)
def test_four_bits_of_grey_are_refused(tmp_path: Path, layout: str) -> None:
    options: dict[str, Any] = {"compression": None, "compressionargs": None, "photometric": "minisblack"}
    path = write(tmp_path, LAYOUTS[layout], [(IMAGE[..., 0], options)])
    file = tmp_path / "a.tif"
    with tifffile.TiffFile(file, mode="r+") as tiff:
        tiff.pages.first.tags["BitsPerSample"].overwrite(4)
    refused(path, "with 4 bits|damaged")


@pytest.mark.parametrize("layout", TIFFS)
def test_many_channels_are_refused(tmp_path: Path, layout: str) -> None:
    seven = np.concatenate([IMAGE, IMAGE, IMAGE[..., :1]], axis=2)
    options: dict[str, Any] = {"planarconfig": "contig", "extrasamples": None, "photometric": "rgb"}
    if layout == "tiled_jpeg2000":
        options |= {"compression": "lzw", "compressionargs": None}
    if LAYOUTS[layout].is_ome:
        options["metadata"] = {"axes": "YXS"}
    refused(write(tmp_path, LAYOUTS[layout], [(seven, options)]), "7 values a pixel")


@pytest.mark.parametrize("layout", [*TIFFS, "jpeg"])
def test_cmyk_is_refused(tmp_path: Path, layout: str) -> None:
    if layout == "jpeg":
        path = tmp_path / "a.jpg"
        Image.fromarray(IMAGE).convert("CMYK").save(path)
        refused(StoragePath.of(path), "CMYK")
        return
    four = np.concatenate([IMAGE, IMAGE[..., :1]], axis=2)
    options: dict[str, Any] = {"photometric": "separated", "extrasamples": None}
    if LAYOUTS[layout].is_ome:
        options["metadata"] = {"axes": "YXS"}
    refused(write(tmp_path, LAYOUTS[layout], [(four, options)]), "CMYK")


@pytest.mark.parametrize("layout", PLAIN)
@pytest.mark.parametrize("check", ["focal_planes", "grey_channels"])
def test_a_stack_is_refused(tmp_path: Path, check: str, layout: str) -> None:
    grey: dict[str, Any] = {} if check == "focal_planes" else {"photometric": "minisblack"}
    axes: dict[str, Any] = {"metadata": {"axes": "ZYXS" if check == "focal_planes" else "CYX"}}
    planes = [np.roll(IMAGE, shift, axis=1) for shift in range(5)]
    if check == "grey_channels":
        planes = [np.ascontiguousarray(plane[..., 0]) for plane in planes]
    pictures = [(plane, grey) for plane in planes]
    if LAYOUTS[layout].is_ome:
        pictures = [(np.stack(planes), grey | axes)]
    refused(write(tmp_path, LAYOUTS[layout], pictures), r"pictures of 300 x 200 px, a stack and not one image")


@pytest.mark.parametrize("layout", TIFFS)
@pytest.mark.parametrize("tag", range(2, 9))
def test_an_orientation_tag_leaves_the_stored_frame_and_is_named(tmp_path: Path, layout: str, tag: int) -> None:
    options: dict[str, Any] = {"extratags": [(274, 3, 1, tag, True)]}
    with open_slide("A1", write(tmp_path, LAYOUTS[layout], [(IMAGE, options)]), given_mpp=0.5) as slide:
        shows_the_image(slide)
        (warning,) = slide.warnings
        assert f"orientation tag is {tag} and is not applied: coordinates are in the stored pixels" in warning


@pytest.mark.parametrize("layout", ["png", "jpeg"])
@pytest.mark.parametrize("tag", range(2, 9))
def test_exif_leaves_the_stored_frame_and_is_named(tmp_path: Path, layout: str, tag: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = tag
    with open_slide("A1", write(tmp_path, LAYOUTS[layout], [(IMAGE, {"exif": exif})]), given_mpp=0.5) as slide:
        shows_the_image(slide, tolerance=tolerance(layout))
        assert [f"orientation tag is {tag}" in warning for warning in slide.warnings] == [True]


SMALL = np.ascontiguousarray(255 - IMAGE[::4, ::4])
LABEL = np.ascontiguousarray(255 - IMAGE[::3, :90:2])


@pytest.mark.parametrize("layout", PLAIN)
@pytest.mark.parametrize("check", ["thumbnail_first", "label_first", "macro_last", "strips_first"])
def test_the_largest_picture_is_the_slide_and_the_others_are_named(tmp_path: Path, check: str, layout: str) -> None:
    other: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
        "thumbnail_first": (SMALL, {}),
        "label_first": (LABEL, {}),
        "macro_last": (LABEL, {}),
        "strips_first": (SMALL, {"tile": None, "rowsperstrip": 10}),
    }
    large = (IMAGE, {"resolution": (20_000, 20_000), "resolutionunit": "centimeter"})
    pictures = [large, other[check]] if check == "macro_last" else [other[check], large]
    if LAYOUTS[layout].is_ome:
        pictures = [(pixels, options | {"metadata": _half_um(pixels)}) for pixels, options in pictures]
    size = f"{other[check][0].shape[1]} x {other[check][0].shape[0]} px"
    with open_slide("A1", write(tmp_path, LAYOUTS[layout], pictures)) as slide:
        shows_the_image(slide)
        assert slide.mpp == pytest.approx(0.5)
        assert slide.mpp_from == "slide"
        assert [size in warning and "300 x 200 px is the slide" in warning for warning in slide.warnings] == [True]


@pytest.mark.parametrize("layout", ["tiled", "remote", "openslide", "flat", "remote_flat"])
@pytest.mark.parametrize("kind", ["label", "macro"])
def test_a_file_with_no_picture_but_a_label_is_refused(tmp_path: Path, kind: str, layout: str) -> None:
    options = {"description": f"Aperio Image Library v12.0.15\r\n{kind} {WIDTH}x{HEIGHT}", "metadata": None}
    with pytest.raises(SlideError, match="has only a label or a macro image, which may have the patient's name"):
        open_slide("A1", write(tmp_path, LAYOUTS[layout], [(LABEL, options)]), given_mpp=0.5)


def _half_um(pixels: np.ndarray) -> dict[str, Any]:
    """Return OME's um/px: 0.5 for the large picture, 9 for any other."""
    mpp = 0.5 if pixels.shape == IMAGE.shape else 9.0
    return {"PhysicalSizeX": mpp, "PhysicalSizeY": mpp}


def levels(second_mpp: float) -> list[tuple[np.ndarray, dict[str, Any]]]:
    """Return two levels, the first with 0.5 um/px by its tags, and the second with another."""
    half = np.ascontiguousarray(IMAGE[::2, ::2])
    centimetre = {"resolutionunit": "centimeter"}
    return [
        (IMAGE, {"resolution": (20_000, 20_000), **centimetre}),
        (half, {"resolution": (1e4 / second_mpp,) * 2, "subfiletype": 1, **centimetre}),
    ]


@pytest.mark.parametrize("layout", [name for name in PLAIN if not LAYOUTS[name].is_ome])
def test_levels_whose_scale_contradicts_their_size_are_refused_unless_the_table_decides(
    tmp_path: Path, layout: str
) -> None:
    path = write(tmp_path, LAYOUTS[layout], levels(0.25))
    refused(path, r"gives 0\.5 um/px, and 0\.25 for a level 2 times smaller, which should be 1", mpp=None)
    with open_slide("A1", path, given_mpp=0.4) as slide:
        shows_the_image(slide)
        assert [("0.25 for a level 2 times smaller" in warning) for warning in slide.warnings] == [True]


@pytest.mark.parametrize("layout", [name for name in PLAIN if not LAYOUTS[name].is_ome])
@pytest.mark.parametrize("second_mpp", [0.5, 1.0, 1.02])
def test_levels_with_their_own_or_the_slides_um_per_px_are_right(
    tmp_path: Path, layout: str, second_mpp: float
) -> None:
    with open_slide("A1", write(tmp_path, LAYOUTS[layout], levels(second_mpp))) as slide:
        assert slide.mpp == pytest.approx(0.5)
        assert slide.warnings == []


@pytest.mark.parametrize("layout", PLAIN)  # Aperio gives one um/px for both axes
def test_pixels_that_are_not_square_are_refused_or_named(tmp_path: Path, layout: str) -> None:
    options: dict[str, Any] = {"resolution": (20_000, 15_000), "resolutionunit": "centimeter"}
    if LAYOUTS[layout].is_ome:
        options["metadata"] = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.7}
    path = write(tmp_path, LAYOUTS[layout], [(IMAGE, options)])
    refused(path, "its pixels are not square", mpp=None)
    with open_slide("A1", path, given_mpp=0.5) as slide:
        assert ["pixels are not square" in warning for warning in slide.warnings] == [True]


@pytest.mark.parametrize("layout", TIFFS)
@pytest.mark.parametrize("side", ["ImageWidth", "ImageLength"])
def test_a_picture_without_pixels_is_refused(tmp_path: Path, layout: str, side: str) -> None:
    path = write(tmp_path, LAYOUTS[layout], [(IMAGE, {})])
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as tiff:
        tiff.pages.first.tags[side].overwrite(0)
    refused(path, "damaged")


@pytest.mark.parametrize("layout", [*TIFFS, "png", "jpeg"])
def test_grey_is_read_and_named(tmp_path: Path, layout: str) -> None:
    options: dict[str, Any] = {"photometric": "minisblack"} if layout in TIFFS else {}
    path = write(tmp_path, LAYOUTS[layout], [(IMAGE[..., 0], options)])
    with open_slide("A1", path, given_mpp=0.5) as slide:
        shows_the_image(slide, IMAGE[..., :1].repeat(3, axis=2), tolerance(layout))
        assert ["it is grey" in warning for warning in slide.warnings] == [True]
