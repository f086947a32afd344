"""One stored tile's bytes to pixels: each codec, strictly.

In go the bytes of a tile and an array of the tile's size, which is filled; a tile that does not decode to exactly its
size, or not without a warning, is a ValueError that says why. JPEG is decoded by libjpeg-turbo (simplejpeg), 4 times
as fast as OpenSlide hands it over, to the same pixels.

Aperio's tiles are RGB, but their JPEG streams do not say so and would be taken for YCbCr; the tables that all tiles
share lie in the header. Both are put in front of each tile's own stream.
"""

import struct
from collections.abc import Callable

import imagecodecs
import numpy as np
import simplejpeg
from jaxtyping import UInt8
from tifffile import COMPRESSION, PHOTOMETRIC

from raystp.slides.readers.headers import TIFF_FAULTS
from raystp.slides.tiled.levels import Level

Decode = Callable[[memoryview, UInt8[np.ndarray, "height width 3"]], None]
"""Fills an array with the pixels of a tile; raises ValueError."""

_START, _END = b"\xff\xd8", b"\xff\xd9"
_ADOBE = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"
"""Adobe's APP14 segment up to its last byte, the colour transform: 0 for RGB, 1 for YCbCr."""

_HEADER = 1024
"""Bytes of a stream in which its colour markers stand."""

_CODESTREAM = b"\xff\x4f\xff\x51"

_UNPACK: dict[int, Callable[..., bytes | bytearray]] = {
    COMPRESSION.NONE: lambda content, **_: content,
    COMPRESSION.LZW: imagecodecs.lzw_decode,
    COMPRESSION.ADOBE_DEFLATE: imagecodecs.zlib_decode,
    COMPRESSION.DEFLATE: imagecodecs.zlib_decode,
}


def decoder(level: Level) -> Decode:
    """Return what decodes a level's tiles."""
    if level.compression == COMPRESSION.JPEG:
        return _jpeg(level)
    return _jpeg_2000 if level.compression == COMPRESSION.APERIO_JP2000_RGB else _plain(level)


def has_colours(level: Level, content: memoryview) -> bool:
    """Say whether a tile's stream gives the colours that the header of the slide means.

    A stream can insist on its own (a JFIF marker means YCbCr), or subsample them in a way that is not known here.
    """
    if level.compression != COMPRESSION.JPEG:
        return True
    try:
        colours = simplejpeg.decode_jpeg_header(whole_stream(level, content))[2]
    except ValueError:
        return False
    return bool(colours == _colours(level))


def whole_stream(level: Level, content: memoryview) -> bytes:
    """Return a JPEG tile's stream with all that a decoder has to know of it."""
    return b"".join((_front(level), content[2:]))


def _colours(level: Level) -> str:
    return "RGB" if level.photometric == PHOTOMETRIC.RGB else "YCbCr"


def _front(level: Level) -> bytes:
    """Return what is put in front of a level's streams, in the place of their first marker."""
    transform = b"\x00" if level.photometric == PHOTOMETRIC.RGB else b"\x01"
    return _START + _ADOBE + transform + level.tables[len(_START) : -len(_END)]


def _jpeg(level: Level) -> Decode:
    front, wanted = _front(level), (level.tile_height, level.tile_width, _colours(level))
    start, stop, rgb = len(front), len(front) + _HEADER, wanted[2] == "RGB"

    def decode(content: memoryview, pixels: UInt8[np.ndarray, "height width 3"]) -> None:
        if content[:2] != _START:
            msg = f"it begins with {content[:4].hex(' ')}, which is no JPEG stream"
            raise ValueError(msg)
        stream = b"".join((front, content[2:]))
        if (rgb and stream.find(b"JFIF", start, stop) > 0) or stream.find(b"Adobe", start, stop) > 0:
            check(stream)  # it may insist on other colours
        try:
            found = simplejpeg.decode_jpeg(stream, "RGB", buffer=pixels)
        except ValueError:
            check(stream)
            raise
        if found.shape != pixels.shape:
            check(stream)

    def check(stream: bytes) -> None:
        header = simplejpeg.decode_jpeg_header(stream)[:3]
        if header != wanted:
            msg = f"its stream is (rows, columns, colours) {header}, the header of the slide says {wanted}"
            raise ValueError(msg)

    return decode


def _jpeg_2000(content: memoryview, pixels: UInt8[np.ndarray, "height width 3"]) -> None:
    rows, columns = pixels.shape[:2]
    size = struct.pack(">IIII", columns, rows, 0, 0)  # the stream's second marker, SIZ: its extent and offset
    if content[:4] != _CODESTREAM or content[8:24] != size:
        msg = f"it begins with {content[:24].hex()}, no JPEG 2000 stream of {columns} x {rows} px"
        raise ValueError(msg)
    try:
        found = imagecodecs.jpeg2k_decode(bytes(content))
    except TIFF_FAULTS as error:
        raise ValueError(str(error)) from None
    if found.shape != pixels.shape or found.dtype != np.uint8:
        msg = f"its JPEG 2000 stream has shape {found.shape} of {found.dtype}, not {pixels.shape}"
        raise ValueError(msg)
    pixels[:] = found


def _plain(level: Level) -> Decode:
    unpack, size = _UNPACK[level.compression], level.tile_bytes

    def decode(content: memoryview, pixels: UInt8[np.ndarray, "height width 3"]) -> None:
        try:
            found = np.frombuffer(unpack(bytes(content), out=size), np.uint8)
        except TIFF_FAULTS as error:
            raise ValueError(str(error)) from None
        if len(found) < size:
            msg = f"it holds {len(found)} bytes, not {size}"
            raise ValueError(msg)
        stored = found[:size].reshape(pixels.shape)
        if level.predictor == 1:
            pixels[:] = stored
        else:  # each value is stored as its difference from the one to its left
            np.cumsum(stored, axis=1, dtype=np.uint8, out=pixels)

    return decode
