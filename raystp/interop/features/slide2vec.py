"""Folders of slide2vec 5 to 7, and the coordinates that hs2p writes for it.

    tiles/[<class>/]<slide>.coordinates.npz              x, y in level-0 px
    tiles/[<class>/]<slide>.coordinates.meta.json        side of a tile, um/px, size of the slide
    tile_embeddings/[<class>/]<slide>.pt or .npz         vectors
    tile_embeddings/[<class>/]<slide>.meta.json          encoder

The um/px is that of the file. Tiles may be read a few per cent off the spacing that was asked for, without resampling,
so the true side is the side in level-0 px times um/px. Paths in the JSON are of the machine that wrote it: files are
found by their names.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from raystp.errors import FormatError, some
from raystp.interop.choice import FolderChoice, FoundFiles, SlideFiles
from raystp.interop.features import arrays, folders
from raystp.interop.features.saved import read_npz, read_tensor, section_of
from raystp.interop.features.tiles import TileVectors, Vectors
from raystp.storage import StoragePath
from raystp.storage.text_files import read_object

TILES, VECTORS = "tiles", "tile_embeddings"
COORDINATES, GEOMETRY, DESCRIPTION = ".coordinates.npz", ".coordinates.meta.json", ".meta.json"
_ENDINGS = (".pt", ".npz")
_NOT_TILES = ("slide_embeddings", "hierarchical_embeddings", "patient_embeddings")


MAX_JSON = 16 << 20
"""Bytes of a description at most."""


def find(folder: StoragePath, choice: FolderChoice) -> FoundFiles:
    """Return the slides of a run's folder; `choice.grid` is a class of tissue, where tiles of several were embedded.

    Raises FormatError where there are no embeddings of tiles, or coordinates are missing.
    """
    folder = folder.parent if folder.name == VECTORS else folder
    vectors, kind = folder / VECTORS, choice.grid
    names = vectors.names()
    if kind is None and not any(name.endswith(_ENDINGS) for name in names):
        classes = [name for name in names if (vectors / name).is_folder()]
        kind = folders.one_of(classes, None, f"{vectors} has tiles of the classes", "grid") if classes else None
    vectors, tiles = (one / kind if kind else one for one in (vectors, folder / TILES))
    there = set(vectors.names())
    found = sorted(name for name in there if name.endswith(_ENDINGS))
    if not found:
        others = [name for name in _NOT_TILES if (folder / name).is_folder()]
        msg = f"{vectors} has no <slide>.pt and no <slide>.npz: give the output folder of slide2vec"
        raise FormatError(f"{msg} ({some(others)} are no tiles)" if others else msg)
    slides = [SlideFiles(_stem(name), _files(vectors, tiles, name, there)) for name in found]
    notes = [f"{name} are not read: they are no tiles" for name in _NOT_TILES if (folder / name).is_folder()]
    ordered = folders.check_distinct(slides)
    return FoundFiles(ordered, choice.encoder or folders.first_readable(ordered, _encoder), tuple(notes))


def _encoder(files: SlideFiles) -> str | None:
    """Return the encoder that a slide's description names."""
    found = (
        read_object(files.files["description"], MAX_JSON, FormatError).get("encoder_name")
        if "description" in files.files
        else None
    )
    return found if isinstance(found, str) else None


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _files(vectors: StoragePath, tiles: StoragePath, name: str, there: set[str]) -> dict[str, StoragePath]:
    slide = _stem(name)
    files = {"vectors": vectors / name, "coordinates": tiles / f"{slide}{COORDINATES}"}
    files["geometry"] = tiles / f"{slide}{GEOMETRY}"
    description = f"{slide}{DESCRIPTION}"
    return files | ({"description": vectors / description} if description in there else {})


def read(files: SlideFiles, choice: FolderChoice, mpp: float | None) -> TileVectors:
    """Read a slide's vectors and their tiles; row i is of tile `tile_index[i]`, where the file has it.

    Raises FormatError for embeddings of whole slides, and where vectors and coordinates do not fit each other.
    """
    described = read_object(files.files["description"], MAX_JSON, FormatError) if "description" in files.files else {}
    where = str(files.files["vectors"])
    if described.get("encoder_level") not in (None, "tile"):
        msg = f"{where} has vectors of a whole {described['encoder_level']}, not of tiles: give tile_embeddings/"
        raise FormatError(msg)
    vectors, index, notes = _read_vectors(files.files["vectors"])
    corners, tiles = _read_corners(files.files["coordinates"])
    rows = _rows(index, len(vectors), tiles, f"{where} with {files.files['coordinates']}")
    geometry = read_object(files.files["geometry"], MAX_JSON, FormatError)
    origin = str(files.files["geometry"])
    tiling, slide = (section_of(geometry, one, files.files["geometry"]) for one in ("tiling", "slide"))
    side = arrays.number_of(tiling, "tile_size_lv0", origin) or arrays.number_of(described, "tile_size_lv0", where)
    if side is None:
        msg = f"{origin} has no `tile_size_lv0`, the side of a tile in level-0 px: make the tiles again"
        raise FormatError(msg)
    _check_described(described, vectors.shape, where)
    known, said = folders.agreed_mpp(arrays.number_of(slide, "base_spacing_um", origin), mpp, files.slide)
    encoder, image = described.get("encoder_name"), described.get("image_path")
    return TileVectors(
        slide=files.slide,
        boxes=arrays.boxes_of(corners[rows], side, where),
        vectors=vectors,
        tile_px=int(arrays.number_of(tiling, "requested_tile_size_px", origin) or 0),
        mpp=known,
        size=_size(slide.get("dimensions")),
        encoder=encoder if isinstance(encoder, str) else choice.encoder,
        image=image if isinstance(image, str) else None,
        attributes={"tiles": geometry, "embeddings": described},
        notes=(*notes, *said, *_spacing_note(tiling)),
    )


