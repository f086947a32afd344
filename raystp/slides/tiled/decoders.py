"""Decode one stored tile, strictly, for each codec.

A decoder fills an array of the tile's size. It raises ValueError with the reason if the tile does not decode to exactly
that size, or only with a warning. JPEG is decoded by libjpeg-turbo (simplejpeg), 4 times as fast as through OpenSlide,
to the same pixels.

Aperio tiles are RGB, but their JPEG streams do not say so and would decode as YCbCr. The JPEG tables that all tiles
share are in the TIFF header. A colour marker and these tables are put before each tile's stream.
"""

import struct
from collections.abc import Callable

import imagecodecs
import numpy as np
import simplejpeg
from jaxtyping import UInt8
from tifffile import COMPRESSION, PHOTOMETRIC

from raystp.slides.readers.headers import TIFF_ERRORS
from raystp.slides.tiled.levels import Level

DecodeTile = Callable[[memoryview, UInt8[np.ndarray, "height width 3"]], None]
"""Fills an array with the pixels of a tile; raises ValueError."""

_START, _END = b"\xff\xd8", b"\xff\xd9"
_ADOBE = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"
"""Adobe's APP14 segment up to its last byte, the colour transform: 0 for RGB, 1 for YCbCr."""

_MARKER_BYTES = 1024
"""Bytes of a stream that are searched for colour markers."""

_CODESTREAM = b"\xff\x4f\xff\x51"

_UNPACK: dict[int, Callable[..., bytes | bytearray]] = {
    COMPRESSION.NONE: lambda content, **_: content,
    COMPRESSION.LZW: imagecodecs.lzw_decode,
    COMPRESSION.ADOBE_DEFLATE: imagecodecs.zlib_decode,
    COMPRESSION.DEFLATE: imagecodecs.zlib_decode,
}


def tile_decoder(level: Level) -> DecodeTile:
    """Return the decoder of a level's tiles."""
    if level.compression == COMPRESSION.JPEG:
        return _jpeg(level)
    return _jpeg_2000 if level.compression == COMPRESSION.APERIO_JP2000_RGB else _plain(level)


def has_expected_colours(level: Level, content: memoryview) -> bool:
    """Return whether a tile's stream has the colour space that the slide's header gives.

    A stream can set its own (a JFIF marker means YCbCr), or have an unsupported subsampling.
    """
    if level.compression != COMPRESSION.JPEG:
        return True
    try:
        colours = simplejpeg.decode_jpeg_header(complete_stream(level, content))[2]
    except ValueError:
        return False
    return bool(colours == _colours(level))


def complete_stream(level: Level, content: memoryview) -> bytes:
    """Return a JPEG tile's stream with the colour marker and the shared tables."""
    return b"".join((_stream_prefix(level), content[2:]))


def _colours(level: Level) -> str:
    return "RGB" if level.photometric == PHOTOMETRIC.RGB else "YCbCr"


def _stream_prefix(level: Level) -> bytes:
    """Return the bytes that replace the first marker of a level's streams."""
    transform = b"\x00" if level.photometric == PHOTOMETRIC.RGB else b"\x01"
    return _START + _ADOBE + transform + level.tables[len(_START) : -len(_END)]


def _jpeg(level: Level) -> DecodeTile:
    prefix, expected = _stream_prefix(level), (level.tile_height, level.tile_width, _colours(level))
    start, stop, is_rgb = len(prefix), len(prefix) + _MARKER_BYTES, expected[2] == "RGB"

    def decode(content: memoryview, pixels: UInt8[np.ndarray, "height width 3"]) -> None:
        if content[:2] != _START:
            msg = f"the tile begins with {content[:4].hex(' ')}, which is not a JPEG stream"
            raise ValueError(msg)
        stream = b"".join((prefix, content[2:]))
        if (is_rgb and stream.find(b"JFIF", start, stop) > 0) or stream.find(b"Adobe", start, stop) > 0:
            check(stream)  # it may set another colour space
        try:
            decoded = simplejpeg.decode_jpeg(stream, "RGB", buffer=pixels)
        except ValueError:
            check(stream)
            raise
        if decoded.shape != pixels.shape:
            check(stream)

    def check(stream: bytes) -> None:
        header = simplejpeg.decode_jpeg_header(stream)[:3]
        if header != expected:
            msg = f"the tile's stream has (rows, columns, colours) {header}, the slide's header gives {expected}"
            raise ValueError(msg)

    return decode


def _jpeg_2000(content: memoryview, pixels: UInt8[np.ndarray, "height width 3"]) -> None:
    rows, columns = pixels.shape[:2]
    size = struct.pack(">IIII", columns, rows, 0, 0)  # the stream's second marker, SIZ: its extent and offset
    if content[:4] != _CODESTREAM or content[8:24] != size:
        msg = f"the tile begins with {content[:24].hex()}, not a JPEG 2000 stream of {columns} x {rows} px"
        raise ValueError(msg)
    try:
        decoded = imagecodecs.jpeg2k_decode(bytes(content))
    except TIFF_ERRORS as error:
        raise ValueError(str(error)) from None
    if decoded.shape != pixels.shape or decoded.dtype != np.uint8:
        msg = f"the tile's JPEG 2000 stream has shape {decoded.shape} of {decoded.dtype}, not {pixels.shape}"
        raise ValueError(msg)
    pixels[:] = decoded


def _plain(level: Level) -> DecodeTile:
    unpack, size = _UNPACK[level.compression], level.tile_bytes

    def decode(content: memoryview, pixels: UInt8[np.ndarray, "height width 3"]) -> None:
        try:
            unpacked = np.frombuffer(unpack(bytes(content), out=size), np.uint8)
        except TIFF_ERRORS as error:
            raise ValueError(str(error)) from None
        if len(unpacked) < size:
            msg = f"the tile holds {len(unpacked)} bytes, not {size}"
            raise ValueError(msg)
        stored = unpacked[:size].reshape(pixels.shape)
        if level.predictor == 1:
            pixels[:] = stored
        else:  # each value is stored as its difference from the one to its left
            np.cumsum(stored, axis=1, dtype=np.uint8, out=pixels)

    return decode
