"""Files of AtlasPatch: one HDF5 file a slide, with the vectors of one or more encoders.

coords                 x, y in level-0 px, and how the tile is read: width, height, level
features/<encoder>     vectors
"""

from typing import Any

import h5py

from raystp.errors import FormatError, some
from raystp.hdf5 import checked_hdf5
from raystp.interop.choice import FolderChoice, FoundFiles, SlideFiles
from raystp.interop.features import arrays, folders
from raystp.interop.features.tiles import TileVectors
from raystp.storage import StoragePath

PATCHES = "patches"
COLUMNS = 5


def find(folder: StoragePath, choice: FolderChoice) -> FoundFiles:
    """Return the slides of a folder of `<slide>.h5`, or of its folder `patches`.

    The first file that can be read tells the encoders.
    Raises FormatError where there is no such file, and where it has several encoders and none is chosen.
    """
    names = [name for name in folder.names() if name.endswith(".h5")]
    if not names and (folder / PATCHES).is_folder():
        folder = folder / PATCHES
        names = [name for name in folder.names() if name.endswith(".h5")]
    if not names:
        msg = f"{folder} has no <slide>.h5: give AtlasPatch's folder of patches"
        raise FormatError(msg)
    first, encoders = folders.first_readable([folder / name for name in names], _encoders_of)
    encoder = folders.one_of(encoders, choice.encoder, f"{first} has features of the encoders", "encoder_name")
    others = sorted(set(encoders) - {encoder})
    notes = [f"features of {some(others)} were left out: each encoder is an import of its own"] if others else []
    slides = [SlideFiles(name.removesuffix(".h5"), {"vectors": folder / name}) for name in names]
    return FoundFiles(folders.check_distinct(slides), encoder, tuple(notes))


def _encoders_of(path: StoragePath) -> tuple[StoragePath, list[str]]:
    with checked_hdf5(path, FormatError) as local, h5py.File(local, "r") as file:
        return path, _encoders(file, str(path))


def _encoders(file: h5py.File, where: str) -> list[str]:
    group = file.get("features")
    if not isinstance(group, h5py.Group):
        there = some(sorted(file)) or "nothing"
        msg = f"{where} has no group 'features'; it has {there}: run AtlasPatch's features first"
        raise FormatError(msg)
    return [name for name in group if isinstance(group[name], h5py.Dataset)]


def read(files: SlideFiles, choice: FolderChoice, mpp: float | None) -> TileVectors:
    """Read a slide's tiles and the vectors of the chosen encoder. Raises FormatError where it has none of it."""
    path = files.files["vectors"]
    where = str(path)
    with checked_hdf5(path, FormatError) as local, h5py.File(local, "r") as file:
        encoders = _encoders(file, where)
        encoder = folders.one_of(encoders, choice.encoder, f"{where} has features of the encoders", "encoder_name")
        features, coords = file["features"][encoder], arrays.dataset(file, "coords", where)
        arrays.check_same_rows((features.shape or (0,))[0], (coords.shape or (0,))[0], where)
        vectors, notes = arrays.read_vectors(features, where)
        corners = arrays.read_matrix(coords, where, columns=(2, COLUMNS))
        attributes = arrays.attributes_of(coords, features, file)
    side = arrays.number_of(attributes, "patch_size_level0", where)
    if side is None:
        msg = f"{where} has no attribute `patch_size_level0`, the side of a tile in level-0 px: make it again"
        raise FormatError(msg)
    _check_declared(attributes, len(vectors), vectors.shape[1], where)
    size = tuple(arrays.number_of(attributes, f"level0_{name}", where) for name in ("width", "height"))
    known, said = folders.agreed_mpp(arrays.number_of(attributes, "mpp", where), mpp, files.slide)
    image = attributes.get("wsi_path", attributes.get("filename"))
    return TileVectors(
        slide=files.slide,
        boxes=arrays.boxes_of(corners, side, where),
        vectors=vectors,
        tile_px=int(arrays.number_of(attributes, "patch_size", where) or 0),
        mpp=known,
        size=None if None in size else (int(size[0] or 0), int(size[1] or 0)),
        encoder=encoder,
        image=image if isinstance(image, str) else None,
        attributes=attributes,
        notes=(*notes, *said),
    )


def _check_declared(attributes: dict[str, Any], rows: int, dim: int, where: str) -> None:
    """Raise FormatError where a file has fewer rows or another dimension than it says: its run was ended."""
    for name, found in (("num_patches", rows), ("embedding_dim", dim)):
        if attributes.get(name) not in (None, found):
            msg = f"{where} has {found} and its attribute {name!r} is {attributes[name]!r}: incomplete; make it again"
            raise FormatError(msg)