def _read_vectors(path: StoragePath) -> tuple[Vectors, np.ndarray | None, list[str]]:
    """Return the vectors, their rows among the tiles where the file has them, and notes."""
    index = None
    if path.name.endswith(".npz"):
        found = read_npz(path, ["features"], optional=["tile_index"])
        matrix, index = found["features"], found.get("tile_index")
        if matrix.ndim != 2:  # noqa: PLR2004 -- tile x dim
            msg = f"{path}: 'features' has the shape {matrix.shape}, expected tile x dim"
            raise FormatError(msg)
    else:
        matrix = read_tensor(path)
    vectors, notes = arrays.checked_vectors(matrix, str(path))
    return vectors, index, notes


def _read_corners(path: StoragePath) -> tuple[np.ndarray, np.ndarray]:
    """Return corners and the number of each tile, which nearly always is its row."""
    found = read_npz(path, ["x", "y"], optional=["tile_index"])
    x, y = found["x"], found["y"]
    if x.ndim != 1 or x.shape != y.shape:
        msg = f"{path} has x of shape {x.shape} and y of shape {y.shape}, expected one of each per tile"
        raise FormatError(msg)
    numbers = found.get("tile_index", np.arange(len(x)))
    if numbers.shape != x.shape or len(np.unique(numbers)) != len(x):
        msg = f"{path}: `tile_index` has the shape {numbers.shape}, expected another number for each of {len(x)} tiles"
        raise FormatError(msg)
    return np.stack([x, y], axis=1), numbers


def _rows(index: np.ndarray | None, vectors: int, tiles: np.ndarray, where: str) -> np.ndarray:
    """Return the row of each vector's tile among the numbers `tiles`; without `index`, both are in one order.

    Raises FormatError unless each vector has a tile of its own.
    """
    if index is None:
        arrays.check_same_rows(vectors, len(tiles), where)
        return np.arange(vectors)
    if index.shape != (vectors,) or index.dtype.kind not in "iu" or len(np.unique(index)) != vectors:
        msg = f"{where}: `tile_index` has the shape {index.shape}; expected one tile for each of {vectors} vectors"
        raise FormatError(msg)
    if not np.isin(index, tiles).all():
        count = len(tiles)
        msg = f"{where}: `tile_index` has tiles {index.min()} to {index.max()}, and there are {count}: of another run"
        raise FormatError(msg)
    order = np.argsort(tiles)
    return np.asarray(order[np.searchsorted(tiles[order], index)], np.int64)


def _check_described(described: Mapping[str, Any], shape: tuple[int, ...], where: str) -> None:
    for name, found in zip(("num_tiles", "feature_dim"), shape, strict=True):
        if described.get(name) not in (None, found):
            msg = f"{where} has {found} and its JSON says {name} {described[name]!r}: incomplete; embed the slide again"
            raise FormatError(msg)


def _size(dimensions: Any) -> tuple[int, int] | None:
    is_pair = isinstance(dimensions, list) and len(dimensions) == 2  # noqa: PLR2004 -- width and height
    return (
        (int(dimensions[0]), int(dimensions[1]))
        if is_pair and all(isinstance(one, int) for one in dimensions)
        else None
    )


def _spacing_note(tiling: Mapping[str, Any]) -> list[str]:
    """Return a note where tiles were read at another spacing than was asked for, without resampling."""
    asked, read_at = tiling.get("requested_spacing_um"), tiling.get("read_spacing_um")
    numbers = isinstance(asked, int | float) and isinstance(read_at, int | float) and asked > 0
    if tiling.get("is_within_tolerance") is not True or not numbers or read_at == asked:
        return []
    return [f"tiles were read at {read_at:g} um/px where {asked:g} was asked for: their side is that of {read_at:g}"]
