"""A slide's prediction written part by part, as parquet and as AnnData: only a part is ever in memory.

    parts (tiles in order) ->  <slide>.parquet   one row group a part
                           ->  <slide>.h5ad      anndata's own layout, what `writer.write_prediction` writes

Both files appear when the last part is written, whole or not at all. The h5ad holds plain blocks, as scanpy maps and
reads them fastest; the parquet's codec was measured (zstd on bytes of equal rank: 300 MB of float32 per CPU-second at
0.75 of the size, 0.36 as float16, on means over 50 neighbours; h5ad with gzip 42 MB/s at 0.75).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32, Shaped

from raystp.errors import ModelError, some
from raystp.impute.writer import TileTable, dense, described, matched
from raystp.storage import StoragePath

_LEVEL = 1  # of zstd: 3 writes half as fast and no smaller


@dataclass(frozen=True)
class PredictionPart:
    """Some tiles of a slide, in the slide's order."""

    expression: Float32[np.ndarray, "tile gene"]
    columns: Mapping[str, pa.Array | pa.ChunkedArray] = field(default_factory=dict)
    """Of the parquet: each of its columns that is not expression."""
    obs: Mapping[str, Shaped[np.ndarray, "tile"]] = field(default_factory=dict)
    """Of the AnnData: a number for each tile, such as its distance from the bank."""
    layers: Mapping[str, Float32[np.ndarray, "tile gene"]] = field(default_factory=dict)
    """Of the AnnData: what else is said of each tile and gene, such as the neighbours' spread."""


@dataclass(frozen=True)
class SlidePrediction:
    """What is known of a slide's prediction before its first part."""

    genes: list[str]
    places: TileTable
    provenance: Mapping[str, Any]
    measured: ad.AnnData | None = None
    """The truth, as `writer.prediction_to_anndata` takes it."""
    layers: tuple[str, ...] = ()
    """Names of the parts' layers."""
    var: Mapping[str, Shaped[np.ndarray, "gene"]] = field(default_factory=dict)
    """Of the AnnData: what is said of each gene over the whole slide."""


def write_in_parts(
    slide: SlidePrediction,
    parts: Iterable[PredictionPart],
    *,
    parquet: tuple[StoragePath, pa.Schema] | None = None,
    h5ad: StoragePath | None = None,
) -> int:
    """Write a slide's files as its parts come, and return its tiles; without a place, a file is not written.

    The parquet has the columns of its schema: `expression` as lists of float32 or float16, as the schema says, the
    others as the parts bring them.

    Raises:
        ModelError: a prediction is not finite, or parts do not fit the slide; no file is left then.
        SectionError: a spot or gene was not measured.
    """
    count: list[int] = []

    def into_h5ad(table: "_Parquet | None") -> None:
        if h5ad is None:
            count.append(_drive(slide, parts, table, None))
            return

        def write(path: Path) -> None:
            with _H5ad(path, slide) as one:
                count.append(_drive(slide, parts, table, one))
                one.finish()

        h5ad.write_file(write)

    def into_both(path: Path) -> None:
        assert parquet is not None  # this is its writer
        with _Parquet(path, parquet[1]) as table:
            into_h5ad(table)

    if parquet is None:
        into_h5ad(None)
    else:
        parquet[0].write_file(into_both)
    return count[0]


def _drive(
    slide: SlidePrediction, parts: Iterable[PredictionPart], table: "_Parquet | None", one: "_H5ad | None"
) -> int:
    """Hand each part to the files; return how many tiles there were."""
    done, wanted = 0, len(slide.places.names)
    for part in parts:
        _check(slide, part, done)
        if table is not None:
            table.add(part)
        if one is not None:
            one.add(part, done)
        done += len(part.expression)
    if done != wanted:
        msg = f"library '{slide.places.library}': parts hold {done} tiles, its places are {wanted}"
        raise ModelError(msg)
    return done


