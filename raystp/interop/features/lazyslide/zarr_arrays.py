"""Arrays of zarr 2 and 3, read after a check of their metadata.

A zarr array declares its shape, its chunks and the codecs of its chunks in JSON. Some codecs unpickle, and a chunk may
declare any size. So only known codecs are accepted, sizes are bounded by the bytes of the files, and no link is
followed.
"""

import contextlib
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.storage import LocalStore

from raystp.errors import FormatError
from raystp.hdf5 import max_declared_bytes
from raystp.interop.features.arrays import check_rows
from raystp.storage import StoragePath
from raystp.storage.text_files import read_object

MAX_METADATA = 1 << 20
MAX_FILES = 1_000_000
MAX_CHUNK = 1 << 30
"""Bytes of one chunk after decompression."""

CODECS = frozenset({"bytes", "blosc", "zstd", "gzip", "zlib", "lz4", "crc32c", "transpose", "sharding_indexed"})
"""What may encode chunks of numbers; numcodecs has others that unpickle."""

NUMBERS = "fiu"


@contextlib.contextmanager
def local_folder(path: StoragePath) -> Iterator[Path]:
    """Yield a local folder with the files of a part of a store: itself, or a temporary copy.

    Raises FormatError for links, for names that lead out of the folder, and where there is no such folder.
    """
    if not path.is_folder():
        msg = f"{path} is missing: the store is incomplete; write it again"
        raise FormatError(msg)
    if path.is_local:
        _check_links(path.local_path, path)
        yield path.local_path
        return
    names = path.files()
    if len(names) > MAX_FILES or any(not _is_inner(name) for name in names):
        msg = f"{path} has {len(names)} files, or names that lead out of it: not read"
        raise FormatError(msg)
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            file = Path(folder) / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes((path / name).read_bytes())
        yield Path(folder)


def _is_inner(name: str) -> bool:
    return not name.startswith("/") and not {"", ".", ".."} & set(name.split("/"))


def _check_links(folder: Path, path: StoragePath) -> None:
    if folder.is_symlink() or folder.parent.is_symlink():
        msg = f"{path} is a link: links inside a store are not followed"
        raise FormatError(msg)
    for one in folder.rglob("*"):  # it does not enter linked folders
        if one.is_symlink():
            msg = f"{path} has a link at {one.relative_to(folder)}: links inside a store are not followed"
            raise FormatError(msg)


def attributes_of(path: StoragePath) -> dict[str, Any]:
    """Return the attributes of a group or array, of zarr 3 (`zarr.json`) or 2 (`.zattrs`); {} where it has none."""
    for name in ("zarr.json", ".zattrs"):
        if (path / name).exists():
            found = read_object(path / name, MAX_METADATA, FormatError)
            found = found.get("attributes", {}) if name == "zarr.json" else found
            if not isinstance(found, dict):
                msg = f"{path / name} has attributes that are no JSON object: damaged"
                raise FormatError(msg)
            return found
    return {}


def is_array(folder: Path) -> bool:
    """Return whether a folder is an array, and not a group or nothing."""
    path = StoragePath.of(folder)  # an error for a name that no file can have
    if (path / "zarr.json").exists():
        return read_object(path / "zarr.json", MAX_METADATA, FormatError).get("node_type") == "array"
    return (path / ".zarray").exists()


def read_numbers(folder: Path, where: str) -> np.ndarray:
    """Return an array of numbers. Raises FormatError for other types and codecs, and for sizes beyond its files."""
    path = StoragePath.of(folder)
    file = next((path / name for name in ("zarr.json", ".zarray") if (path / name).exists()), None)
    if file is None:
        msg = f"{where} is no zarr array: it has no zarr.json and no .zarray"
        raise FormatError(msg)
    _check(read_object(file, MAX_METADATA, FormatError), folder, where)
    try:
        opened = zarr.open_array(LocalStore(folder, read_only=True), mode="r")
        return np.asarray(opened[...])
    except Exception as error:  # noqa: BLE001 -- a damaged store makes zarr and its codecs raise almost anything
        msg = f"{where} is not readable: {type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"
        raise FormatError(msg) from None


def _check(metadata: dict[str, Any], folder: Path, where: str) -> None:
    """Raise FormatError unless an array is one of numbers, of known codecs, that its files can hold."""
    try:
        dtype = np.dtype(str(metadata["data_type"] if "data_type" in metadata else metadata["dtype"]))
        shape = [int(length) for length in metadata["shape"]]
        grid = metadata.get("chunk_grid", {}).get("configuration", {}).get("chunk_shape", metadata.get("chunks"))
        chunk = math.prod(int(length) for length in grid) * dtype.itemsize
        codecs = set(_codecs(metadata))
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        msg = f"{where} has metadata that are no array of numbers ({type(error).__name__}: {error})"
        raise FormatError(msg) from None
    if dtype.kind not in NUMBERS:
        msg = f"{where} has values of type {dtype}; expected numbers: nothing is unpickled"
        raise FormatError(msg)
    if not codecs <= CODECS:
        msg = f"{where} is encoded with {sorted(codecs - CODECS)}; known are {', '.join(sorted(CODECS))}: not read"
        raise FormatError(msg)
    check_rows(shape[0] if shape else 1, where)
    stored = sum(one.stat().st_size for one in folder.rglob("*") if one.is_file())
    declared = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or declared > max_declared_bytes(stored) or chunk > MAX_CHUNK:
        msg = (
            f"{where} declares the shape {shape} in chunks of {chunk} bytes, and has {stored} bytes: damaged or hostile"
        )
        raise FormatError(msg)


def _codecs(metadata: dict[str, Any]) -> Iterator[str]:
    """Return the names of all codecs of an array, of those within shards too."""
    for key in ("compressor", "filters", "codecs", "index_codecs", "storage_transformers"):
        found = metadata.get(key) or []
        for one in found if isinstance(found, list) else [found]:
            yield str(one["name"] if "name" in one else one["id"])
            yield from _codecs(one.get("configuration", {}))
