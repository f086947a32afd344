"""Decode flat images (JPEG, PNG, plain TIFF) to one uint8 RGB array, or refuse them with the reason.

Grey, palette and alpha become RGB, with alpha over white. 16-bit images, CMYK and stacks are refused: their mapping to
8-bit RGB is not known here. EXIF orientation is NOT applied: measured spots are in the frame of the stored pixels. A
truncated JPEG is an error; no decoder used here detects flipped bits inside a JPEG stream.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from jaxtyping import UInt8
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from raystp.errors import SlideError
from raystp.slides.readers.headers import TIFF_ERRORS
from raystp.slides.readers.resample import WHITE

MAX_PIXELS = 2**30
"""A flat image is held in memory whole, 3 bytes a px (8 while it is decoded); larger ones need a pyramidal TIFF."""

MAX_SAMPLES = 5
"""RGB, alpha and one more; a header with more is damaged, or not of an H&E image."""

_PILLOW_ERRORS = (OSError, SyntaxError, ValueError, EOFError)
_PLUGINS = {"jpeg": JpegImageFile, "png": PngImageFile}
_END_MARKERS = {"jpeg": b"\xff\xd9", "png": b"IEND"}
_TAIL_BYTES = 1 << 16
"""Bytes at a file's end that must contain its end marker; some cameras write metadata after it."""

_PNG_DEPTH_OFFSET = 24


@dataclass(frozen=True)
class FlatImage:
    """A flat image file: its size, and a function that decodes it."""

    width: int
    height: int
    decode: Callable[[], UInt8[np.ndarray, "row col 3"]]
    """Decode the whole image; raises SlideError."""


def open_image(where: str, path: Path, kind: str) -> FlatImage | None:
    """Return the image in a file of `kind` (see `headers.file_kind`), or None for `other`; reads only the header.

    Raises:
        SlideError: the image cannot be used as a slide; the message begins with `where`.
    """
    if kind in _PLUGINS:
        return _with_pillow(where, path, kind)
    if kind == "tiff":
        return _with_tifffile(where, path)
    return None


def _with_pillow(where: str, path: Path, kind: str) -> FlatImage:
    # The plugin's class is opened directly: Image.open has a process-wide pixel limit, which common sections exceed.
    try:
        with _PLUGINS[kind](path) as image, path.open("rb") as file:
            (width, height), mode = image.size, image.mode
            head = file.read(_PNG_DEPTH_OFFSET + 1)
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            has_end = _END_MARKERS[kind] in file.read()
    except _PILLOW_ERRORS as error:
        raise _decode_error(where, error) from None
    _check_size(where, width, height)
    if mode == "CMYK" or (kind == "png" and head[_PNG_DEPTH_OFFSET] > 8):  # noqa: PLR2004 -- bits
        msg = f"{where} is a {mode} {kind.upper()}, not 8-bit grey or RGB; save it as 8-bit RGB"
        raise SlideError(msg)
    if not has_end:
        msg = f"{where} is a {kind.upper()} without its end: it was cut off; copy the file again from its source"
        raise SlideError(msg)

    def decode() -> UInt8[np.ndarray, "row col 3"]:
        try:
            with _PLUGINS[kind](path) as image:
                image.load()
                return np.array(_on_white(image))
        except _PILLOW_ERRORS as error:
            raise _decode_error(where, error) from None

    return FlatImage(width, height, decode)


def _on_white(image: Image.Image) -> Image.Image:
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    background = Image.new("RGB", image.size, (WHITE, WHITE, WHITE))
    background.paste(rgba, mask=rgba.getchannel("A"))
    return background


