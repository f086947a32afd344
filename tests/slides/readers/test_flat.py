import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from jaxtyping import UInt8
from PIL import Image

from raystp.errors import SlideError
from raystp.slides.open import open_slide
from raystp.storage import StoragePath
from raystp.units import Level0Pixels, TilePixels

Rgb = UInt8[np.ndarray, "row col 3"]


def pixels(path: Path) -> Rgb:
    """The whole of a flat slide of 32 x 32 px."""
    with open_slide("A1", StoragePath.of(path), given_mpp=0.5) as slide:
        assert type(slide).__name__ == "FlatSlide"
        return slide.read(Level0Pixels(0.0), Level0Pixels(0.0), Level0Pixels(32.0), TilePixels(32))


@pytest.fixture
def rgb() -> Rgb:
    return np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize("mode", ["L", "P", "1"])
def test_grey_and_palette_become_rgb(tmp_path: Path, rgb: Rgb, mode: str) -> None:
    image = Image.fromarray(rgb).convert(mode)
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(pixels(tmp_path / "a.png"), np.asarray(image.convert("RGB")))


def test_transparent_pixels_are_white(tmp_path: Path, rgb: Rgb) -> None:
    alpha = np.full((32, 32, 1), 255, np.uint8)
    alpha[:16] = 0
    Image.fromarray(np.concatenate([rgb, alpha], axis=2)).save(tmp_path / "a.png")
    for kind in ("unassalpha", "assocalpha"):
        stored = np.concatenate([np.where(alpha, rgb, 0), alpha], axis=2).astype(np.uint8)
        tifffile.imwrite(tmp_path / f"{kind}.tif", stored, photometric="rgb", extrasamples=[kind])
    for name in ("a.png", "unassalpha.tif", "assocalpha.tif"):
        tile = pixels(tmp_path / name)
        assert (tile[:16] == 255).all()
        np.testing.assert_array_equal(tile[16:], rgb[16:])


def test_half_transparent_pixels_are_mixed_with_white(tmp_path: Path) -> None:
    straight, multiplied = (100, 50, 0, 51), (20, 10, 0, 51)  # alpha 0.2
    for kind, value in (("unassalpha", straight), ("assocalpha", multiplied)):
        stored = np.broadcast_to(np.array(value, np.uint8), (32, 32, 4))
        tifffile.imwrite(tmp_path / f"{kind}.tif", stored, photometric="rgb", extrasamples=[kind])
        assert pixels(tmp_path / f"{kind}.tif")[0, 0].tolist() == [224, 214, 204]


def test_plain_tiffs_of_every_common_kind_read_equal(tmp_path: Path, rgb: Rgb) -> None:
    grey = rgb[..., 0]
    colormap = np.stack([np.arange(256), np.arange(256)[::-1], np.full(256, 7)]).astype(np.uint16) * 257
    of_palette = np.stack([grey, 255 - grey, np.full_like(grey, 7)], axis=2)
    threefold = grey[..., None].repeat(3, axis=2)
    files: dict[str, tuple[Any, dict[str, Any], Any]] = {
        "strips": (rgb, {"photometric": "rgb"}, rgb),
        "zip": (rgb, {"photometric": "rgb", "compression": "adobe_deflate", "rowsperstrip": 5}, rgb),
        "planar": (np.moveaxis(rgb, 2, 0), {"photometric": "rgb", "planarconfig": "separate"}, rgb),
        "big": (rgb, {"photometric": "rgb", "bigtiff": True}, rgb),
        "motorola": (rgb, {"photometric": "rgb", "byteorder": ">"}, rgb),
        "grey": (grey, {"photometric": "minisblack"}, threefold),
        "inverse": (grey, {"photometric": "miniswhite"}, 255 - threefold),
        "bits": (grey > 99, {"photometric": "minisblack"}, np.where(threefold > 99, 255, 0)),
        "palette": (grey, {"photometric": "palette", "colormap": colormap}, of_palette),
    }
    for name, (stored, options, expected) in files.items():
        tifffile.imwrite(tmp_path / f"{name}.tif", stored, **options)
        np.testing.assert_array_equal(pixels(tmp_path / f"{name}.tif"), expected, err_msg=name)


