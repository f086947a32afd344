"""Read the tables of tiles in HDF5 files of other tools: sizes are checked before data are read.

These tools write one row per HDF5 chunk, so rows are read in slabs.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import Float64

from raystp.errors import FormatError, some
from raystp.interop.features.tiles import Vectors

MAX_ROWS = 10_000_000
"""No slide has more tiles."""

MAX_DIM = 1 << 16
SLAB = 4096
MAX_TEXT = 65_536
"""Longest attribute that is kept, in characters."""

WHOLE_PX = 0.5

_DAMAGED = (OSError, RuntimeError, ValueError, KeyError, TypeError)
"""What h5py raises for damaged bytes."""


def dataset(file: h5py.Group, name: str, where: str) -> h5py.Dataset:
    """Return a dataset of a file by its name; raises FormatError where there is none."""
    found = file.get(name)
    if not isinstance(found, h5py.Dataset):
        msg = f"{where} has no dataset {name!r}; it has {some(sorted(file)) or 'nothing'}"
        raise FormatError(msg)
    return found


def check_rows(count: int, where: str) -> None:
    """Raise FormatError for more tiles than a slide can have."""
    if count > MAX_ROWS:
        msg = f"{where} declares {count:,} tiles, and a slide has at most {MAX_ROWS:,}: damaged or hostile; not read"
        raise FormatError(msg)


def check_same_rows(vectors: int, coordinates: int, where: str) -> None:
    """Raise FormatError unless there are as many vectors as coordinates."""
    if vectors != coordinates:
        msg = f"{where} has {vectors} rows of vectors and {coordinates} of coordinates: incomplete; write it again"
        raise FormatError(msg)


def read_matrix(data: h5py.Dataset, where: str, *, columns: tuple[int, int]) -> np.ndarray:
    """Return a table of numbers with a row per tile; `columns` are the fewest and the most that it may have.

    Raises FormatError for another shape, more rows than a slide has, and values that are no numbers.
    """
    shape: tuple[int, ...] = tuple(data.shape or ())
    if len(shape) != 2 or not columns[0] <= shape[1] <= columns[1]:  # noqa: PLR2004 -- tile x column
        wanted = str(columns[0]) if columns[0] == columns[1] else f"{columns[0]} to {columns[1]}"
        msg = f"{where}: {data.name!r} has the shape {shape}; expected a row per tile with {wanted} columns"
        raise FormatError(msg)
    check_rows(shape[0], where)
    if data.dtype.kind not in "fiu":
        msg = f"{where}: {data.name!r} has values of type {data.dtype}; expected numbers"
        raise FormatError(msg)
    found = np.empty(shape, data.dtype)
    try:
        for start in range(0, shape[0], SLAB):
            data.read_direct(found, np.s_[start : start + SLAB], np.s_[start : start + SLAB])
    except _DAMAGED as error:
        msg = f"{where}: {data.name!r} is damaged ({error}): write the file again"
        raise FormatError(msg) from None
    return found


def read_vectors(data: h5py.Dataset, where: str) -> tuple[Vectors, list[str]]:
    """Return float32 or float16 vectors as they are stored, and a note on any other type. Raises FormatError."""
    return checked_vectors(read_matrix(data, where, columns=(1, MAX_DIM)), where)


def checked_vectors(vectors: np.ndarray, where: str) -> tuple[Vectors, list[str]]:
    """Return vectors as float32 or float16, with a note where they had another type.

    Raises FormatError for rows with NaN or infinity: a tile without a vector is no tile of this slide.
    """
    notes = []
    if vectors.dtype not in (np.float32, np.float16):
        notes = [f"vectors of type {vectors.dtype} were read as float32"]
        with np.errstate(over="ignore"):
            vectors = vectors.astype(np.float32)
    lost = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(lost):
        msg = f"{where} has NaN or infinity in {len(lost)} of {len(vectors)} vectors, the first in row {lost[0]}"
        raise FormatError(f"{msg}: the encoder failed there; embed the slide again")
    return vectors, notes


def boxes_of(corners: np.ndarray, side: float, where: str) -> Float64[np.ndarray, "tile 3"]:
    """Return tile boxes from top-left corners and one side, all in level-0 px. Raises FormatError for NaN."""
    if not side > 0 or not np.isfinite(side):
        msg = f"{where} has tiles with a side of {side:g} px; expected more than 0"
        raise FormatError(msg)
    corners = corners[:, :2].astype(np.float64)
    if not np.isfinite(corners).all():
        msg = f"{where} has coordinates that are no finite numbers, the first in row "
        raise FormatError(msg + str(int(np.flatnonzero(~np.isfinite(corners).all(axis=1))[0])))
    return np.concatenate([corners, np.full((len(corners), 1), side)], axis=1)


def check_inside(boxes: Float64[np.ndarray, "tile 3"], size: tuple[int, int], where: str) -> None:
    """Raise FormatError for tiles that lie outside a slide of `size` (width, height) px by more than their side."""
    x, y, side = boxes.T
    outside = (x < -side) | (y < -side) | (x > size[0]) | (y > size[1])
    if outside.any():
        first = boxes[np.flatnonzero(outside)[0]]
        msg = (
            f"{where}: {int(outside.sum())} of {len(boxes)} tiles lie outside the slide of {size[0]} x {size[1]} px, "
            f"the first at x {first[0]:g}, y {first[1]:g}: they are of another slide, or in px of another level"
        )
        raise FormatError(msg)


def whole_corners(boxes: Float64[np.ndarray, "tile 3"]) -> tuple[np.ndarray, list[str]]:
    """Return corners as int64, half px rounded down, and a note on how many were moved."""
    corners = np.ceil(boxes[:, :2] - WHOLE_PX).astype(np.int64)
    moved = int((corners != boxes[:, :2]).any(axis=1).sum())
    note = f"{moved:,} of {len(boxes):,} corners were not whole px; moved by at most {WHOLE_PX} px"
    return corners, [note] if moved else []


def attributes_of(*items: h5py.Dataset | h5py.File) -> dict[str, Any]:
    """Return the attributes of HDF5 objects as plain JSON values; those of later objects win, long ones are left out.

    Raises FormatError for damaged ones.
    """
    found: dict[str, Any] = {}
    for item in items:
        try:
            read = {str(name): item.attrs[name] for name in item.attrs if _is_short(item, name)}
        except _DAMAGED as error:
            msg = f"{Path(item.file.filename).name} has damaged attributes at {item.name!r} ({error}): write it again"
            raise FormatError(msg) from None
        found |= {name: plain for name, value in read.items() if (plain := _plain(value)) is not None}
    return found


def _is_short(item: h5py.Dataset | h5py.File, name: str) -> bool:
    return math.prod(item.attrs.get_id(name).shape or ()) <= MAX_TEXT


def _plain(value: object) -> Any:
    """Return an attribute as a JSON value; None for one that is no number, text or short list of them."""
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if isinstance(value, np.generic | np.ndarray) and np.size(value) <= MAX_TEXT:
        value = value.tolist()
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, str):
        return None if value == "None" else value[:MAX_TEXT]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value if isinstance(value, bool | int | float) else None


def number_of(attributes: Mapping[str, Any], name: str, where: str) -> float | None:
    """Return an attribute as a number above 0; None where it is absent. Raises FormatError for anything else."""
    value = attributes.get(name)
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not 0 < number < float("inf"):
        msg = f"{where}: the attribute {name!r} is {value!r}; expected a number above 0"
        raise FormatError(msg)
    return number


def source_attribute(source: Mapping[str, Any]) -> str:
    """Return what was exported, as the text of the attribute `raystp`; other tools ignore it."""
    return json.dumps(dict(source), sort_keys=True)
