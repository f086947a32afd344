"""Heat maps as OME-TIFF `<slide>.ome.tif`: a float32 channel per gene, one px per tile, NaN where no tile is.

`PhysicalSizeX` and `PhysicalSizeY` are the step of the tiles in um. `PositionX` and `PositionY` of each plane are the
centre of its first px in um from the slide's corner.
"""

import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from jaxtyping import Float32

from raystp.interop.outputs.folders import json_text
from raystp.interop.outputs.heatmap import COLOURS, HeatMap
from raystp.interop.outputs.slide import OutputOptions, SlideExpression
from raystp.storage import StoragePath

BLOCK_PX = 256
BIG_BYTES = 4_000_000_000
"""From this size on a file is a BigTIFF."""

OPAQUE = 0xFF


def write(slide: SlideExpression, folder: StoragePath, options: OutputOptions) -> Sequence[str]:  # noqa: ARG001 -- of all formats
    """Write `<slide>.ome.tif` into a folder; return what a reader should know, a sentence each.

    Raises:
        FormatError: the slide has no tile.
    """
    heat_map = HeatMap.of(slide)
    (folder / f"{slide.slide}.ome.tif").write_file(lambda path: _write(heat_map, path))
    return heat_map.notes


def _write(heat_map: HeatMap, path: Path) -> None:
    stored = 4 * np.prod([len(heat_map.slide.genes), *(_padded(length) for length in heat_map.shape[1:])])
    with tifffile.TiffWriter(path, ome=True, bigtiff=bool(stored >= BIG_BYTES)) as file:
        file.write(
            _blocks(heat_map),
            shape=heat_map.shape,
            dtype=np.float32,
            photometric="minisblack",
            tile=(BLOCK_PX, BLOCK_PX),
            compression="zlib",
            software="raystp",
            metadata=_metadata(heat_map),
        )


def _blocks(heat_map: HeatMap) -> Iterator[Float32[np.ndarray, "row col"]]:
    """Yield the blocks of each plane, row by row; those at the edge are filled up with NaN."""
    for plane in heat_map.planes():
        rows, columns = (_padded(length) for length in plane.shape)
        whole = np.full((rows, columns), np.nan, np.float32)
        whole[: plane.shape[0], : plane.shape[1]] = plane
        for row in range(0, rows, BLOCK_PX):
            for column in range(0, columns, BLOCK_PX):
                yield whole[row : row + BLOCK_PX, column : column + BLOCK_PX]


def _padded(length: int) -> int:
    return -(-length // BLOCK_PX) * BLOCK_PX


def _metadata(heat_map: HeatMap) -> dict[str, Any]:
    slide, (x, y), count = heat_map.slide, heat_map.first_um, len(heat_map.slide.genes)
    source = json_text(heat_map.source)
    # The same slide and source give the same file; tifffile would take the time of day.
    identity = uuid.uuid5(uuid.NAMESPACE_URL, f"raystp:{slide.slide}:{source}:{','.join(slide.genes)}")
    colours = [COLOURS[number % len(COLOURS)] for number in range(count)]
    return {
        "axes": "CYX",
        "UUID": f"urn:uuid:{identity}",
        "Creator": "raystp",
        "Name": slide.slide,
        "Description": heat_map.raster.method,
        "PhysicalSizeX": heat_map.step_um,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": heat_map.step_um,
        "PhysicalSizeYUnit": "µm",
        "Channel": {"Name": list(slide.genes), "Color": [_signed(int(colour, 16)) for colour in colours]},
        "Plane": {
            "PositionX": [x] * count,
            "PositionXUnit": ["µm"] * count,
            "PositionY": [y] * count,
            "PositionYUnit": ["µm"] * count,
        },
        "MapAnnotation": {"Namespace": "raystp", "raystp": source},
    }


def _signed(rgb: int) -> int:
    """Return a colour as OME stores it: red, green, blue and opacity in a signed 32-bit number."""
    rgba = rgb << 8 | OPAQUE
    return rgba - (1 << 32) if rgba >= 1 << 31 else rgba
