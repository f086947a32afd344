"""Which format of tiles and vectors a folder or an HDF5 file is of, by names, groups and attributes alone."""

import re

import h5py

from raystp.errors import RaystpError
from raystp.interop.features.clam import TENSORS, VECTORS
from raystp.interop.features.trident import FEATURES, GRID
from raystp.storage import StoragePath

_HDF5 = (".h5", ".hdf5")
_EXTRACTOR = re.compile(r"^[a-z0-9_-]+-[0-9a-f]{8}$")
"""A folder of STAMP: the extractor and a hash."""
_STORES = ("zarr.json", ".zattrs")
_TILE = ("patch_size", "patch_size_level0")


def format_of_folder(folder: StoragePath, names: set[str]) -> str | None:
    """Return the format of a folder with these names; None for a folder of something else, or of HDF5 files alone.

    Raises FormatError for a zarr store whose attributes are damaged.
    """
    if any(GRID.match(name) for name in names) or GRID.match(folder.name):
        return "trident"
    if FEATURES.match(folder.name) and any(name.endswith(_HDF5) for name in names):
        return "trident"
    if {VECTORS, TENSORS} & names or folder.name in (VECTORS, TENSORS):
        return "clam"
    if "tile_embeddings" in names or folder.name == "tile_embeddings":
        return "slide2vec"
    if any(_EXTRACTOR.match(name) for name in names):
        return "stamp"
    return "lazyslide" if _is_lazyslide(folder, names) else None


def _is_lazyslide(folder: StoragePath, names: set[str]) -> bool:
    inner = sorted(name for name in names if name.endswith(".zarr"))
    store = folder if names & set(_STORES) else folder / inner[0] if inner else None
    if store is None:
        return False
    from raystp.interop.features.lazyslide.zarr_arrays import attributes_of  # noqa: PLC0415 -- zarr takes a second

    try:
        return "tile_spec" in attributes_of(store)
    except RaystpError:
        return False


def format_of_hdf5(file: h5py.File, path: StoragePath) -> str | None:
    """Return the format of a file with vectors and coordinates; None for another file."""
    names = set(file)
    if "feats" in names or "patch_embeddings" in names:
        return "stamp"
    if not {"features", "coords"} <= names:
        return None
    if isinstance(file["features"], h5py.Group):
        return "atlaspatch"
    has_side = any(name in file["coords"].attrs for name in _TILE)
    return "trident" if has_side or FEATURES.match(path.parent.name) else "clam"
