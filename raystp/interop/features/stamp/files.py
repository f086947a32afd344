"""STAMP's files of features: `<out>/<extractor>[-<hash>]/<path of the slide>.h5`.

    feats      float16, a row per tile
    coords     float32, x and y of the top-left corner in um

Three generations are read: with `tile_size_um` (2.1 and later), with `tile_size` and `unit` (2.0), and without `unit`
(before 2), where coordinates are px of tiles of 224 px and 256 um. float32 resolves .002 um at 30,000 um: a corner that
is a whole px within that is that px.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import Float64

from raystp.errors import FormatError
from raystp.hdf5 import checked_hdf5
from raystp.interop.choice import FolderChoice, FoundFiles, SlideFiles
from raystp.interop.features import arrays, folders
from raystp.interop.features.encoders import ENCODERS
from raystp.interop.features.tiles import TileVectors
from raystp.storage import StoragePath, is_safe_name

VERSION = "2.1.0"
"""The oldest version with these attributes: STAMP refuses files of a newer one than itself."""

OLD_PX, OLD_UM = 224, 256.0
"""Side of a tile before version 2."""

LIBVER = ("earliest", "v110")
_HASH = re.compile(r"-[0-9a-f]{8}$")
_RESOLUTION = 2.0**-22
"""Relative error of a coordinate after rounding to float32 twice: in um and, for the oldest files, in px."""


def find(folder: StoragePath, choice: FolderChoice) -> FoundFiles:
    """Return the slides of one extractor's folder, or of the folder above it; folders below it are searched too.

    Raises FormatError where there are none, where several extractors are there and none is chosen, and where two slides
    in different folders have the same name.
    """
    encoder = _extractor(folder.name)
    if encoder is None:
        inner = {one: name for name in folder.names() if (one := _extractor(name)) and (folder / name).is_folder()}
        if inner:
            encoder = folders.one_of(inner, choice.encoder, f"{folder} has features of the extractors", "encoder_name")
            folder = folder / inner[encoder]
    files = [name for name in folder.files() if name.endswith(".h5")]
    if not files:
        msg = f"{folder} has no <slide>.h5: give STAMP's folder of features, <output>/<extractor>-<hash>"
        raise FormatError(msg)
    slides = [SlideFiles(name.rpartition("/")[2].removesuffix(".h5"), {"vectors": folder / name}) for name in files]
    ordered = folders.check_distinct(slides)
    return FoundFiles(ordered, encoder or choice.encoder or folders.first_readable(ordered, _encoder), ())


def _encoder(files: SlideFiles) -> str | None:
    """Return the extractor that a slide's file names."""
    path = files.files["vectors"]
    with checked_hdf5(path, FormatError) as local, h5py.File(local, "r") as file:
        found = arrays.attributes_of(file).get("extractor")
    return _HASH.sub("", found) if isinstance(found, str) else None


def _extractor(name: str) -> str | None:
    """Return the extractor that a folder is named after."""
    bare = _HASH.sub("", name)
    return bare if bare in ENCODERS["stamp"] else None


def read(files: SlideFiles, choice: FolderChoice, mpp: float | None) -> TileVectors:
    """Read a slide's vectors and tiles; `mpp` turns um into level-0 px.

    Raises FormatError without `mpp`, for vectors of whole slides or patients, and for coordinates of unknown unit.
    """
    path = files.files["vectors"]
    where = str(path)
    if mpp is None:
        wanted = "give a slide table with the slides, or with a column mpp"
        msg = f"STAMP features carry no um/px: {wanted}; missing for {files.slide!r}"
        raise FormatError(msg)
    with checked_hdf5(path, FormatError) as local, h5py.File(local, "r") as file:
        attributes = arrays.attributes_of(file)
        _check_tiles(file, attributes, where)
        feats, coords = arrays.dataset(file, "feats", where), arrays.dataset(file, "coords", where)
        arrays.check_same_rows((feats.shape or (0,))[0], (coords.shape or (0,))[0], where)
        vectors, notes = arrays.read_vectors(feats, where)
        places = arrays.read_matrix(coords, where, columns=(2, 2)).astype(np.float64)
    um, side_um, px, said = _in_um(places, attributes, where)
    extractor = attributes.get("extractor")
    return TileVectors(
        slide=files.slide,
        boxes=arrays.boxes_of(_to_px(um, mpp), _snapped(side_um / mpp), where),
        vectors=vectors,
        tile_px=px,
        mpp=mpp,
        encoder=_HASH.sub("", extractor) if isinstance(extractor, str) else choice.encoder,
        attributes=attributes,
        notes=(*notes, *said),
    )


