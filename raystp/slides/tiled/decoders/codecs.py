"""The codecs of stored tiles besides JPEG: those that give bytes, and those that give pixels; all of imagecodecs.

`out` is the number of bytes, or the array to fill. A stream with another size is refused before it is decoded.
"""

from collections.abc import Callable
from typing import Any

import imagecodecs
from tifffile import COMPRESSION

BYTE_CODECS: dict[int, Callable[..., bytes | bytearray]] = {
    COMPRESSION.NONE: lambda content, **_: content,
    COMPRESSION.LZW: imagecodecs.lzw_decode,
    COMPRESSION.ADOBE_DEFLATE: imagecodecs.zlib_decode,
    COMPRESSION.DEFLATE: imagecodecs.zlib_decode,
    COMPRESSION.PACKBITS: imagecodecs.packbits_decode,
    COMPRESSION.LZMA: imagecodecs.lzma_decode,
    COMPRESSION.ZSTD: imagecodecs.zstd_decode,
    COMPRESSION.ZSTD_DEPRECATED: imagecodecs.zstd_decode,
}

IMAGE_CODECS: dict[int, Callable[..., Any]] = {
    COMPRESSION.APERIO_JP2000_RGB: imagecodecs.jpeg2k_decode,
    COMPRESSION.JPEG_2000_LOSSY: imagecodecs.jpeg2k_decode,
    COMPRESSION.JPEG2000: imagecodecs.jpeg2k_decode,
    COMPRESSION.WEBP: imagecodecs.webp_decode,
    COMPRESSION.WEBP_DEPRECATED: imagecodecs.webp_decode,
    COMPRESSION.JPEGXL: imagecodecs.jpegxl_decode,
    COMPRESSION.JPEGXL_DNG: imagecodecs.jpegxl_decode,
    COMPRESSION.JPEGXR: imagecodecs.jpegxr_decode,
    COMPRESSION.JPEGXR_NDPI: imagecodecs.jpegxr_decode,
    COMPRESSION.PNG: imagecodecs.png_decode,
    COMPRESSION.LERC: imagecodecs.lerc_decode,
}
