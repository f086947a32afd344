"""A look at an HDF5 file before anything is allocated for it or run because of it.

An HDF5 header can claim any size, point into other files, or hold opaque objects. A claim is believed up to 1000 times
the file's own size (gzip reaches that on zeros) and 1 GiB; links out of the file and object types are refused.
"""

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from raystp.errors import SectionError
from raystp.storage import StoragePath

EXPANSION = 1000
ALLOWANCE = 1 << 30


@contextlib.contextmanager
def checked_hdf5(place: StoragePath) -> Iterator[Path]:
    """Give a local path of an HDF5 file whose header is sane; raises SectionError in a sentence where it is not."""
    size = place.size()
    with place.local() as path:
        try:
            with h5py.File(path, "r") as file:
                declared = sum(_declared(dataset, str(place)) for dataset in _datasets(file, str(place), set()))
        except (OSError, RuntimeError, KeyError) as error:
            msg = f"{place} is not an HDF5 file that can be read: {str(error).partition(chr(10))[0]}"
            raise SectionError(msg) from None
        limit = EXPANSION * size + ALLOWANCE
        if declared > limit:
            msg = (
                f"{place} claims to hold {declared} bytes of data in a file of {size} bytes, beyond the limit of "
                f"{limit} ({EXPANSION} times its size and 1 GiB): a damaged or hostile file; it was not read"
            )
            raise SectionError(msg)
        yield path


def _datasets(group: h5py.Group, where: str, seen: set[int]) -> Iterator[h5py.Dataset]:
    for name in group:
        link = group.get(name, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            at = f"{group.name.rstrip('/')}/{name}"
            msg = f"{where} points to another file at '{at}' ({link.filename}): links out are not followed"
            raise SectionError(msg)
        item = group[name]
        address = h5py.h5o.get_info(item.id).addr
        if address in seen:  # a second name for the same object, or a group that holds itself
            continue
        seen.add(address)
        if isinstance(item, h5py.Group):
            yield from _datasets(item, where, seen)
        elif isinstance(item, h5py.Dataset):
            yield item


def _declared(dataset: h5py.Dataset, where: str) -> int:
    if dataset.is_virtual or dataset.external:
        msg = f"{where} keeps '{dataset.name}' in other files: only data inside the file itself is read"
        raise SectionError(msg)
    if not _is_plain(dataset.dtype):
        msg = f"{where} holds objects at '{dataset.name}' ({dataset.dtype}): only numbers and strings are read"
        raise SectionError(msg)
    return math.prod(int(length) for length in dataset.shape or ()) * int(dataset.dtype.itemsize)


def _is_plain(dtype: np.dtype[np.void]) -> bool:
    if dtype.names is not None:
        return all(_is_plain(dtype[name]) for name in dtype.names)
    return dtype.kind != "O" or h5py.check_string_dtype(dtype) is not None
