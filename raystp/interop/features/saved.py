"""Read what other tools save with torch, numpy and json: nothing is unpickled, and sizes are checked before data."""

import contextlib
import math
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from raystp.errors import FormatError, some
from raystp.hdf5 import max_declared_bytes
from raystp.interop.features.arrays import MAX_DIM, check_rows
from raystp.storage import StoragePath

NUMBERS = "fiu"
"""numpy's kinds of dtypes that are numbers."""

_NPY_VERSIONS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def section_of(description: dict[str, Any], name: str, path: StoragePath) -> dict[str, Any]:
    """Return an object inside a description; {} where it is absent or null. Raises FormatError for anything else."""
    found = description.get(name)
    if found is not None and not isinstance(found, dict):
        msg = f"{path}: {name!r} is {str(found)[:80]!r}, expected an object"
        raise FormatError(msg)
    return found or {}


def read_tensor(path: StoragePath) -> np.ndarray:
    """Return the one tensor of tile x dim that a `.pt` file holds, as it is stored; bfloat16 becomes float32.

    Only `torch.load(weights_only=True)` opens it. Raises FormatError for pickled arrays and objects, for files of
    torch before 1.6 (they cannot be bounded), and for a tensor that is larger than its file.
    """
    import torch  # noqa: PLC0415 -- it takes seconds, and few formats need it

    path.size()  # names a file that is not there
    with path.local() as local:
        _check_archive(local, path)
        try:
            found = torch.load(local, weights_only=True, map_location="cpu")
        except Exception as error:  # noqa: BLE001 -- a damaged file makes torch raise almost anything
            if "weights" in str(error).lower() or "unpickl" in type(error).__name__.lower():
                raise FormatError(_pickled(path)) from None
            msg = f"{path} is not readable by torch: {type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"
            raise FormatError(msg) from None
        if type(found) is not torch.Tensor or found.layout != torch.strided or found.is_quantized:
            msg = f"{path} holds a {type(found).__name__}, expected one dense tensor of tile x dim"
            raise FormatError(msg)
        _check_shape(tuple(found.shape), str(path))
        if found.numel() * found.element_size() > found.untyped_storage().nbytes():
            msg = f"{path} declares a tensor of {tuple(found.shape)} and stores fewer values: damaged or hostile"
            raise FormatError(msg)
        found = found.detach()
        if found.dtype == torch.bfloat16:
            found = found.float()
        return _of_numbers(found, path)


def _of_numbers(tensor: Any, path: StoragePath) -> np.ndarray:
    """Return a tensor of torch as an array; raises FormatError for complex numbers, truth values and 8 bit floats."""
    try:
        found = np.ascontiguousarray(tensor.numpy())
    except TypeError:  # a type that numpy has not
        found = np.empty(0, object)
    if found.dtype.kind not in NUMBERS:
        msg = f"{path} holds a tensor of {tensor.dtype}, expected real numbers; save the features as float32"
        raise FormatError(msg)
    return found


def _check_archive(local: Path, path: StoragePath) -> None:
    """Raise FormatError unless a file is a zip archive as torch writes it, whose parts are stored as they are."""
    try:
        if not zipfile.is_zipfile(local):
            msg = f"{path} is no tensor as torch 1.6 and later save it; load and save it once more where you trust it"
            raise FormatError(msg)
        with zipfile.ZipFile(local) as archive:
            parts = archive.infolist()
    except FormatError:
        raise
    except Exception as error:  # noqa: BLE001 -- a damaged archive makes zipfile raise almost anything
        msg = f"{path} is a damaged archive: {error}"
        raise FormatError(msg) from None
    packed = any(part.compress_type != zipfile.ZIP_STORED for part in parts)
    if packed or sum(part.file_size for part in parts) > local.stat().st_size:
        msg = f"{path} is a compressed archive, and torch writes none: not read"
        raise FormatError(msg)


def _pickled(path: StoragePath) -> str:
    return (
        f"{path} holds a pickled array or object, which raystp does not open: save features as h5 (TRIDENT: "
        'saveas="h5", its default), or convert it where you trust it'
    )


def read_npz(path: StoragePath, names: Collection[str], optional: Collection[str] = ()) -> dict[str, np.ndarray]:
    """Return arrays of numbers of an `.npz` file by name; an optional one may be missing.

    Raises FormatError for pickled arrays, and where a header declares more than the file can hold.
    """
    path.size()
    with path.local() as local, _archive(local, path) as archive:
        there = {name.removesuffix(".npy") for name in archive.namelist()}
        if missing := sorted(set(names) - there):
            msg = f"{path} has no array {some(missing)}; it has {some(sorted(there)) or 'none'}"
            raise FormatError(msg)
        wanted = [*names, *(name for name in optional if name in there)]
        return {name: _read_npy(archive, name, path, local.stat().st_size) for name in wanted}


@contextlib.contextmanager
def _archive(local: Path, path: StoragePath) -> Any:
    try:
        with zipfile.ZipFile(local) as archive:
            yield archive
    except FormatError:
        raise
    except Exception as error:  # noqa: BLE001 -- a damaged archive makes zipfile and its codecs raise almost anything
        msg = f"{path} is not a readable npz file: {type(error).__name__}: {error}"
        raise FormatError(msg) from None


def _read_npy(archive: zipfile.ZipFile, name: str, path: StoragePath, file_bytes: int) -> np.ndarray:
    with archive.open(f"{name}.npy") as file:
        version = np.lib.format.read_magic(file)
        if version not in _NPY_VERSIONS:
            msg = f"{path}: array {name!r} is of npy version {version}, expected 1.0 or 2.0"
            raise FormatError(msg)
        shape, _, dtype = _NPY_VERSIONS[version](file)
    if dtype.kind not in NUMBERS:
        msg = f"{path}: array {name!r} is of type {dtype}, and only numbers are read: nothing is unpickled"
        raise FormatError(msg)
    check_rows(shape[0] if shape else 1, str(path))
    if math.prod(shape) * dtype.itemsize > max_declared_bytes(file_bytes):
        msg = f"{path}: array {name!r} declares the shape {shape} in a file of {file_bytes} bytes: damaged or hostile"
        raise FormatError(msg)
    with archive.open(f"{name}.npy") as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _check_shape(shape: tuple[int, ...], where: str) -> None:
    if len(shape) != 2 or not 1 <= shape[1] <= MAX_DIM:  # noqa: PLR2004 -- tile x dim
        msg = f"{where} holds a tensor of shape {shape}, expected tile x dim"
        raise FormatError(msg)
    check_rows(shape[0], where)