def _check_tiles(file: h5py.File, attributes: Mapping[str, Any], where: str) -> None:
    kind = attributes.get("feat_type", "tile")
    if kind != "tile":
        msg = f"{where} has vectors of a whole {kind} (encoder {attributes.get('encoder')!r}), not of tiles"
        raise FormatError(f"{msg}: give STAMP's folder of tile features")
    if "patch_embeddings" in file and "coords" not in file:
        msg = f"{where} has `patch_embeddings` and no `coords`: the places of its tiles are lost; extract them again"
        raise FormatError(msg)


def _in_um(
    places: Float64[np.ndarray, "tile 2"], attributes: Mapping[str, Any], where: str
) -> tuple[Float64[np.ndarray, "tile 2"], float, int, list[str]]:
    """Return corners and side in um, the px of a tile (0 where unknown), and a note for files from before version 2."""
    px = int(arrays.number_of(attributes, "tile_size_px", where) or 0)
    newer, older = (arrays.number_of(attributes, name, where) for name in ("tile_size_um", "tile_size"))
    unit = attributes.get("unit")
    if unit == "um" and (side := newer or older) is not None:
        return places, side, px, []
    if unit is None and newer is None:
        step = older or _step(places)
        if step is not None and round(step) == OLD_PX:
            note = (
                f"coordinates without unit were read as px of tiles of {OLD_PX} px and {OLD_UM:g} um (before STAMP 2)"
            )
            return places / OLD_PX * OLD_UM, OLD_UM, OLD_PX, [note]
        said = "no step between tiles" if step is None else f"tiles {step:g} apart"
        msg = f"{where} has coordinates without unit and {said}: only the px of STAMP 1 are known, {OLD_PX} apart"
        raise FormatError(f"{msg}; extract the features again with STAMP 2")
    msg = f"{where} has unit {unit!r} and tile_size_um {newer}: expected coordinates and side in um; extract them again"
    raise FormatError(msg)


def _step(places: Float64[np.ndarray, "tile 2"]) -> float | None:
    """Return the smallest difference of two coordinates of one axis."""
    steps = np.concatenate([np.diff(np.unique(axis)) for axis in places.T])
    return float(steps.min()) if len(steps) else None


def _to_px(um: Float64[np.ndarray, "tile 2"], mpp: float) -> Float64[np.ndarray, "tile 2"]:
    """Return level-0 px; a corner that is a whole px within the resolution of float32 is that px."""
    px = um / mpp
    whole = np.round(px)
    return np.where(np.abs(px - whole) <= np.maximum(np.abs(px), 1) * _RESOLUTION, whole, px)


def _snapped(side: float) -> float:
    """Return a side that is whole but for the rounding of float64 as whole."""
    return float(round(side)) if abs(side - round(side)) <= 1e-9 * side else side


def write(tiles: TileVectors, folder: StoragePath) -> Sequence[str]:
    """Write `<extractor>/<slide>.h5` of a slide; equal tiles give equal bytes.

    Vectors are float16, as STAMP writes them. Raises FormatError without um/px, and for tiles of several sides.
    """
    if tiles.mpp is None:
        msg = f"slide {tiles.slide!r} has no um/px, and coordinates of STAMP are in um: give a slide table with mpp"
        raise FormatError(msg)
    extractor = tiles.encoder or "unknown"
    if not is_safe_name(extractor):
        msg = f"the encoder {extractor!r} names a folder: letters, digits, '.', '_' and '-' are allowed (encoder_name)"
        raise FormatError(msg)
    vectors, notes = _as_float16(tiles.vectors)
    um = tiles.boxes[:, :2] * tiles.mpp
    attributes: dict[str, Any] = {
        "stamp_version": VERSION,
        "extractor": extractor,
        "unit": "um",
        "tile_size_um": folders.one_side(tiles, "STAMP") * tiles.mpp,
        "code_hash": "00000000",
        "feat_type": "tile",
        "raystp": arrays.source_attribute(tiles.attributes),
    }
    if tiles.tile_px:
        attributes["tile_size_px"] = tiles.tile_px

    def write_file(local: Path) -> None:
        with h5py.File(local, "w", libver=LIBVER) as file:
            file.create_dataset("feats", data=vectors, track_times=False)
            file.create_dataset("coords", data=um.astype(np.float32), track_times=False)
            for key, value in attributes.items():
                file.attrs[key] = value

    (folder / extractor / f"{tiles.slide}.h5").write_file(write_file)
    return notes


def _as_float16(vectors: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Return vectors as float16, with a note where that rounds; as they are where float16 cannot hold them."""
    with np.errstate(over="ignore"):
        small = vectors.astype(np.float16)
    if not np.isfinite(small).all():
        return vectors, [f"vectors up to {np.abs(vectors).max():g} are beyond float16: written as {vectors.dtype}"]
    error = float(np.abs(small.astype(np.float32) - vectors).max(initial=0.0))
    return small, [f"vectors were rounded to float16, by at most {error:.2g}"] if error else []
