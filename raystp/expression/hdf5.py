"""Check the header of an HDF5 file before memory is allocated for its data.

An HDF5 header can declare any size, link to other files, or hold opaque objects. A declared size is accepted up to
1000 times the file's own size (gzip compresses zeros by that much) plus 1 GiB. Links to other files and object types
are rejected.
"""

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from raystp.errors import SectionError
from raystp.storage import StoragePath

MAX_EXPANSION = 1000
ALLOWANCE = 1 << 30
"""Bytes that any file may declare."""


def max_declared_bytes(file_size: int) -> int:
    """Return the most bytes of data that a file of this size may declare."""
    return MAX_EXPANSION * file_size + ALLOWANCE


@contextlib.contextmanager
def checked_hdf5(path: StoragePath) -> Iterator[Path]:
    """Yield a local path of an HDF5 file whose header is safe; raises SectionError otherwise."""
    size = path.size()
    with path.local() as local:
        try:
            with h5py.File(local, "r") as file:
                declared = sum(_declared_bytes(dataset, str(path)) for dataset in _datasets(file, str(path), set()))
        except SectionError:
            raise
        except Exception as error:  # noqa: BLE001 -- a damaged file makes h5py raise almost anything
            msg = f"{path} is not a readable HDF5 file: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
            raise SectionError(msg) from None
        limit = max_declared_bytes(size)
        if declared > limit:
            msg = (
                f"{path} declares {declared} bytes of data in a file of {size} bytes, beyond the limit of "
                f"{limit} ({MAX_EXPANSION} times its size plus 1 GiB): a damaged or hostile file; it was not read"
            )
            raise SectionError(msg)
        yield local


def _datasets(group: h5py.Group, origin: str, visited: set[int]) -> Iterator[h5py.Dataset]:
    for name in group:
        link = group.get(name, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            source = f"{group.name.rstrip('/')}/{name}"
            msg = f"{origin} links to another file at '{source}' ({link.filename}): such links are not followed"
            raise SectionError(msg)
        item = group[name]
        address = h5py.h5o.get_info(item.id).addr
        if address in visited:  # a second name for the same object, or a group that contains itself
            continue
        visited.add(address)
        if isinstance(item, h5py.Group):
            yield from _datasets(item, origin, visited)
        elif isinstance(item, h5py.Dataset):
            yield item


def _declared_bytes(dataset: h5py.Dataset, origin: str) -> int:
    if dataset.is_virtual or dataset.external:
        msg = f"{origin} stores '{dataset.name}' in other files: only data inside the file itself is read"
        raise SectionError(msg)
    if not _is_plain(dataset.dtype):
        msg = f"{origin} holds objects at '{dataset.name}' ({dataset.dtype}): only numbers and strings are read"
        raise SectionError(msg)
    return math.prod(int(length) for length in dataset.shape or ()) * int(dataset.dtype.itemsize)


def _is_plain(dtype: np.dtype[np.void]) -> bool:
    if dtype.names is not None:
        return all(_is_plain(dtype[name]) for name in dtype.names)
    return dtype.kind != "O" or h5py.check_string_dtype(dtype) is not None
