"""Check the header of an HDF5 file before memory is allocated for its data.

An HDF5 header can declare any size, link to other files, or hold opaque objects. A declared size is accepted up to
1000 times the file's own size (gzip compresses zeros by that much) plus 1 GiB. HDF5 decompresses a chunk as a whole,
also for one row of it, so no chunk may have more than 1 GiB. A string is stored once and may be referred to by each
cell, so lengths of strings are added up, and no attribute may have more than 4096 of them unless they are bounded by
the size of the file. Links to other files and object types are rejected, and so are links to a name
that is not there. The caller gives the class of the error: SectionError for measured sections, SlideError for image
patches, FormatError for imported features.
"""

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from raystp.errors import RaystpError
from raystp.hdf5_texts import text_bytes
from raystp.storage import StoragePath

MAX_EXPANSION = 1000
ALLOWANCE = 1 << 30
"""Bytes that any file may declare, and that a chunk may have."""
MAX_ATTRIBUTE_TEXTS = 1 << 12
"""Strings of an attribute: as many references as the header of an object, which has 64 kB, can hold."""


def max_declared_bytes(file_size: int) -> int:
    """Return the most bytes of data that a file of this size may declare."""
    return MAX_EXPANSION * file_size + ALLOWANCE


@contextlib.contextmanager
def checked_hdf5(path: StoragePath, error: type[RaystpError]) -> Iterator[Path]:
    """Yield a local path of an HDF5 file whose header is safe; raises `error`, or StorageError for no file."""
    path.size()  # names a file that is not there
    with path.local() as local:
        check_hdf5(local, str(path), error)
        yield local


def check_hdf5(file: Path, origin: str, error: type[RaystpError]) -> None:
    """Raise `error`, whose message begins with `origin`, if the header of a local HDF5 file is not safe."""
    size = file.stat().st_size
    limit = max_declared_bytes(size)
    try:
        with h5py.File(file, "r") as opened:
            outside = opened.visititems_links(_fault_of_link)  # before any is followed: a soft link may lead through it
            if outside is not None:
                raise _UnsafeError(outside)
            found = [opened, *_objects(opened, set())]
            datasets = [one for one in found if isinstance(one, h5py.Dataset)]
            for one in found:
                _check_attributes(one, size, limit)
            declared = sum(_declared_bytes(dataset) for dataset in datasets)
            declared += sum(text_bytes(file, dataset, limit) for dataset in datasets)
    except _UnsafeError as fault:
        msg = f"{origin} {fault}"
        raise error(msg) from None
    except Exception as fault:  # noqa: BLE001 -- a damaged file makes h5py raise almost anything
        msg = f"{origin} is not a readable HDF5 file: {type(fault).__name__}: {str(fault).partition(chr(10))[0]}"
        raise error(msg) from None
    if declared > limit:
        msg = (
            f"{origin} declares {declared} bytes of data in a file of {size} bytes, beyond the limit of "
            f"{limit} ({MAX_EXPANSION} times its size plus 1 GiB): a damaged or hostile file; it was not read"
        )
        raise error(msg)


class _UnsafeError(Exception):
    """What a header has that is not read; the message follows the file's name."""


def _fault_of_link(name: str, link: object) -> str | None:
    if not isinstance(link, h5py.ExternalLink):
        return None
    return f"links to another file at '/{name}' ({link.filename}): such links are not followed"


def _objects(group: h5py.Group, visited: set[int]) -> Iterator[h5py.Group | h5py.Dataset]:
    """Yield the groups and datasets below a group, each once."""
    for name in group:
        item = group[name]
        address = h5py.h5o.get_info(item.id).addr
        if address in visited:  # a second name for the same object, or a group that contains itself
            continue
        visited.add(address)
        if isinstance(item, h5py.Group):
            yield item
            yield from _objects(item, visited)
        elif isinstance(item, h5py.Dataset):
            yield item


def _check_attributes(item: h5py.Group | h5py.Dataset, size: int, limit: int) -> None:
    for name in item.attrs:
        stored = item.attrs.get_id(name)
        cells = math.prod(stored.shape or ())
        if stored.dtype.hasobject and cells > MAX_ATTRIBUTE_TEXTS and cells * size > limit:
            where = f"the attribute '{name}' of '{item.name}'"
            msg = f"has {cells} strings in {where}, at most {MAX_ATTRIBUTE_TEXTS} are read"
            raise _UnsafeError(msg)


def _declared_bytes(dataset: h5py.Dataset) -> int:
    if dataset.is_virtual or dataset.external:
        msg = f"stores '{dataset.name}' in other files: only data inside the file itself is read"
        raise _UnsafeError(msg)
    if not _is_plain(dataset.dtype):
        msg = f"holds objects at '{dataset.name}' ({dataset.dtype}): only numbers and strings are read"
        raise _UnsafeError(msg)
    item = int(dataset.dtype.itemsize)
    if (chunk := math.prod(dataset.chunks or (0,)) * item) > ALLOWANCE:
        msg = f"stores '{dataset.name}' in chunks of {chunk} bytes, beyond the limit of {ALLOWANCE}: it was not read"
        raise _UnsafeError(msg)
    return math.prod(int(length) for length in dataset.shape or ()) * item


def _is_plain(dtype: np.dtype[np.void]) -> bool:
    if dtype.names is not None:
        return all(_is_plain(dtype[name]) for name in dtype.names)
    return dtype.kind != "O" or h5py.check_string_dtype(dtype) is not None
