"""Folders of CLAM, and of tools that write and read "CLAM features".

    <folder>/patches/<slide>.h5     coordinates, with the size of tiles at one level
    <folder>/h5_files/<slide>.h5    vectors and coordinates, without any attribute
    <folder>/pt_files/<slide>.pt    vectors alone

`patches/` may also lie beside the folder of features. No um/px and no encoder are stored. The grid starts at the corner
of each contour, so the tiles of a slide lie on no common grid.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from raystp.errors import FormatError
from raystp.hdf5 import checked_hdf5
from raystp.interop.choice import FolderChoice, FoundFiles, SlideFiles
from raystp.interop.features import arrays, folders
from raystp.interop.features.saved import read_tensor
from raystp.interop.features.tiles import TileVectors, Vectors
from raystp.storage import StoragePath

VECTORS, TENSORS, COORDINATES = "h5_files", "pt_files", "patches"
LIBVER = ("earliest", "v110")
INT32 = np.iinfo(np.int32)


def find(folder: StoragePath, choice: FolderChoice) -> FoundFiles:
    """Return the slides of a folder with `h5_files` or `pt_files`, or of one of these two.

    Raises FormatError where there are none.
    """
    if folder.name in (VECTORS, TENSORS):
        folder = folder.parent
    vectors, tensors = _by_slide(folder / VECTORS, ".h5"), _by_slide(folder / TENSORS, ".pt")
    if not vectors and not tensors:
        msg = f"{folder} has no {VECTORS}/<slide>.h5 and no {TENSORS}/<slide>.pt: give CLAM's folder of features"
        raise FormatError(msg)
    patches = _by_slide(folder / COORDINATES, ".h5") or _by_slide(folder.parent / COORDINATES, ".h5")
    roles = {"vectors": vectors, "tensor": tensors, "coordinates": patches}
    names = sorted({*vectors, *tensors})
    slides = [SlideFiles(one, {role: files[one] for role, files in roles.items() if one in files}) for one in names]
    return FoundFiles(tuple(slides), choice.encoder, ())


def _by_slide(folder: StoragePath, ending: str) -> dict[str, StoragePath]:
    return {name.removesuffix(ending): folder / name for name in folder.names() if name.endswith(ending)}


@dataclass(frozen=True)
class _Patches:
    """What a file of `patches/` says."""

    corners: np.ndarray
    attributes: Mapping[str, Any]


def read(files: SlideFiles, choice: FolderChoice, mpp: float | None) -> TileVectors:
    """Read a slide's vectors and tiles; the side of a tile is that of `patches/`, or the one that is chosen.

    Raises FormatError where nothing says the side, and where vectors and coordinates are of different runs.
    """
    patches = _read_patches(files.files["coordinates"]) if "coordinates" in files.files else None
    if "vectors" in files.files:
        where = str(files.files["vectors"])
        vectors, corners, notes = _read_h5(files.files["vectors"])
        if patches is not None:
            _check_same_tiles(patches.corners, corners, where, str(files.files["coordinates"]))
    else:
        where = str(files.files["tensor"])
        vectors, notes = arrays.checked_vectors(read_tensor(files.files["tensor"]), where)
        if patches is None:
            msg = f"{where} has vectors and no coordinates: give {COORDINATES}/{files.slide}.h5 beside {TENSORS}"
            raise FormatError(msg)
        corners = patches.corners
        arrays.check_same_rows(len(vectors), len(corners), f"{where} with {files.files['coordinates']}")
    attributes = patches.attributes if patches is not None else {}
    side, said = _side(attributes, choice, mpp, where)
    return TileVectors(
        slide=files.slide,
        boxes=arrays.boxes_of(corners, side, where),
        vectors=vectors,
        tile_px=0,
        mpp=mpp,
        size=_size(attributes),
        encoder=choice.encoder,
        attributes=attributes,
        notes=(*notes, *said),
    )


def _read_h5(path: StoragePath) -> tuple[Vectors, np.ndarray, list[str]]:
    where = str(path)
    with checked_hdf5(path, FormatError) as local, h5py.File(local, "r") as file:
        features, coords = arrays.dataset(file, "features", where), arrays.dataset(file, "coords", where)
        arrays.check_same_rows((features.shape or (0,))[0], (coords.shape or (0,))[0], where)
        vectors, notes = arrays.read_vectors(features, where)
        return vectors, arrays.read_matrix(coords, where, columns=(2, 2)), notes


def _read_patches(path: StoragePath) -> _Patches:
    with checked_hdf5(path, FormatError) as local, h5py.File(local, "r") as file:
        coords = arrays.dataset(file, "coords", str(path))
        attributes = arrays.attributes_of(coords)
        return _Patches(arrays.read_matrix(coords, str(path), columns=(2, 2)), attributes)


def _check_same_tiles(patches: np.ndarray, corners: np.ndarray, where: str, origin: str) -> None:
    arrays.check_same_rows(len(corners), len(patches), f"{where} with {origin}")
    other = np.flatnonzero((patches != corners).any(axis=1))
    if len(other):
        msg = f"{where} and {origin} differ in the coordinates of {len(other)} tiles, the first in row {other[0]}"
        raise FormatError(f"{msg}: they are of different runs; embed the slide again, or remove the older file")


def _side(
    attributes: Mapping[str, Any], choice: FolderChoice, mpp: float | None, where: str
) -> tuple[float, list[str]]:
    """Return the side in level-0 px: `patch_size` is px at `patch_level`, which `downsample` relates to level 0."""
    chosen = choice.side_px
    if choice.side_um is not None:
        if mpp is None:
            msg = f"{where}: side_um={choice.side_um:g} needs um/px: give a slide table with the slides or a column mpp"
            raise FormatError(msg)
        chosen = choice.side_um / mpp
    size = arrays.number_of(attributes, "patch_size", where)
    if size is None and chosen is None:
        msg = f"CLAM features carry no tile size: give {COORDINATES}/, side_px or side_um ({where})"
        raise FormatError(msg)
    if size is None or chosen is not None:
        side = float(chosen or 0)
        return side, [f"the side of {side:g} px is the one that was given"]
    scales = attributes.get("downsample", [1.0])
    scales = scales if isinstance(scales, list) else [scales]
    scale = arrays.number_of({"downsample": scales[0] if scales else None}, "downsample", where) or 1.0
    level = attributes.get("patch_level", 0)
    if level != 0 and "downsample" not in attributes:
        msg = f"{where}: `patch_size` is px of level {level}, and `downsample` is missing: give side_px or side_um"
        raise FormatError(msg)
    return size * scale * (arrays.number_of(attributes, "custom_downsample", where) or 1.0), []


def _size(attributes: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return width and height at level 0, from `level_dim` of level 0."""
    found = attributes.get("level_dim")
    is_pair = isinstance(found, list) and len(found) == 2 and all(isinstance(one, int) for one in found)  # noqa: PLR2004
    return (found[0], found[1]) if found is not None and is_pair and attributes.get("patch_level") == 0 else None


