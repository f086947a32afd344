"""TRIDENT's folders, of versions 0.1 to 0.3.

    <job>/contours_geojson/<slide>.geojson                      tissue, in level-0 px
    <job>/<20x_256px_0px_overlap>/patches/<slide>_patches.h5    coordinates
    <job>/<20x_256px_0px_overlap>/features_<encoder>/<slide>.h5 vectors and coordinates

Its magnification is a bucket of um/px, so "256 px at 20x" is 128.0 um on a scan of .25 um/px and 135.7 um on one of
.265. The side of a tile is taken in level-0 px, and no um/px is stored.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from raystp.errors import FormatError, some
from raystp.hdf5 import checked_hdf5
from raystp.interop.choice import FolderChoice, FoundFiles, SlideFiles
from raystp.interop.features import arrays
from raystp.interop.features.folders import one_of
from raystp.interop.features.tiles import TileVectors
from raystp.interop.geojson import as_features, read_outlines
from raystp.storage import StoragePath

GRID = re.compile(r"^\d+(\.\d+)?x_\d+px_\d+px_overlap$")
FEATURES = re.compile(r"^(?:patch_)?features_(.+)$")

BUCKETS = ((0.16, 80), (0.2, 60), (0.3, 40), (0.6, 20), (1.2, 10), (2.4, 5))
"""um/px below which a scan has this magnification."""

EXAMPLE = "20x_256px_0px_overlap"

PICKLED = ".pt"
"""End of the name of features that TRIDENT has pickled."""

PIXELS_AT_20X = 10.0
"""um/px times magnification."""


def find(folder: StoragePath, choice: FolderChoice) -> FoundFiles:
    """Return the slides of a job's folder, of one of its grids, or of a folder of features.

    Raises FormatError where there is no grid or no folder of features, and where several are there and none is chosen.
    """
    grid = _grid(folder, choice)
    features = {match[1]: grid / match[0] for name in grid.names() if (match := FEATURES.match(name))}
    if own := FEATURES.match(folder.name):
        features = {own[1]: folder}
    encoder = _chosen(features, choice.encoder, f"{grid} has features of the encoders", "encoder_name")
    vectors = features[encoder]
    names = sorted(name for name in vectors.names() if name.endswith((".h5", ".pt")))
    if names and all(name.endswith(PICKLED) for name in names):
        raise FormatError(_pickled(vectors / names[0]))
    names = [name for name in names if name.endswith(".h5") or f"{name[:-3]}.h5" not in names]
    slides = [SlideFiles(name[:-3], _files(grid, vectors / name, name[:-3])) for name in names]
    if not slides:
        msg = f"{vectors} has no <slide>.h5; run TRIDENT's task `feat` first"
        raise FormatError(msg)
    ignored = [name for name in grid.names() if name.startswith("slide_features_")]
    notes = [f"vectors of whole slides are not read: {some(sorted(ignored))}"] if ignored else []
    return FoundFiles(tuple(slides), encoder, tuple(notes))


def _pickled(path: StoragePath) -> str:
    return (
        f"{path} holds a pickled array, which raystp does not open: save features as h5 (TRIDENT: "
        'saveas="h5", its default), or convert it where you trust it'
    )


def _grid(folder: StoragePath, choice: FolderChoice) -> StoragePath:
    """Return the folder of a grid: the one chosen, the only one, or the folder itself."""
    if FEATURES.match(folder.name):
        return folder.parent
    names = folder.names()
    grids = {name: folder / name for name in names if GRID.match(name)}
    if not grids and any(FEATURES.match(name) for name in names):
        return folder
    return grids[_chosen(grids, choice.grid, f"{folder} has the grids", "grid")]


def _chosen(found: Mapping[str, StoragePath], chosen: str | None, said: str, field: str) -> str:
    if not found:
        msg = f"{said}: none; give a job folder of TRIDENT, with {EXAMPLE}/features_<encoder>/<slide>.h5"
        raise FormatError(msg)
    return one_of(found, chosen, said, field)


def _files(grid: StoragePath, vectors: StoragePath, slide: str) -> dict[str, StoragePath]:
    files = {"vectors": vectors}
    coordinates, tissue = grid / "patches" / f"{slide}_patches.h5", grid.parent / "contours_geojson"
    return files | ({"coordinates": coordinates} if coordinates.exists() else {}) | _tissue(tissue, slide)


def _tissue(folder: StoragePath, slide: str) -> dict[str, StoragePath]:
    file = folder / f"{slide}.geojson"
    return {"tissue": file} if file.exists() else {}


def read(files: SlideFiles, choice: FolderChoice, mpp: float | None) -> TileVectors:
    """Read a slide's vectors, their tiles, and the tissue; a slide without tissue has no tile."""
    del choice
    path = files.files["vectors"]
    where = str(path)
    if path.name.endswith(PICKLED):
        raise FormatError(_pickled(path))
    with checked_hdf5(path, FormatError) as local, h5py.File(local, "r") as file:
        features, coords = arrays.dataset(file, "features", where), arrays.dataset(file, "coords", where)
        arrays.check_same_rows((features.shape or (0,))[0], (coords.shape or (0,))[0], where)
        vectors, notes = arrays.read_vectors(features, where)
        corners = arrays.read_matrix(coords, where, columns=(2, 2))
        attributes = arrays.attributes_of(features, coords)
    if "patch_size" not in attributes and "coordinates" in files.files:
        attributes = _attributes_of_patches(files.files["coordinates"], len(corners)) | attributes
        notes = [*notes, "the size of tiles is that of its file in patches/"]
    side, assumed = _side(attributes, where)
    size = tuple(arrays.number_of(attributes, f"level0_{name}", where) for name in ("width", "height"))
    tissue = files.files.get("tissue")
    return TileVectors(
        slide=files.slide,
        boxes=arrays.boxes_of(corners, side, where),
        vectors=vectors,
        tile_px=int(arrays.number_of(attributes, "patch_size", where) or 0),
        mpp=mpp,
        size=None if None in size else (int(size[0] or 0), int(size[1] or 0)),
        encoder=attributes.get("encoder"),
        tissue=None if tissue is None else read_outlines(tissue),
        attributes=attributes,
        notes=(*notes, *assumed),
    )


