"""What a TIFF states about its picture, for the checks of `readers.checks`, and its stored tiles without bytes."""

import numpy as np
import tifffile
from jaxtyping import Float64
from tifffile import COMPRESSION, PHOTOMETRIC, SAMPLEFORMAT

from raystp.slides.readers.checks import SlideFacts
from raystp.slides.readers.tiff.lengths import resolution_mpp
from raystp.slides.readers.tiff.picture import Picture
from raystp.units import is_plausible


def facts_of_tiff(picture: Picture) -> SlideFacts:
    """Return what the directories of a TIFF state about its picture."""
    first = picture.first
    is_planar = len(picture.levels[0]) > 1
    orientation = _tag(first, "Orientation", 1)
    return SlideFacts(
        kind="TIFF",
        width=first.imagewidth,
        height=first.imagelength,
        bits=_bits(first) * len(picture.levels[0]),
        number=str(first.dtype) if first.dtype is not None else _number(first),
        colour="RGB" if is_planar else _name(PHOTOMETRIC, first.photometric),
        compression=compression_name(first),
        stack=picture.stack,
        orientation=orientation if isinstance(orientation, int) else 1,
        others=picture.others,
        mpp=picture.mpp,
        level_mpp=tuple(_level_mpp(picture)),
        unnamed_planes=is_planar and picture.ome is not None and not picture.ome.is_named_rgb,
        notes=picture.warnings,
    )


def compression_name(page: tifffile.TiffPage) -> str:
    """Return the name of a directory's compression, or its number if it has no name."""
    return _name(COMPRESSION, page.compression)


def empty_tiles(page: tifffile.TiffPage) -> Float64[np.ndarray, "region 4"]:
    """Return the stored tiles of a directory without bytes as (x, y, width, height) in its pixels."""
    if not page.is_tiled:
        return np.empty((0, 4))
    across, down = -(-page.imagewidth // page.tilewidth), -(-page.imagelength // page.tilelength)
    tiles = np.flatnonzero(np.array(page.databytecounts[: across * down], np.int64) == 0)
    x, y = tiles % across * page.tilewidth, tiles // across * page.tilelength
    width, height = np.minimum(page.tilewidth, page.imagewidth - x), np.minimum(page.tilelength, page.imagelength - y)
    return np.stack([x, y, width, height], axis=1).astype(np.float64)


def _level_mpp(picture: Picture) -> list[tuple[float, float]]:
    """Return the downsample and the um/px along x of each coarser level that gives a plausible one."""
    found: list[tuple[float, float]] = []
    if picture.mpp != resolution_mpp(picture.first):
        return []  # OME-XML gives it once for all levels
    for level in picture.levels[1:]:
        mpp = resolution_mpp(level[0])
        if mpp is not None and is_plausible(mpp[0]):
            found.append((picture.first.imagewidth / level[0].imagewidth, mpp[0]))
    return found


def _bits(page: tifffile.TiffPage) -> tuple[int, ...]:
    bits = _tag(page, "BitsPerSample", page.bitspersample)
    if isinstance(bits, tuple) and len(bits) == page.samplesperpixel and all(isinstance(one, int) for one in bits):
        return bits
    return (page.bitspersample,) * page.samplesperpixel


def _number(page: tifffile.TiffPage) -> str:
    return f"{_name(SAMPLEFORMAT, page.sampleformat).lower()}{page.bitspersample}"


def _tag(page: tifffile.TiffPage, name: str, default: object) -> object:
    return page.tags[name].value if name in page.tags else default


def _name(kind: type[COMPRESSION | PHOTOMETRIC | SAMPLEFORMAT], value: int) -> str:
    try:
        return kind(value).name
    except ValueError:
        return str(value)
