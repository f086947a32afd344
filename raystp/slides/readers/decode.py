"""Flat pictures: JPEG, PNG and plain TIFF as one uint8 RGB array, or a sentence that says why not.

Grey, palette and alpha become RGB (alpha over white); 16-bit, CMYK and stacks are refused, for how they map to 8-bit
RGB is not known here. EXIF orientation is NOT applied: measured spots are in the frame of the stored pixels. A JPEG
that was cut off is an error; bits flipped inside its stream are found by no decoder at hand.
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
from raystp.slides.readers.headers import TIFF_FAULTS
from raystp.slides.readers.resample import WHITE

MAX_PIXELS = 2**30
"""A flat picture is held whole, 3 bytes a px (8 while it is decoded); a larger one belongs in a pyramidal TIFF."""

MAX_SAMPLES = 5
"""RGB, alpha and one more; a header that says more is damaged, or no H&E image."""

_PILLOW_FAULTS = (OSError, SyntaxError, ValueError, EOFError)
_PLUGINS = {"jpeg": JpegImageFile, "png": PngImageFile}
_ENDS = {"jpeg": b"\xff\xd9", "png": b"IEND"}
_TAIL = 1 << 16
"""Bytes at a file's end in which its end mark lies; some cameras write notes behind it."""

_PNG_DEPTH_AT = 24


@dataclass(frozen=True)
class DecodedImage:
    """A flat picture that is not decoded yet."""

    width: int
    height: int
    decode: Callable[[], UInt8[np.ndarray, "row col 3"]]
    """Reads all of it; raises SlideError."""


def open_picture(where: str, path: Path, kind: str) -> DecodedImage | None:
    """Return the picture in a file of a kind from `headers.kind`, or None where it is none of the three.

    Reads the header alone. Raises SlideError, naming `where`, for a picture that cannot become a slide.
    """
    if kind in _PLUGINS:
        return _with_pillow(where, path, kind)
    if kind == "tiff":
        return _with_tifffile(where, path)
    return None


def _with_pillow(where: str, path: Path, kind: str) -> DecodedImage:
    # The plugin's class is opened directly: Image.open has a process-wide limit, below the size of a common section.
    try:
        with _PLUGINS[kind](path) as image, path.open("rb") as file:
            (width, height), mode = image.size, image.mode
            head = file.read(_PNG_DEPTH_AT + 1)
            file.seek(max(0, path.stat().st_size - _TAIL))
            ended = _ENDS[kind] in file.read()
    except _PILLOW_FAULTS as error:
        raise _undecodable(where, error) from None
    _check_size(where, width, height)
    if mode == "CMYK" or (kind == "png" and head[_PNG_DEPTH_AT] > 8):  # noqa: PLR2004 -- bits
        msg = f"{where} is a {mode} {kind.upper()} of other than 8-bit grey or RGB; save it as 8-bit RGB"
        raise SlideError(msg)
    if not ended:
        msg = f"{where} is a {kind.upper()} without its end: it was cut off; copy the file again from its source"
        raise SlideError(msg)

    def decode() -> UInt8[np.ndarray, "row col 3"]:
        try:
            with _PLUGINS[kind](path) as image:
                image.load()
                return np.array(_on_white(image))
        except _PILLOW_FAULTS as error:
            raise _undecodable(where, error) from None

    return DecodedImage(width, height, decode)


def _on_white(image: Image.Image) -> Image.Image:
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image.convert("RGB")
    clear = image.convert("RGBA")
    glass = Image.new("RGB", image.size, (WHITE, WHITE, WHITE))
    glass.paste(clear, mask=clear.getchannel("A"))
    return glass


def _with_tifffile(where: str, path: Path) -> DecodedImage:
    try:
        with tifffile.TiffFile(path) as tiff:
            axes, page = tiff.series[0].axes, tiff.pages.first
            width, height = int(page.imagewidth), int(page.imagelength)
            reason = _refusal(page, axes)
    except TIFF_FAULTS as error:
        raise _undecodable(where, error) from None
    if reason is not None:
        msg = f"{where} is a TIFF {reason}; save it as one 8-bit RGB picture"
        raise SlideError(msg)
    _check_size(where, width, height)

    def decode() -> UInt8[np.ndarray, "row col 3"]:
        try:
            with tifffile.TiffFile(path) as tiff:
                return _to_rgb(tiff.pages.first)
        except TIFF_FAULTS as error:
            raise _undecodable(where, error) from None

    return DecodedImage(width, height, decode)


_GREY, _PALETTE = (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.MINISWHITE), (tifffile.PHOTOMETRIC.PALETTE,)
_COLOUR = (tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.YCBCR)


def _refusal(page: tifffile.TiffPage, axes: str) -> str | None:
    """Return what keeps a TIFF from being one 8-bit RGB picture, or None."""
    if page.dtype not in (np.uint8, np.bool_):
        return f"of {page.dtype} values"
    if axes not in ("YX", "YXS", "SYX"):
        return f"with axes {axes}, a stack and not one picture"
    if page.photometric not in (*_GREY, *_PALETTE, *_COLOUR):
        return f"of colour model {tifffile.PHOTOMETRIC(page.photometric).name}"
    if page.samplesperpixel > MAX_SAMPLES:
        return f"with {page.samplesperpixel} values a pixel"
    if page.photometric == tifffile.PHOTOMETRIC.YCBCR and page.compression != tifffile.COMPRESSION.JPEG:
        return "of uncompressed YCbCr"  # tifffile gives its numbers as they are
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
    colours = 3 if page.photometric in _COLOUR else 1
    colour, extra = pixels[..., :colours], pixels[..., colours:]
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        colour = WHITE - colour
    kinds = page.extrasamples
    if extra.shape[-1] and kinds and kinds[0] in (tifffile.EXTRASAMPLE.UNASSALPHA, tifffile.EXTRASAMPLE.ASSOCALPHA):
        colour = _over_white(colour, extra[..., :1], multiplied=kinds[0] == tifffile.EXTRASAMPLE.ASSOCALPHA)
    return np.ascontiguousarray(np.broadcast_to(colour, (*colour.shape[:2], 3)))


def _over_white(
    colour: UInt8[np.ndarray, "row col channel"], alpha: UInt8[np.ndarray, "row col 1"], *, multiplied: bool
) -> UInt8[np.ndarray, "row col channel"]:
    """Return colour on white glass; `multiplied` says that it holds its alpha already, as associated alpha does."""
    cover = alpha.astype(np.float32) / WHITE
    own = colour.astype(np.float32) * (1.0 if multiplied else cover)
    return np.clip(np.rint(own + WHITE * (1.0 - cover)), 0, WHITE).astype(np.uint8)


def _check_size(where: str, width: int, height: int) -> None:
    if min(width, height) < 1:
        msg = f"{where} says that it is {width} x {height} px: a damaged header"
        raise SlideError(msg)
    if width * height > MAX_PIXELS:
        msg = (
            f"{where} is a flat picture of {width} x {height} px, it would be held whole in memory and at most "
            f"{MAX_PIXELS} px are; convert it to a pyramidal tiled TIFF (`vips tiffsave --tile --pyramid`)"
        )
        raise SlideError(msg)


def _undecodable(where: str, error: BaseException) -> SlideError:
    return SlideError(f"{where} cannot be decoded: {type(error).__name__}: {str(error).partition(chr(10))[0]}")