def _attributes_of_patches(path: StoragePath, count: int) -> dict[str, Any]:
    with checked_hdf5(path, FormatError) as local, h5py.File(local, "r") as file:
        coords = arrays.dataset(file, "coords", str(path))
        arrays.check_same_rows(count, (coords.shape or (0,))[0], str(path))
        return arrays.attributes_of(coords)


def _side(attributes: Mapping[str, Any], where: str) -> tuple[float, list[str]]:
    """Return the side of a tile in level-0 px, and a note where it is computed from magnifications."""
    side = arrays.number_of(attributes, "patch_size_level0", where)
    if side is not None:
        return side, []
    names = ("patch_size", "level0_magnification", "target_magnification")
    patch, level0, target = (arrays.number_of(attributes, name, where) for name in names)
    if patch is None or level0 is None or target is None:
        absent = some([name for name, one in zip(names, (patch, level0, target), strict=True) if one is None])
        msg = f"{where} has no `patch_size_level0`, and no {absent} to compute it from: make the coordinates again"
        raise FormatError(msg)
    side = patch * level0 / target
    return side, [f"the side of {side:g} px is computed from magnifications: `patch_size_level0` is missing"]


def magnification(mpp: float) -> int:
    """Return TRIDENT's magnification of a scan; raises FormatError from 2.4 um/px on, for which it has none."""
    for limit, name in BUCKETS:
        if mpp < limit:
            return name
    msg = f"TRIDENT has no magnification for a scan of {mpp:g} um/px; the coarsest is below {BUCKETS[-1][0]} um/px"
    raise FormatError(msg)


def write(tiles: TileVectors, folder: StoragePath) -> Sequence[str]:
    """Write coordinates, vectors and tissue into a job's folder; equal tiles give equal bytes.

    The grid's folder is named by the um/px that was asked for: 10 / um/px is the magnification. Raises FormatError
    without um/px, without the side in px, and for tiles of several sides.
    """
    attributes, target = _attributes(tiles)
    grid = folder / f"{target:g}x_{tiles.tile_px}px_0px_overlap"
    corners, notes = arrays.whole_corners(tiles.boxes)
    name = tiles.encoder or "unknown"

    def write_coordinates(local: Path) -> None:
        with h5py.File(local, "w", libver=("earliest", "v110")) as file:
            _dataset(file, "coords", corners, {**attributes, "savetodir": "patches"})
            file.attrs["raystp"] = arrays.source_attribute(tiles.attributes)

    def write_vectors(local: Path) -> None:
        with h5py.File(local, "w", libver=("earliest", "v110")) as file:
            own = {"name": tiles.slide, "savetodir": f"features_{name}", "encoder": name}
            _dataset(file, "features", tiles.vectors, own)
            _dataset(file, "coords", corners, {**attributes, "savetodir": f"features_{name}"})
            file.attrs["raystp"] = arrays.source_attribute(tiles.attributes)

    if tiles.tissue is not None:
        (folder / "contours_geojson" / f"{tiles.slide}.geojson").write_bytes(as_features(tiles.tissue))
    (grid / "patches" / f"{tiles.slide}_patches.h5").write_file(write_coordinates)
    (grid / f"features_{name}" / f"{tiles.slide}.h5").write_file(write_vectors)
    return notes


def _attributes(tiles: TileVectors) -> tuple[dict[str, Any], float]:
    """Return the attributes of `coords`, and the magnification that names the grid."""
    sides = np.unique(tiles.boxes[:, 2])
    if tiles.mpp is None or not tiles.tile_px or len(sides) > 1:
        msg = (
            f"slide {tiles.slide!r} has {len(sides)} sides of tiles, {tiles.tile_px} px and {tiles.mpp} um/px: files "
            "of TRIDENT have one side, and need px and um/px"
        )
        raise FormatError(msg)
    level0 = magnification(tiles.mpp)
    side = float(sides[0]) if len(sides) else tiles.tile_px * 1.0
    width, height = tiles.size or (0, 0)
    return {
        "patch_size": tiles.tile_px,
        "patch_size_level0": int(side) if side == int(side) else side,
        "level0_magnification": level0,
        "target_magnification": level0 * tiles.tile_px / side,
        "overlap": 0,
        "name": tiles.slide,
        "level0_width": width,
        "level0_height": height,
    }, round(PIXELS_AT_20X * tiles.tile_px / (tiles.tile_um or side * tiles.mpp), 2)


def _dataset(file: h5py.File, name: str, values: np.ndarray, attributes: Mapping[str, Any]) -> None:
    chunks = (1, values.shape[1])
    stored = file.create_dataset(name, data=values, chunks=chunks, maxshape=(None, values.shape[1]), track_times=False)
    for key, value in attributes.items():
        stored.attrs[key] = value
