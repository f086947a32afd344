"""A slide as a SpatialData store `<slide>.zarr`, which spatialdata (from 0.5 on) and LazySlide open.

    shapes/tissues   polygons of the tissue            shapes/tiles    the tiles as boxes
    shapes/spots     circles, where spots were measured
    tables/predicted_<model> -> tiles                  tables/measured -> spots
    tables/<encoder>_tiles   -> tiles, where embeddings are given
    images/thumbnail

Coordinate systems: `global` is level-0 px, `um` is um of tissue. The root has the attributes that LazySlide (wsidata)
reads, `tile_spec` and `slide_properties`, and the provenance as `raystp`.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely
import zarr
from jaxtyping import Int64

from raystp.interop.outputs.folders import plain_json, write_folder
from raystp.interop.outputs.slide import OutputOptions, SlideExpression, XForm
from raystp.interop.outputs.spatialdata.image import write_image
from raystp.interop.outputs.spatialdata.shapes import write_shapes
from raystp.interop.outputs.spatialdata.tables import RegionTable, write_table
from raystp.storage import StoragePath

TILES, SPOTS, TISSUES = "tiles", "spots", "tissues"

SOFTWARE_VERSION = "0.7.3"
"""Version of spatialdata whose layout this is."""


def write(slide: SlideExpression, folder: StoragePath, options: OutputOptions) -> Sequence[str]:
    """Write `<slide>.zarr` into a folder; return what a reader should know, a sentence each."""
    notes: list[str] = []
    write_folder(folder / f"{slide.slide}.zarr", lambda path: notes.extend(_write(slide, path, options)))
    return notes


def element_name(text: str) -> str:
    """Return a text as the name of an element: letters, digits, `_`, `.`, `-`, and no `__` in front."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", text)
    return re.sub(r"^_+", "", name) or "unnamed"


def _write(slide: SlideExpression, path: Path, options: OutputOptions) -> list[str]:
    root = zarr.open_group(path, mode="w", zarr_format=3, attributes=_attributes(slide))
    notes = []
    for kind in ("images", "shapes", "tables"):
        root.create_group(kind)
    pieces = _pieces(slide)
    if pieces is None:
        notes.append(f"no tissue geometry is stored, so there is no element `{TISSUES}`")
    else:
        write_shapes(root, TISSUES, pieces, {"tissue_id": np.arange(len(pieces))}, mpp=slide.mpp)
    _write_tiles(root, slide, pieces)
    _write_tables(root, slide, options)
    if slide.thumbnail is None:
        notes.append("no thumbnail is stored, so there is no element `thumbnail`")
    else:
        write_image(root, "thumbnail", slide.thumbnail, size=slide.size, mpp=slide.mpp)
    return notes


def _attributes(slide: SlideExpression) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "raystp": plain_json({"slide": slide.slide, "mpp": slide.mpp, "encoder": slide.encoder, **slide.provenance}),
        "slide_properties": _slide_properties(slide),
        "spatialdata_attrs": {"spatialdata_software_version": SOFTWARE_VERSION, "version": "0.2"},
    }
    if len(slide.boxes) and slide.tile_px:
        attributes["tile_spec"] = {TILES: _tile_spec(slide)}
    return attributes


def _slide_properties(slide: SlideExpression) -> dict[str, Any]:
    """Return the properties as wsidata has them; shapes are (height, width)."""
    width, height = slide.size
    return {
        "shape": [height, width],
        "n_level": 1,
        "level_shape": [[height, width]],
        "level_downsample": [1.0],
        "mpp": slide.mpp,
        "magnification": None,
        "bounds": [int(slide.origin[0]), int(slide.origin[1]), width, height],
    }


def _tile_spec(slide: SlideExpression) -> dict[str, Any]:
    """Return the tiles' geometry: px as they were read, and level-0 px for each of them."""
    side = float(np.median(slide.boxes[:, 2]))
    downsample = side / slide.tile_px
    return {
        "height": slide.tile_px,
        "width": slide.tile_px,
        "stride_height": slide.tile_px,
        "stride_width": slide.tile_px,
        "mpp": slide.mpp * downsample,
        "ops_level": 0,
        "ops_downsample": downsample,
        "base_level": 0,
        "base_downsample": downsample,
        "tissue_name": TISSUES,
    }


def _pieces(slide: SlideExpression) -> list[shapely.Polygon] | None:
    if slide.tissue is None:
        return None
    parts = shapely.get_parts(slide.tissue).tolist()
    return [part for part in parts if isinstance(part, shapely.Polygon) and not part.is_empty]


def _write_tiles(root: zarr.Group, slide: SlideExpression, pieces: list[shapely.Polygon] | None) -> None:
    x, y, side = slide.boxes.T
    columns = {"tile_id": slide.tiles, "x": x, "y": y}
    if pieces:
        columns["tissue_id"] = _tissue_of(slide, pieces)
    boxes = shapely.box(x, y, x + side, y + side)
    write_shapes(root, TILES, boxes.tolist(), columns, mpp=slide.mpp, index=slide.tiles)
    if (spots := slide.measured) is not None:
        points = shapely.points(spots.centres).tolist()
        radius = np.full(len(points), spots.diameter / 2)
        write_shapes(root, SPOTS, points, {"radius": radius}, mpp=slide.mpp, index=slide.tiles)


def _tissue_of(slide: SlideExpression, pieces: list[shapely.Polygon]) -> Int64[np.ndarray, " tile"]:
    """Return the piece of tissue under the centre of each tile, else the nearest one."""
    nearest = shapely.STRtree(pieces).nearest(shapely.points(slide.centres))
    return np.asarray(nearest, np.int64)


def _write_tables(root: zarr.Group, slide: SlideExpression, options: OutputOptions) -> None:
    names = [f"{slide.slide}-{tile:06d}" for tile in slide.tiles.tolist()]
    predicted = RegionTable(
        region=TILES,
        instances=slide.tiles,
        names=names,
        columns=slide.genes,
        values=slide.values,
        centres=slide.centres,
        per_tile=slide.per_tile,
        layers=slide.layers,
        provenance=slide.provenance,
    )
    write_table(root, f"predicted_{element_name(slide.model)}", predicted, options.x)
    if (spots := slide.measured) is not None:
        measured = RegionTable(
            SPOTS, slide.tiles, list(spots.names), slide.genes, spots.values, spots.centres, provenance=slide.provenance
        )
        write_table(root, "measured", measured, options.x)
    if slide.embeddings is not None:
        dims = tuple(f"{number}" for number in range(slide.embeddings.shape[1]))
        vectors = RegionTable(
            TILES, slide.tiles, names, dims, slide.embeddings, slide.centres, provenance=slide.provenance
        )
        # Few of an embedding's values are 0, so it stays dense.
        form: XForm = "float16" if options.x == "float16" else "float32"
        write_table(root, f"{element_name(slide.encoder)}_{TILES}", vectors, form)
