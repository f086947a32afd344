"""Which tables and shapes of a store are a slide's vectors, tiles and tissue; and how they are joined.

    <slide>.zarr                            attributes `tile_spec` and `slide_properties`
    <slide>.zarr/tables/<model>_<tile key>  vectors, with `tile_id` of each row
    <slide>.zarr/shapes/<tile key>          boxes in level-0 px, with `tile_id`
    <slide>.zarr/shapes/tissues             outlines

A table has no slide: the name of the store is the slide. Rows are joined to boxes by `tile_id`, never by position.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from jaxtyping import Float64
from shapely.geometry.base import BaseGeometry

from raystp.errors import FormatError, some
from raystp.interop.choice import FolderChoice, FoundFiles, SlideFiles
from raystp.interop.features import arrays, folders
from raystp.interop.features.lazyslide.shapes import read_shapes, squares
from raystp.interop.features.lazyslide.zarr_arrays import attributes_of, is_array, local_folder, read_numbers
from raystp.interop.features.tiles import TileVectors
from raystp.storage import StoragePath, is_safe_name

ENDING = ".zarr"
SPEC, PROPERTIES = "tile_spec", "slide_properties"
TISSUE, TISSUE_ID, TILE_ID = "tissues", "tissue_id", "tile_id"
_FILES_OF_ZARR = ("zarr.json", ".zgroup", ".zattrs", ".zarray", ".zmetadata")


def find(folder: StoragePath, choice: FolderChoice) -> FoundFiles:
    """Return the slides of a store, or of a folder of stores; `choice` has the tile key as grid, the model as encoder.

    Raises FormatError where no store has vectors, and where several keys or models are there and none is chosen.
    """
    stores = _stores(folder)
    tables, damaged = dict[StoragePath, set[tuple[str, str]]](), list[FormatError]()
    for path in stores:
        try:
            tables[path] = _tables(path)
        except FormatError as fault:
            damaged.append(fault)
    keys = {key for found in tables.values() for key, _ in found}
    if damaged and not keys:
        raise damaged[0]
    if not keys:
        msg = f"{folder} has no table `<model>_<tile key>` of tiles that `{SPEC}` names: run LazySlide's features first"
        raise FormatError(msg)
    key = folders.one_of(keys, choice.grid, f"{folder} has the tile keys", "grid")
    models = {model for found in tables.values() for each, model in found if each == key}
    model = folders.one_of(models, choice.encoder, f"{folder} has vectors of the models", "encoder_name")
    # A damaged store is a slide whose task fails, and does not end the others.
    chosen = [path for path in stores if path not in tables or (key, model) in tables[path]]
    left = [_slide(path) for path in stores if path not in chosen]
    notes = [f"{some(left)} have no table '{model}_{key}': left out"] if left else []
    slides = [SlideFiles(_slide(path), _files(path, key, model, readable=path in tables)) for path in chosen]
    return FoundFiles(folders.check_distinct(slides), model, tuple(notes))


def _stores(folder: StoragePath) -> list[StoragePath]:
    names = folder.names()
    if folder.name.endswith(ENDING) or set(names) & set(_FILES_OF_ZARR):
        return [folder]
    if stores := [folder / name for name in names if name.endswith(ENDING)]:
        return stores
    msg = f"{folder} is no zarr store and has no <slide>.zarr: give a store of LazySlide, or a folder of stores"
    raise FormatError(msg)


def _slide(path: StoragePath) -> str:
    return path.name.removesuffix(ENDING)


def _tables(path: StoragePath) -> set[tuple[str, str]]:
    """Return (tile key, model) of each table; of two keys that end a name, the longer one is its key."""
    keys = _section(attributes_of(path), SPEC, str(path))
    found = set()
    for name in (path / "tables").names():
        if fitting := [key for key in keys if name.endswith(f"_{key}")]:
            key = max(fitting, key=len)
            found.add((key, name.removesuffix(f"_{key}")))
    return found


def _section(attributes: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    found = attributes.get(name)
    if found is not None and not isinstance(found, dict):
        msg = f"{where}: the attribute {name!r} is {str(found)[:80]!r}, expected an object"
        raise FormatError(msg)
    return found or {}


def _files(path: StoragePath, key: str, model: str, *, readable: bool) -> dict[str, StoragePath]:
    spec = _section(_section(attributes_of(path), SPEC, str(path)), key, str(path)) if readable else {}
    name = str(spec.get("tissue_name") or TISSUE)
    tissue = path / "shapes" / (name if is_safe_name(name) else TISSUE)
    files = {"vectors": path / "tables" / f"{model}_{key}", "tiles": path / "shapes" / key}
    files["attributes"] = path / ("zarr.json" if (path / "zarr.json").exists() else ".zattrs")
    return files | ({"tissue": tissue} if tissue.is_folder() else {})


def read(files: SlideFiles, choice: FolderChoice, mpp: float | None) -> TileVectors:
    """Read a slide's table in its order, with the box of each row's tile.

    Raises FormatError where a row has no tile, and for tiles that are no squares.
    """
    del choice
    store, key = files.files["attributes"].parent, files.files["tiles"].name
    where = str(files.files["vectors"])
    vectors, ids, notes = _read_table(files.files["vectors"], key)
    shapes = read_shapes(files.files["tiles"], TILE_ID)
    rows, left = _join(ids, shapes.ids, f"{where} with {files.files['tiles']}")
    boxes: Float64[np.ndarray, "tile 3"] = squares(shapes.outlines[rows], str(files.files["tiles"]))
    attributes = attributes_of(store)
    properties = _section(attributes, PROPERTIES, str(store))
    spec = _section(_section(attributes, SPEC, str(store)), key, str(store))
    known, said = folders.agreed_mpp(arrays.number_of(properties, "mpp", str(store)), mpp, files.slide)
    return TileVectors(
        slide=files.slide,
        boxes=boxes,
        vectors=vectors,
        tile_px=int(arrays.number_of(spec, "width", str(store)) or 0),
        mpp=known,
        size=_size(properties.get("shape")),
        encoder=files.files["vectors"].name.removesuffix(f"_{key}"),
        tissue=_tissue(files.files["tissue"]) if "tissue" in files.files else None,
        attributes={SPEC: spec, PROPERTIES: {name: one for name, one in properties.items() if name != "raw"}},
        notes=(*notes, *left, *said),
    )


def _read_table(path: StoragePath, key: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return vectors, the tile of each row, and notes."""
    where = str(path)
    attributes = attributes_of(path)
    region, instance = attributes.get("region", key), str(attributes.get("instance_key", TILE_ID))
    if region not in (key, [key]) or "/" in instance or instance.startswith("."):
        msg = f"{where} is about the element {region!r} by {instance!r}, expected {key!r} by {TILE_ID!r}"
        raise FormatError(msg)
    with local_folder(path) as folder:
        if not is_array(folder / "X"):
            msg = f"{where} has vectors that are no dense array: write them dense"
            raise FormatError(msg)
        matrix = read_numbers(folder / "X", f"{where}/X")
        ids = _read_ids(folder / "obs" / instance, f"{where}/obs/{instance}")
    if matrix.ndim != 2:  # noqa: PLR2004 -- tile x dim
        msg = f"{where}/X has the shape {matrix.shape}, expected tile x dim"
        raise FormatError(msg)
    arrays.check_same_rows(len(matrix), len(ids), where)
    vectors, notes = arrays.checked_vectors(matrix, where)
    return vectors, ids, notes


