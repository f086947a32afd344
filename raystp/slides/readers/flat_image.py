"""Decode flat images (JPEG, PNG, plain TIFF) to one uint8 RGB array, or refuse them with the reason.

Grey, palette and alpha become RGB, with alpha over white. What the header states is checked by `readers.checks`. EXIF
orientation is NOT applied: measured spots are in the frame of the stored pixels. A truncated JPEG is an error; no
decoder used here detects flipped bits inside a JPEG stream.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from jaxtyping import UInt8
from PIL import ExifTags, Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from tifffile import COMPRESSION

from raystp.errors import SlideError
from raystp.slides.readers.checks import SlideFacts
from raystp.slides.readers.headers import TIFF_ERRORS, directories
from raystp.slides.readers.resample import WHITE
from raystp.slides.readers.tiff.picture import choose_picture

MAX_PIXELS = 2**30
"""A flat image is held in memory whole, 3 bytes a px (8 while it is decoded); larger ones need a pyramidal TIFF."""

_PILLOW_ERRORS = (*TIFF_ERRORS, SyntaxError)
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
    facts: SlideFacts
    decode: Callable[[], UInt8[np.ndarray, "row col 3"]]
    """Decode the whole image; raises SlideError."""


def open_image(where: str, path: Path, kind: str) -> FlatImage | None:
    """Return the image in a PNG or JPEG, None for another kind (see `headers.file_kind`); reads only the header.

    Raises:
        SlideError: the image cannot be used as a slide; the message begins with `where`.
    """
    if kind not in _PLUGINS:
        return None
    # The plugin's class is opened directly: Image.open has a process-wide pixel limit, which common sections exceed.
    try:
        with _PLUGINS[kind](path) as image, path.open("rb") as file:
            head = file.read(_PNG_DEPTH_OFFSET + 1)
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            has_end = _END_MARKERS[kind] in file.read()
            facts = _facts_of_image(image, kind.upper(), head[_PNG_DEPTH_OFFSET] if kind == "png" else 8)
    except _PILLOW_ERRORS as error:
        raise _decode_error(where, error) from None
    if not has_end:
        msg = f"{where} is a {kind.upper()} without its end: it was cut off; copy the file again from its source"
        raise SlideError(msg)
    check_memory(where, facts.width, facts.height)

    def decode() -> UInt8[np.ndarray, "row col 3"]:
        try:
            with _PLUGINS[kind](path) as image:
                image.load()
                return np.array(_on_white(image))
        except _PILLOW_ERRORS as error:
            raise _decode_error(where, error) from None

    return FlatImage(facts.width, facts.height, facts, decode)


_COLOURS = {"1": "MINISBLACK", "L": "MINISBLACK", "LA": "MINISBLACK", "P": "PALETTE", "CMYK": "SEPARATED"}
"""The colour model of Pillow's modes; RGB for others that are 8-bit."""


def _facts_of_image(image: Image.Image, kind: str, bits: int) -> SlideFacts:
    width, height = image.size
    dpi = image.info.get("dpi", (0,))[0]
    return SlideFacts(
        kind=kind,
        width=width,
        height=height,
        bits=(max(8, bits),) * len(image.getbands()),  # Pillow scales 1, 2 and 4 bits to 8
        number=f"uint{max(8, bits)}",
        colour=_COLOURS.get(image.mode, "RGB" if image.mode in ("RGB", "RGBA") or bits > 8 else image.mode),  # noqa: PLR2004
        stack=getattr(image, "n_frames", 1),
        orientation=_orientation(image.info.get("exif", b"")),
        dpi_mpp=25_400.0 / dpi if dpi > 0 else None,
    )


def _orientation(content: bytes) -> int:
    """Return the orientation in EXIF metadata; 1 if it has none, or is damaged."""
    exif = Image.Exif()  # getexif() of a PNG decodes all of it
    try:
        exif.load(content)
        found = exif.get(ExifTags.Base.Orientation, 1)
    except _PILLOW_ERRORS:
        return 1
    return found if isinstance(found, int) else 1


def _on_white(image: Image.Image) -> Image.Image:
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    background = Image.new("RGB", image.size, (WHITE, WHITE, WHITE))
    background.paste(rgba, mask=rgba.getchannel("A"))
    return background


def open_tiff(where: str, path: Path, facts: SlideFacts) -> FlatImage:
    """Return the largest picture of a TIFF, which passed the checks, as one image.

    Raises:
        SlideError: its compression cannot be decoded, or it is too large for memory.
    """
    if not is_decodable(facts):
        raise unknown_codec(where, facts)
    check_memory(where, facts.width, facts.height)

    def decode() -> UInt8[np.ndarray, "row col 3"]:
        try:
            with tifffile.TiffFile(path) as tiff:
                images = [_to_rgb(page) for page in choose_picture(directories(tiff)).levels[0]]
        except TIFF_ERRORS as error:
            raise _decode_error(where, error) from None
        return images[0] if len(images) == 1 else np.stack([image[..., 0] for image in images], axis=2)

    return FlatImage(facts.width, facts.height, facts, decode)


def unknown_codec(where: str, facts: SlideFacts) -> SlideError:
    """Return the error for a TIFF in a codec that no reader decodes."""
    return SlideError(
        f"{where} is a TIFF compressed as {facts.compression}, which no reader here decodes; convert it: "
        "`vips tiffsave SLIDE NEW.tif --tile --pyramid --bigtiff --compression jpeg --Q 90`"
    )


def is_decodable(facts: SlideFacts) -> bool:
    """Return whether tifffile decodes the compression of a TIFF to RGB or grey."""
    if facts.compression == COMPRESSION.APERIO_JP2000_YCBC.name:
        return False  # it returns YCbCr
    try:
        return COMPRESSION[facts.compression] in tifffile.TIFF.DECOMPRESSORS
    except KeyError:
        return False


_COLOUR = (tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.YCBCR)


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


def check_memory(where: str, width: int, height: int) -> None:
    """Raise SlideError if an image is too large to be held in memory whole."""
    if width * height > MAX_PIXELS:
        msg = (
            f"{where} is a flat image of {width} x {height} px; flat images are held in memory whole, up to "
            f"{MAX_PIXELS} px; convert it to a pyramidal tiled TIFF (`vips tiffsave --tile --pyramid`)"
        )
        raise SlideError(msg)


def _decode_error(where: str, error: BaseException) -> SlideError:
    return SlideError(f"{where} cannot be decoded: {type(error).__name__}: {str(error).partition(chr(10))[0]}")