def _check(slide: SlidePrediction, part: PredictionPart, done: int) -> None:
    genes, library = slide.genes, slide.places.library
    count = len(part.expression)
    if part.expression.shape[1] != len(genes) or done + count > len(slide.places.names):
        msg = f"library '{library}': a part of shape {part.expression.shape} after {done} tiles, for "
        raise ModelError(msg + f"{len(slide.places.names)} places and {len(genes)} genes")
    if set(part.layers) != set(slide.layers):
        msg = f"library '{library}': a part has layers {sorted(part.layers)}, {sorted(slide.layers)} were announced"
        raise ModelError(msg)
    if not np.isfinite(part.expression).all():
        bad = [genes[at] for at in np.flatnonzero(~np.isfinite(part.expression).all(axis=0)).tolist()]
        msg = f"library '{library}': predictions are not finite for {len(bad)} genes ({some(bad)})"
        raise ModelError(msg + ": check the model and its embeddings")


class _Parquet:
    """A parquet file that grows by a row group a part."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.schema = schema
        wide = [f"{one.name}.list.element" for one in schema if pa.types.is_fixed_size_list(one.type)]
        self.writer = pq.ParquetWriter(
            path,
            schema,
            compression="zstd",
            compression_level=_LEVEL,
            use_dictionary=[one.name for one in schema if pa.types.is_string(one.type)],
            use_byte_stream_split=wide,
            write_statistics=[one.name for one in schema if not pa.types.is_fixed_size_list(one.type)],
        )

    def __enter__(self) -> "_Parquet":
        return self

    def __exit__(self, *_: object) -> None:
        self.writer.close()

    def add(self, part: PredictionPart) -> None:
        """Write a row group."""
        kind = self.schema.field("expression").type
        flat = pa.array(np.ascontiguousarray(part.expression, kind.value_type.to_pandas_dtype()).ravel())
        lists = pa.FixedSizeListArray.from_arrays(flat, kind.list_size)
        columns = [lists if one.name == "expression" else part.columns[one.name] for one in self.schema]
        self.writer.write_table(pa.table(columns, schema=self.schema), row_group_size=max(1, len(part.expression)))


class _H5ad:
    """An h5ad whose matrices are filled as rows come, and whose tables are written at the end."""

    def __init__(self, path: Path, slide: SlidePrediction) -> None:
        self.slide = slide
        self.truth = None if slide.measured is None else matched(slide.measured, slide.genes, slide.places)
        self.obs: dict[str, list[np.ndarray]] = {}
        self.file = h5py.File(path, "w")
        shape = (len(slide.places.names), len(slide.genes))
        names = (*(() if self.truth is None else ("measured",)), *slide.layers)
        self.layers = {name: self._matrix(f"layers/{name}", shape) for name in names}
        self.values = self._matrix("X", shape)
        _encode(self.file.require_group("layers"), "dict", "0.1.0")

    def __enter__(self) -> "_H5ad":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def _matrix(self, name: str, shape: tuple[int, int]) -> h5py.Dataset:
        # Rows are written once each, so filling the block with zeros first would only double the writing.
        made = self.file.create_dataset(name, shape, np.float32, fill_time="never")
        _encode(made, "array", "0.2.0")
        return made

    def add(self, part: PredictionPart, first: int) -> None:
        """Write the rows of a part, which begin at `first`."""
        end = first + len(part.expression)
        self.values[first:end] = part.expression
        for name, layer in part.layers.items():
            self.layers[name][first:end] = layer
        if self.truth is not None:
            self.layers["measured"][first:end] = dense(self.truth[first:end])
        for name, column in part.obs.items():
            self.obs.setdefault(name, []).append(column)

    def finish(self) -> None:
        """Write what is not a matrix of tiles and genes."""
        places = self.slide.places
        obs = pd.DataFrame(index=pd.Index(places.names)) if self.truth is None else self.truth.obs.copy()
        for name, columns in self.obs.items():
            obs[name] = np.concatenate(columns)
        ad.io.write_elem(self.file, "obs", obs)
        ad.io.write_elem(self.file, "var", pd.DataFrame(dict(self.slide.var), index=pd.Index(self.slide.genes)))
        ad.io.write_elem(self.file, "obsm", {"spatial": places.centres})
        ad.io.write_elem(self.file, "uns", described(places, self.slide.provenance))
        for name in ("obsp", "varm", "varp"):
            ad.io.write_elem(self.file, name, {})
        _encode(self.file, "anndata", "0.1.0")


def _encode(element: Any, kind: str, version: str) -> None:
    """Mark an element as anndata's readers expect it."""
    element.attrs["encoding-type"], element.attrs["encoding-version"] = kind, version