@pytest.mark.parametrize("stored", ["RGB", "YCbCr"])
def test_jpeg_in_a_plain_tiff_is_rgb(tmp_path: Path, stored: str) -> None:
    pink = np.broadcast_to(np.array([220, 120, 180], np.uint8), (32, 32, 3))
    Image.fromarray(pink).convert(stored).save(tmp_path / "a.tif", compression="jpeg")
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert tifffile.PHOTOMETRIC(tiff.pages.first.photometric).name == stored.upper()
    assert np.abs(pixels(tmp_path / "a.tif").astype(int) - pink).max() <= 3


def test_an_image_that_cannot_be_8_bit_rgb_is_refused_with_the_reason(tmp_path: Path, rgb: Rgb) -> None:
    tifffile.imwrite(tmp_path / "16.tif", rgb.astype(np.uint16), photometric="rgb")
    tifffile.imwrite(tmp_path / "float.tif", rgb.astype(np.float32), photometric="rgb")
    tifffile.imwrite(tmp_path / "stack.tif", np.stack([rgb[..., 0]] * 3), photometric="minisblack")
    tifffile.imwrite(tmp_path / "cmyk.tif", np.zeros((32, 32, 4), np.uint8), photometric="separated")
    Image.fromarray(rgb[..., 0].astype(np.uint16) * 257).save(tmp_path / "16.png")
    Image.fromarray(rgb).convert("CMYK").save(tmp_path / "cmyk.jpg")
    reasons = {"16.tif": "uint16", "float.tif": "float32", "stack.tif": "stack", "cmyk.tif": "SEPARATED"}
    for name, reason in (
        reasons | {"16.png": "PNG of uint16 values with 16 bits, not 8-bit", "cmyk.jpg": "CMYK"}
    ).items():
        with pytest.raises(SlideError, match=rf"slide 'A1' .*{name}.*{reason}.*8-bit RGB"):
            open_slide("A1", StoragePath.of(tmp_path / name), given_mpp=0.5)


@pytest.mark.parametrize("kind", ["jpg", "png", "tif"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.99])
def test_an_image_that_was_cut_off_is_never_a_slide(tmp_path: Path, rgb: Rgb, kind: str, share: float) -> None:
    whole = tmp_path / f"a.{kind}"
    Image.fromarray(rgb).save(whole)
    content = whole.read_bytes()
    whole.write_bytes(content[: int(share * len(content))])
    with pytest.raises(SlideError, match=r"slide 'A1'"):
        open_slide("A1", StoragePath.of(whole), given_mpp=0.5)


def test_a_jpeg_cut_off_before_its_preview_end_mark_fails_at_the_first_read(tmp_path: Path, rgb: Rgb) -> None:
    # A camera's preview holds an end mark of its own, near enough to the end of a small file to hide the cut.
    Image.fromarray(rgb).save(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    preview = b"\xff\xe1" + struct.pack(">H", 10) + b"Exif\x00\x00\xff\xd9"
    (tmp_path / "a.jpg").write_bytes(content[:2] + preview + content[2:-200])
    with pytest.raises(SlideError, match=r"cannot be decoded.*truncated"):
        pixels(tmp_path / "a.jpg")


def test_orientation_tags_do_not_rotate_the_stored_pixels(tmp_path: Path, rgb: Rgb) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.fromarray(rgb).save(tmp_path / "a.png", exif=exif)
    tifffile.imwrite(tmp_path / "a.tif", rgb, photometric="rgb", extratags=[(274, 3, 1, 6, True)])
    np.testing.assert_array_equal(pixels(tmp_path / "a.png"), rgb)
    np.testing.assert_array_equal(pixels(tmp_path / "a.tif"), rgb)


def test_an_image_too_large_for_memory_is_refused_from_its_header(tmp_path: Path, rgb: Rgb) -> None:
    Image.fromarray(rgb).save(tmp_path / "a.png")
    content = bytearray((tmp_path / "a.png").read_bytes())
    content[16:24] = struct.pack(">II", 40_000, 40_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(SlideError, match=r"40000 x 40000 px.*pyramidal tiled TIFF"):
        open_slide("A1", StoragePath.of(tmp_path / "a.png"), given_mpp=0.5)


def test_a_section_beyond_pillows_own_limit_opens_without_a_warning(tmp_path: Path) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    assert limit is not None
    Image.new("1", (20_000, 10_000)).save(tmp_path / "a.png")  # 200 Mpx; Pillow refuses beyond 179
    with open_slide("A1", StoragePath.of(tmp_path / "a.png"), given_mpp=0.5) as slide:
        assert slide.width * slide.height > 2 * limit
    assert limit == Image.MAX_IMAGE_PIXELS
