"""Embeddings of hest-bench: `<encoder>/<id>.h5` with a vector for each image of `patches/<id>.h5`.

| dataset | type | content |
|---|---|---|
| `embeddings` | float (N, dim) | |
| `coords` | int64 (N, 2) | top-left corner, in px of the slide's full resolution |
| `barcodes` | text (N, 1) | name of the spot |

The bench's script does not embed a sample whose file is there, so it scores the vectors that are written here. The
files have no size of tiles and no um/px. A patch of HEST is 112 um wide, and um/px are those of the slide table.
"""

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from raystp.errors import FormatError, some
from raystp.hdf5 import checked_hdf5
from raystp.interop.choice import FolderChoice, FoundFiles, SlideFiles
from raystp.interop.features import arrays
from raystp.interop.features.tiles import TileVectors
from raystp.storage import StoragePath

PATCH_UM = 112.0
"""Side of HEST's patches: 224 px of .5 um/px."""
MAX_NAME = 256
"""Characters of a barcode at most; Visium's have 18."""


def find(folder: StoragePath, choice: FolderChoice) -> FoundFiles:
    """Return the samples in the folder of an encoder, or in that of a task with such folders.

    Raises FormatError where there is no encoder, and where several are there and none is chosen.
    """
    own = _samples(folder)
    if not own:
        encoders = [name for name in folder.names() if _samples(folder / name)]
        chosen = [name for name in encoders if choice.encoder in (None, name)]
        if len(chosen) != 1:
            found = f"has embeddings of {some(encoders)}: choose one with encoder_name=..." if encoders else "has none"
            msg = f"{folder} {found}; expected <encoder>/<id>.h5, as hest-bench writes them"
            raise FormatError(msg)
        folder = folder / chosen[0]
        own = _samples(folder)
    slides = tuple(SlideFiles(name.removesuffix(".h5"), {"vectors": folder / name}) for name in own)
    return FoundFiles(slides, choice.encoder or folder.name)


def _samples(folder: StoragePath) -> list[str]:
    return sorted(name for name in folder.names() if name.endswith(".h5"))


def read(files: SlideFiles, choice: FolderChoice, mpp: float | None) -> TileVectors:
    """Read a sample; `mpp` is needed for the side of a tile, unless `side_px` is chosen. Raises FormatError."""
    path = files.files["vectors"]
    where = str(path)
    with checked_hdf5(path, FormatError) as local, h5py.File(local, "r") as file:
        stored, coords = arrays.dataset(file, "embeddings", where), arrays.dataset(file, "coords", where)
        arrays.check_same_rows((stored.shape or (0,))[0], (coords.shape or (0,))[0], where)
        vectors, notes = arrays.read_vectors(stored, where)
        corners = arrays.read_matrix(coords, where, columns=(2, 2))
        names = _names(arrays.dataset(file, "barcodes", where), len(vectors), where)
        attributes = arrays.attributes_of(file, stored)
    side, assumed = _side(choice, mpp, files.slide)
    return TileVectors(
        slide=files.slide,
        boxes=arrays.boxes_of(corners, side, where),
        vectors=vectors,
        tile_px=0,
        mpp=mpp,
        spots=names,
        attributes=attributes,
        notes=(*notes, *assumed),
    )


def _side(choice: FolderChoice, mpp: float | None, slide: str) -> tuple[float, list[str]]:
    """Return the side of a tile in level-0 px, and a note where it is assumed."""
    if choice.side_px is not None:
        return choice.side_px, []
    if mpp is None:
        msg = (
            f"embeddings of hest-bench carry no um/px: give the slide table of `raystp import hest-bench`; missing for "
            f"{slide!r}"
        )
        raise FormatError(msg)
    if choice.side_um is not None:
        return choice.side_um / mpp, []
    return PATCH_UM / mpp, [f"tiles are {PATCH_UM:g} um wide, as HEST's patches; side_um=... states another width"]


def _names(data: h5py.Dataset, count: int, where: str) -> tuple[str, ...]:
    """Return the names of spots; raises FormatError unless each tile has one of its own."""
    shape = tuple(data.shape or ())
    if h5py.check_string_dtype(data.dtype) is None or shape not in {(count,), (count, 1)}:
        msg = f"{where} has {count} embeddings, and 'barcodes' has the shape {shape} of {data.dtype}: expected texts"
        raise FormatError(msg)
    texts = [text for row in range(0, count, arrays.SLAB) for text in data[row : row + arrays.SLAB].ravel().tolist()]
    names = tuple(text.decode(errors="replace") if isinstance(text, bytes) else str(text) for text in texts)
    if wrong := [row for row, name in enumerate(names) if not 0 < len(name) <= MAX_NAME]:
        msg = (
            f"{where}: 'barcodes' has {len(names[wrong[0]])} characters in row {wrong[0]}; allowed are 1 to {MAX_NAME}"
        )
        raise FormatError(msg)
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        msg = f"{where}: 'barcodes' has {some(twice)} more than once; spots are joined by name, so embed it again"
        raise FormatError(msg)
    return names


def write(tiles: TileVectors, folder: StoragePath) -> Sequence[str]:
    """Write `<folder>/<encoder>/<slide>.h5`; equal tiles give equal bytes. Raises FormatError without spots."""
    spots = tiles.spots or ()
    named = [name for name in spots if name is not None]
    if len(set(named)) < len(tiles.boxes):
        msg = (
            f"slide {tiles.slide!r} has {len(tiles.boxes)} tiles and {len(set(named))} spots: hest-bench joins by "
            "name, so tile around measured spots (`raystp tile --spots ...`)"
        )
        raise FormatError(msg)
    corners, notes = arrays.whole_corners(tiles.boxes)

    def write_file(local: Path) -> None:
        with h5py.File(local, "w", libver=("earliest", "v110")) as file:
            file.create_dataset("embeddings", data=tiles.vectors, track_times=False)
            file.create_dataset("coords", data=corners, track_times=False)
            texts = np.asarray(named, dtype=object)[:, None]
            file.create_dataset("barcodes", data=texts, dtype=h5py.string_dtype(), track_times=False)
            file.attrs["raystp"] = arrays.source_attribute(tiles.attributes)

    (folder / (tiles.encoder or "unknown") / f"{tiles.slide}.h5").write_file(write_file)
    return notes
