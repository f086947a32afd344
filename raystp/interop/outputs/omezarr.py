"""Heat maps as OME-Zarr `<slide>.ome.zarr`: NGFF 0.4 (zarr v2), or 0.5 (zarr v3) on request; one px per tile.

The scale is the step of the tiles in um. NGFF counts from the centre of the first px, so the translation is the centre
of the first tile in um from the slide's corner. float32, NaN where no tile is.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

from raystp.interop.outputs.folders import write_folder
from raystp.interop.outputs.heatmap import COLOURS, HeatMap
from raystp.interop.outputs.slide import OutputOptions, SlideExpression
from raystp.storage import StoragePath

CHUNK_PX = 512
LEVEL = 3
OLD_CODEC: dict[str, Any] = {"id": "zlib", "level": 6}
"""Compression of zarr v2: Java's readers of it (QuPath, Fiji) have zlib and blosc only."""


def write(slide: SlideExpression, folder: StoragePath, options: OutputOptions) -> Sequence[str]:
    """Write `<slide>.ome.zarr` into a folder; return what a reader should know, a sentence each.

    Raises:
        FormatError: the slide has no tile.
    """
    heat_map = HeatMap.of(slide)
    write_folder(folder / f"{slide.slide}.ome.zarr", lambda path: _write(heat_map, path, options.ngff))
    return heat_map.notes


def _write(heat_map: HeatMap, path: Path, ngff: str) -> None:
    new = ngff == "0.5"
    metadata = _metadata(heat_map, ngff)
    attributes = {"ome": {"version": ngff, **metadata}} if new else metadata
    group = zarr.open_group(
        path, mode="w", zarr_format=3 if new else 2, attributes={**attributes, "raystp": heat_map.source}
    )
    _, rows, columns = heat_map.shape
    array = group.create_array(
        "0",
        shape=heat_map.shape,
        chunks=(1, min(CHUNK_PX, rows), min(CHUNK_PX, columns)),
        dtype="float32",
        fill_value=np.nan,
        compressors=ZstdCodec(level=LEVEL) if new else OLD_CODEC,
        **({"dimension_names": ["c", "y", "x"]} if new else {"chunk_key_encoding": {"name": "v2", "separator": "/"}}),
    )
    for channel, plane in enumerate(heat_map.planes()):
        array[channel] = plane


def _metadata(heat_map: HeatMap, ngff: str) -> dict[str, Any]:
    step, (x, y) = heat_map.step_um, heat_map.first_um
    scale = {"type": "scale", "scale": [1.0, step, step]}
    translation = {"type": "translation", "translation": [0.0, y, x]}
    multiscale = {
        "name": heat_map.slide.slide,
        "axes": [
            {"name": "c", "type": "channel"},
            *({"name": axis, "type": "space", "unit": "micrometer"} for axis in ("y", "x")),
        ],
        "datasets": [{"path": "0", "coordinateTransformations": [scale, translation]}],
    }
    if ngff == "0.4":
        multiscale = {"version": ngff, **multiscale}
    return {"multiscales": [multiscale], "omero": {"channels": _channels(heat_map)}}


def _channels(heat_map: HeatMap) -> list[dict[str, Any]]:
    return [
        {
            "label": gene,
            "color": COLOURS[number % len(COLOURS)],
            "active": number == 0,
            "window": {"start": low, "end": high, "min": low, "max": high},
        }
        for number, (gene, (low, high)) in enumerate(zip(heat_map.slide.genes, heat_map.windows, strict=True))
    ]
