"""Decode one stored tile to RGB, strictly, for each codec.

A decoder fills an array of the tile's size. It raises ValueError with the reason if the tile does not decode to exactly
that size, or only with a warning. JPEG is decoded by libjpeg-turbo (simplejpeg), 4 times as fast as through OpenSlide,
to the same pixels.

A tile has three values a pixel, or one: grey, which becomes RGB, or a plane of red, green or blue. Then the tile's
content is a tuple of three streams.

Aperio tiles are RGB, but their JPEG streams do not say so and would decode as YCbCr. The JPEG tables that all tiles
share are in the TIFF header. A colour marker and these tables are put before each tile's stream.
"""

from collections.abc import Callable

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from tifffile import COMPRESSION, PHOTOMETRIC

from raystp.slides.readers.headers import TIFF_ERRORS
from raystp.slides.readers.resample import WHITE
from raystp.slides.tiled.decoders.codecs import BYTE_CODECS, IMAGE_CODECS
from raystp.slides.tiled.levels import Level

StoredTile = memoryview | tuple[memoryview, ...]
"""The stream of a tile, or one for each of red, green and blue."""

DecodeTile = Callable[[StoredTile, UInt8[np.ndarray, "height width 3"]], None]
"""Fills an array with the pixels of a tile; raises ValueError."""

_Decode = Callable[[memoryview, UInt8[np.ndarray, "height width sample"]], None]
"""Fills an array with the values of one stream; raises ValueError."""

_START, _END = b"\xff\xd8", b"\xff\xd9"
_ADOBE = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"
"""Adobe's APP14 segment up to its last byte, the colour transform: 0 for RGB, 1 for YCbCr."""

_MARKER_BYTES = 1024
"""Bytes of a stream that are searched for colour markers."""


def tile_decoder(level: Level) -> DecodeTile:
    """Return the decoder of a level's tiles."""
    if level.compression == COMPRESSION.JPEG:
        decode = _jpeg(level)
    else:
        decode = _image(level) if level.compression in IMAGE_CODECS else _plain(level)
    if level.samples == 3:  # noqa: PLR2004 -- colours
        return decode  # type: ignore[return-value]  # such a tile has one stream
    return _from_planes(level, decode)


def _from_planes(level: Level, decode: _Decode) -> DecodeTile:
    """Return a decoder of tiles whose streams have one value a pixel."""
    is_inverse = level.photometric == PHOTOMETRIC.MINISWHITE
    shape = (level.tile_height, level.tile_width, 1)

    def decode_planes(content: StoredTile, pixels: UInt8[np.ndarray, "height width 3"]) -> None:
        streams = content if isinstance(content, tuple) else (content,)
        plane = np.empty(shape, np.uint8)
        for colour, stream in enumerate(streams):
            if stream:
                decode(stream, plane)
            else:
                plane.fill(0 if is_inverse else WHITE)
            target = pixels[..., colour : colour + 1] if len(streams) > 1 else pixels
            target[:] = WHITE - plane if is_inverse else plane

    return decode_planes


def has_expected_colours(level: Level, content: memoryview) -> bool | None:
    """Return whether a tile's stream has the colour space that the slide's header gives; None if it is damaged.

    A stream can set its own (a JFIF marker means YCbCr), or have an unsupported subsampling.
    """
    if level.compression != COMPRESSION.JPEG:
        return True
    try:
        colours = simplejpeg.decode_jpeg_header(complete_stream(level, content))[2]
    except ValueError:
        return None
    return bool(colours == _colours(level))


def complete_stream(level: Level, content: memoryview) -> bytes:
    """Return a JPEG tile's stream with the colour marker and the shared tables."""
    return b"".join((_stream_prefix(level), content[2:]))


def _colours(level: Level) -> str:
    if level.samples == 1:
        return "Gray"
    return "RGB" if level.photometric == PHOTOMETRIC.RGB else "YCbCr"


def _stream_prefix(level: Level) -> bytes:
    """Return the bytes that replace the first marker of a level's streams."""
    if level.samples == 1:
        return _START + level.tables[len(_START) : -len(_END)]
    transform = b"\x00" if level.photometric == PHOTOMETRIC.RGB else b"\x01"
    return _START + _ADOBE + transform + level.tables[len(_START) : -len(_END)]


def _jpeg(level: Level) -> _Decode:
    prefix, expected = _stream_prefix(level), (level.tile_height, level.tile_width, _colours(level))
    start, stop, is_rgb = len(prefix), len(prefix) + _MARKER_BYTES, expected[2] == "RGB"
    space = "GRAY" if level.samples == 1 else "RGB"

    def decode(content: memoryview, pixels: UInt8[np.ndarray, "height width sample"]) -> None:
        if content[:2] != _START:
            msg = f"the tile begins with {content[:4].hex(' ')}, which is not a JPEG stream"
            raise ValueError(msg)
        stream = b"".join((prefix, content[2:]))
        if (is_rgb and stream.find(b"JFIF", start, stop) > 0) or stream.find(b"Adobe", start, stop) > 0:
            check(stream)  # it may set another colour space
        try:
            decoded = simplejpeg.decode_jpeg(stream, space, buffer=pixels)
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


def _image(level: Level) -> _Decode:
    codec = IMAGE_CODECS[level.compression]

    def decode(content: memoryview, pixels: UInt8[np.ndarray, "height width sample"]) -> None:
        target = pixels if pixels.shape[2] > 1 else pixels[..., 0]
        try:
            codec(bytes(content), out=target)
        except TIFF_ERRORS as error:
            raise ValueError(str(error)) from None

    return decode


def _plain(level: Level) -> _Decode:
    unpack, size = BYTE_CODECS[level.compression], level.tile_width * level.tile_height * level.samples

    def decode(content: memoryview, pixels: UInt8[np.ndarray, "height width sample"]) -> None:
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
