"""Shapes of a SpatialData store: GeoParquet 1.1 within a zarr group."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
import zarr
from jaxtyping import Int64, Shaped
from shapely.geometry.base import BaseGeometry

from raystp.interop.outputs.spatialdata.transforms import transforms


def write_shapes(
    root: zarr.Group,
    name: str,
    geometries: Sequence[BaseGeometry],
    columns: Mapping[str, Shaped[np.ndarray, " shape"]],
    *,
    mpp: float,
    index: Int64[np.ndarray, " shape"] | None = None,
) -> None:
    """Write the element `shapes/<name>` in level-0 px; points need a column `radius` to be circles.

    `index` numbers the shapes, and tables refer to it; without it they are numbered from 0.
    """
    attributes = {
        "axes": ["x", "y"],
        "coordinateTransformations": transforms(("x", "y"), (1.0, 1.0), mpp),
        "encoding-type": "ngff:shapes",
        "spatialdata_attrs": {"version": "0.3"},
    }
    group = root.create_group(f"shapes/{name}", attributes=attributes)
    frame = pd.DataFrame(
        {**columns, "geometry": list(shapely.to_wkb(np.asarray(geometries, object)))},
        index=None if index is None else pd.Index(index),
    )
    table = pa.Table.from_pandas(frame)
    kinds = sorted({one.geom_type for one in geometries})
    described = {"encoding": "WKB", "crs": None, "geometry_types": kinds}
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": described}}
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), b"geo": json.dumps(geo).encode()})
    if not geometries:  # without a value the column would have no type
        table = table.set_column(table.schema.get_field_index("geometry"), "geometry", pa.array([], pa.binary()))
    pq.write_table(table, _folder(group) / "shapes.parquet", compression="zstd")


def _folder(group: zarr.Group) -> Path:
    """Return the folder of a group in a local store."""
    return Path(str(group.store_path.store.root)) / group.path  # type: ignore[attr-defined]  # of a local store
