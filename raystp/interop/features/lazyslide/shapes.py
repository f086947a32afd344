"""Shapes of a SpatialData store: outlines in GeoParquet, by one id each."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from jaxtyping import Float64
from shapely.errors import ShapelyError

from raystp.errors import FormatError, some
from raystp.interop.features.arrays import check_rows
from raystp.interop.features.lazyslide.zarr_arrays import local_folder
from raystp.parquet import read_foreign_parquet
from raystp.storage import StoragePath

FILE = "shapes.parquet"
SQUARE = 1e-6
"""Relative difference up to which two lengths are equal: corners are stored, not sides."""


@dataclass(frozen=True)
class Shapes:
    """The rows of one element."""

    ids: np.ndarray
    outlines: np.ndarray
    """Objects of shapely."""


def read_shapes(path: StoragePath, key: str) -> Shapes:
    """Return the outlines of an element and the column `key` of each, or the row's number without such a column.

    Raises FormatError for shapes of container version 0.1, for a file without outlines, and for more rows than a slide
    has tiles.
    """
    with local_folder(path) as folder:
        file = folder / FILE
        if not file.is_file():
            msg = f"{path} has no {FILE}: it is of an older SpatialData; open and save it once with spatialdata"
            raise FormatError(msg)
        try:
            there = set(pq.read_schema(file).names)
            check_rows(pq.read_metadata(file).num_rows, str(path))
            with pa.OSFile(str(file)) as opened:
                wanted = [name for name in ("geometry", key) if name in there]
                table = read_foreign_parquet(opened, file.stat().st_size, lambda _: wanted)
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:
            msg = f"{path / FILE} is not readable: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
            raise FormatError(msg) from None
    if "geometry" not in there:
        msg = f"{path / FILE} has no column 'geometry'; it has {some(sorted(there))}"
        raise FormatError(msg)
    ids = table[key].to_numpy() if key in there else np.arange(table.num_rows)
    return Shapes(ids, _outlines(table["geometry"], str(path / FILE)))


def _outlines(column: pa.ChunkedArray, where: str) -> np.ndarray:
    if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)) or column.null_count:
        msg = f"{where}: 'geometry' is of type {column.type} with {column.null_count} empty; expected outlines as WKB"
        raise FormatError(msg)
    try:
        return np.asarray(shapely.from_wkb(column.to_numpy(zero_copy_only=False)))
    except ShapelyError as error:
        msg = f"{where} has outlines that are no WKB: {error}"
        raise FormatError(msg) from None


def squares(outlines: np.ndarray, where: str) -> Float64[np.ndarray, "tile 3"]:
    """Return boxes as top-left corner and side. Raises FormatError for an outline that is no upright square.

    Sides that differ by no more than the rounding of corners are one side.
    """
    bounds = shapely.bounds(outlines).reshape(-1, 4)
    width, height = bounds[:, 2] - bounds[:, 0], bounds[:, 3] - bounds[:, 1]
    tolerance = SQUARE * np.maximum(width, 1)
    odd = ~(
        (np.abs(width - height) <= tolerance) & (np.abs(shapely.area(outlines) - width * height) <= tolerance * width)
    )
    if odd.any():
        first = int(np.flatnonzero(odd)[0])
        msg = f"{where}: {int(odd.sum())} of {len(odd)} tiles are no upright squares, the first in row {first}"
        raise FormatError(f"{msg} of {width[first]:g} x {height[first]:g} px: only square tiles are read")
    if len(width) and np.ptp(width) <= SQUARE * width[0]:
        side = float(np.median(width))
        width = np.full(len(width), round(side) if abs(side - round(side)) <= SQUARE * side else side, np.float64)
    return np.column_stack([bounds[:, :2], width])