def _with_tifffile(where: str, path: Path) -> FlatImage:
    try:
        with tifffile.TiffFile(path) as tiff:
            axes, page = tiff.series[0].axes, tiff.pages.first
            width, height = int(page.imagewidth), int(page.imagelength)
            reason = _unsupported(page, axes)
    except TIFF_ERRORS as error:
        raise _decode_error(where, error) from None
    if reason is not None:
        msg = f"{where} is a TIFF {reason}; save it as one 8-bit RGB image"
        raise SlideError(msg)
    _check_size(where, width, height)

    def decode() -> UInt8[np.ndarray, "row col 3"]:
        try:
            with tifffile.TiffFile(path) as tiff:
                return _to_rgb(tiff.pages.first)
        except TIFF_ERRORS as error:
            raise _decode_error(where, error) from None

    return FlatImage(width, height, decode)


_GREY, _PALETTE = (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.MINISWHITE), (tifffile.PHOTOMETRIC.PALETTE,)
_COLOUR = (tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.YCBCR)


def _unsupported(page: tifffile.TiffPage, axes: str) -> str | None:
    """Return why a TIFF is not one 8-bit RGB image, or None."""
    if page.dtype not in (np.uint8, np.bool_):
        return f"of {page.dtype} values"
    if axes not in ("YX", "YXS", "SYX"):
        return f"with axes {axes}, a stack and not one image"
    if page.photometric not in (*_GREY, *_PALETTE, *_COLOUR):
        return f"of colour model {tifffile.PHOTOMETRIC(page.photometric).name}"
    if page.samplesperpixel > MAX_SAMPLES:
        return f"with {page.samplesperpixel} values a pixel"
    if page.photometric == tifffile.PHOTOMETRIC.YCBCR and page.compression != tifffile.COMPRESSION.JPEG:
        return "of uncompressed YCbCr"  # tifffile returns its values unconverted
    return None


def _to_rgb(page: tifffile.TiffPage) -> UInt8[np.ndarray, "row col 3"]:
    pixels = page.asarray()
    if page.colormap is not None:
        return np.ascontiguousarray((page.colormap >> 8).astype(np.uint8).T[pixels])
    if pixels.ndim == 3 and page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:  # noqa: PLR2004 -- axes
        pixels = np.moveaxis(pixels, 0, -1)
    pixels = np.atleast_3d(pixels)
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * np.uint8(WHITE)
    channels = 3 if page.photometric in _COLOUR else 1
    colour, extra = pixels[..., :channels], pixels[..., channels:]
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        colour = WHITE - colour
    kinds = page.extrasamples
    if extra.shape[-1] and kinds and kinds[0] in (tifffile.EXTRASAMPLE.UNASSALPHA, tifffile.EXTRASAMPLE.ASSOCALPHA):
        colour = _over_white(colour, extra[..., :1], premultiplied=kinds[0] == tifffile.EXTRASAMPLE.ASSOCALPHA)
    return np.ascontiguousarray(np.broadcast_to(colour, (*colour.shape[:2], 3)))


def _over_white(
    colour: UInt8[np.ndarray, "row col channel"], alpha: UInt8[np.ndarray, "row col 1"], *, premultiplied: bool
) -> UInt8[np.ndarray, "row col channel"]:
    """Return colour over a white background; associated alpha is `premultiplied`."""
    cover = alpha.astype(np.float32) / WHITE
    own = colour.astype(np.float32) * (1.0 if premultiplied else cover)
    return np.clip(np.rint(own + WHITE * (1.0 - cover)), 0, WHITE).astype(np.uint8)


def _check_size(where: str, width: int, height: int) -> None:
    if min(width, height) < 1:
        msg = f"{where} has a damaged header: its size is {width} x {height} px"
        raise SlideError(msg)
    if width * height > MAX_PIXELS:
        msg = (
            f"{where} is a flat image of {width} x {height} px; flat images are held in memory whole, up to "
            f"{MAX_PIXELS} px; convert it to a pyramidal tiled TIFF (`vips tiffsave --tile --pyramid`)"
        )
        raise SlideError(msg)


def _decode_error(where: str, error: BaseException) -> SlideError:
    return SlideError(f"{where} cannot be decoded: {type(error).__name__}: {str(error).partition(chr(10))[0]}")