def _read_ids(folder: Path, where: str) -> np.ndarray:
    ids = read_numbers(folder, where)
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        msg = f"{where} is of type {ids.dtype} and shape {ids.shape}, expected a whole number per row"
        raise FormatError(msg)
    return ids


def _join(ids: np.ndarray, there: np.ndarray, where: str) -> tuple[np.ndarray, list[str]]:
    """Return the row of `there` of each id, and a note on tiles without a vector."""
    if there.dtype.kind not in "iu":
        msg = f"{where}: `{TILE_ID}` of the tiles is of type {there.dtype}, expected whole numbers"
        raise FormatError(msg)
    order = np.argsort(there, kind="stable")
    if len(np.unique(there)) != len(there) or len(np.unique(ids)) != len(ids):
        msg = f"{where}: `{TILE_ID}` names a tile twice: write the store again"
        raise FormatError(msg)
    places = np.minimum(np.searchsorted(there[order], ids), max(len(there) - 1, 0))
    lost = ids[there[order][places] != ids] if len(there) else ids
    if len(lost):
        msg = f"{where}: {len(lost)} of {len(ids)} rows are of tiles that are not there, the first of tile {lost[0]}"
        raise FormatError(f"{msg}: the tiles were made again after the vectors; run the features again")
    without = len(there) - len(ids)
    return order[places], [f"{without:,} of {len(there):,} tiles have no vector: left out"] if without else []


def _size(shape: Any) -> tuple[int, int] | None:
    """Return width and height; the store has height and width."""
    is_pair = isinstance(shape, list) and len(shape) == 2 and all(isinstance(one, int) for one in shape)  # noqa: PLR2004
    return (shape[1], shape[0]) if is_pair else None


def _tissue(path: StoragePath) -> BaseGeometry:
    outlines = read_shapes(path, TISSUE_ID).outlines
    found: BaseGeometry = shapely.union_all(shapely.make_valid(shapely.force_2d(outlines)))
    return found