def write(tiles: TileVectors, folder: StoragePath) -> Sequence[str]:
    """Write `patches`, `h5_files` and `pt_files` of a slide; equal tiles give equal bytes.

    Vectors are float32, which holds float16 exactly. Corners and the side are whole px. Raises FormatError for tiles of
    several sides, and for corners beyond 32 bits.
    """
    corners, notes = arrays.whole_corners(tiles.boxes)
    if corners.size and (corners.max() > INT32.max or corners.min() < INT32.min):
        msg = f"slide {tiles.slide!r} has a corner beyond 32 bits, which files of CLAM do not hold"
        raise FormatError(msg)
    side = folders.one_side(tiles, "CLAM")
    whole = int(np.ceil(side - arrays.WHOLE_PX))
    if whole != side:
        notes = [*notes, f"the side of {side:g} px was written as {whole} px: files of CLAM hold whole px"]
    source, vectors = arrays.source_attribute(tiles.attributes), tiles.vectors.astype(np.float32)
    attributes = _attributes(tiles, whole)

    def write_patches(local: Path) -> None:
        with h5py.File(local, "w", libver=LIBVER) as file:
            stored = file.create_dataset("coords", data=corners.astype(np.int32), track_times=False)
            for key, value in attributes.items():
                stored.attrs[key] = value
            file.attrs["raystp"] = source

    def write_vectors(local: Path) -> None:
        with h5py.File(local, "w", libver=LIBVER) as file:
            file.create_dataset("features", data=vectors, track_times=False)
            file.create_dataset("coords", data=corners.astype(np.int32), track_times=False)
            file.attrs["raystp"] = source

    (folder / COORDINATES / f"{tiles.slide}.h5").write_file(write_patches)
    (folder / TENSORS / f"{tiles.slide}.pt").write_bytes(_saved(vectors))
    (folder / VECTORS / f"{tiles.slide}.h5").write_file(write_vectors)
    return notes


def _attributes(tiles: TileVectors, side: int) -> dict[str, Any]:
    found = {"patch_size": side, "patch_level": 0, "downsample": (1.0, 1.0), "name": tiles.slide, "save_path": ""}
    return found | ({} if tiles.size is None else {"level_dim": tiles.size, "downsampled_level_dim": tiles.size})


def _saved(vectors: np.ndarray) -> bytes:
    """Return a tensor as torch saves it: an archive without times or names of files."""
    import torch  # noqa: PLC0415 -- it takes seconds, and few formats need it

    buffer = io.BytesIO()
    torch.save(torch.from_numpy(vectors), buffer)
    return buffer.getvalue()
