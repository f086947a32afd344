"""Tables of a SpatialData store: AnnData in zarr v3, whose rows annotate the shapes of a region."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse
import zarr
from jaxtyping import Float64, Int64, Shaped
from zarr.codecs import ZstdCodec

from raystp.errors import FormatError
from raystp.interop.outputs.folders import json_text
from raystp.interop.outputs.slide import SLAB_TILES, Matrix, XForm

REGION_KEY, INSTANCE_KEY = "library_id", "tile_id"
"""Columns of obs as LazySlide names them: the element, and the shape's number in it."""

CHUNK_COLUMNS = 512
LARGEST_HALF = float(np.finfo(np.float16).max)
CSR_CHUNK = 1 << 20
"""Stored values in a chunk of a sparse matrix."""


@dataclass(frozen=True)
class RegionTable:
    """A table: its rows are shapes of `region`, in the order of `instances`."""

    region: str
    instances: Int64[np.ndarray, " row"]
    names: Sequence[str]
    columns: Sequence[str]
    values: Matrix
    centres: Float64[np.ndarray, "row 2"]
    per_tile: Mapping[str, Shaped[np.ndarray, " row"]] = field(default_factory=dict)
    layers: Mapping[str, Matrix] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)


def write_table(root: zarr.Group, name: str, table: RegionTable, form: XForm) -> None:
    """Write the element `tables/<name>`; only one slab of a matrix is in memory at a time."""
    link = {"region": table.region, "region_key": REGION_KEY, "instance_key": INSTANCE_KEY}
    attributes = {
        "encoding-type": "anndata",
        "encoding-version": "0.1.0",
        "spatialdata-encoding-type": "ngff:regions_table",
        "version": "0.2",
        **link,
    }
    group = root.create_group(f"tables/{name}", attributes=attributes)
    _write_matrix(group, "X", table.values, form)
    group.create_group("layers", attributes={"encoding-type": "dict", "encoding-version": "0.1.0"})
    for layer, values in table.layers.items():
        _write_matrix(group, f"layers/{layer}", values, form)
    index = pd.Index([str(one) for one in table.names])
    region = pd.Categorical([table.region] * len(index), categories=[table.region])
    obs = pd.DataFrame({INSTANCE_KEY: table.instances, REGION_KEY: region, **table.per_tile}, index=index)
    elements = {
        "obs": obs,
        "var": pd.DataFrame(index=pd.Index(list(table.columns))),
        "obsm": {"spatial": np.asarray(table.centres)},
        "uns": {"raystp": json_text(table.provenance), "spatialdata_attrs": link},
        "obsp": {},
        "varm": {},
        "varp": {},
    }
    for key, element in elements.items():
        ad.io.write_elem(group, key, element, dataset_kwargs={"shards": None})  # else anndata warns of its next default


def _write_matrix(group: zarr.Group, name: str, values: Matrix, form: XForm) -> None:
    if form == "csr":
        _write_csr(group, name, values)
        return
    tiles, columns = values.shape
    chunks = (max(1, min(SLAB_TILES, tiles)), max(1, min(CHUNK_COLUMNS, columns)))
    array = group.create_array(name, shape=(tiles, columns), chunks=chunks, dtype=form, compressors=ZstdCodec(level=3))
    array.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    for first, slab in values.slabs():
        if form == "float16" and (largest := np.nanmax(np.abs(slab), initial=0.0)) > LARGEST_HALF:
            msg = f"{name} has values up to {largest:g}, beyond float16, which ends at {LARGEST_HALF:g}: leave x out"
            raise FormatError(msg)
        array[first : first + len(slab)] = slab.astype(form)


def _write_csr(group: zarr.Group, name: str, values: Matrix) -> None:
    """Write compressed sparse rows; a missing value (NaN) is a stored one."""
    attributes = {"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": list(values.shape)}
    sparse = group.create_group(name, attributes=attributes)
    kinds = {"data": "float32", "indices": "int32"}
    arrays = {
        key: sparse.create_array(key, shape=(0,), chunks=(CSR_CHUNK,), dtype=kind, compressors=ZstdCodec(level=3))
        for key, kind in kinds.items()
    }
    ends = [np.zeros(1, np.int64)]
    for _, slab in values.slabs():
        rows = scipy.sparse.csr_matrix(slab)
        ends.append(ends[-1][-1] + rows.indptr[1:].astype(np.int64))
        arrays["data"].append(rows.data)
        arrays["indices"].append(rows.indices.astype(np.int32))
    indptr = np.concatenate(ends)
    arrays["indptr"] = sparse.create_array("indptr", data=indptr, compressors=ZstdCodec(level=3))
    for array in arrays.values():
        array.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
