"""Write a slide's prediction part by part, as parquet and as AnnData; only one part is in memory at a time.

    parts (tiles in order) ->  <slide>.parquet   one row group per part
                           ->  <slide>.h5ad      the layout of anndata, equal to what `writer.write_prediction` writes

Both files appear when the last part is written, or not at all. A dense h5ad is contiguous, which scanpy maps and reads
fastest. The codec of the parquet was measured on means over 50 neighbours: zstd with byte-stream split writes 300 MB of
float32 per CPU-second at 0.75 of the size (0.36 as float16); h5ad with gzip writes 42 MB/s at 0.75.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32, Shaped

from raystp.errors import ModelError
from raystp.impute.matrices import MatrixForm, create_matrix, set_encoding
from raystp.impute.writer import TileTable, check_finite, dense_values, match_measured, prediction_uns
from raystp.storage import StoragePath

_ZSTD_LEVEL = 1  # level 3 writes half as fast and no smaller


@dataclass(frozen=True)
class PredictionPart:
    """Some tiles of a slide, in the slide's order."""

    expression: Float32[np.ndarray, "tile gene"]
    columns: Mapping[str, pa.Array | pa.ChunkedArray] = field(default_factory=dict)
    """The other columns of the parquet."""
    obs: Mapping[str, Shaped[np.ndarray, "tile"]] = field(default_factory=dict)
    """Columns of the AnnData's obs: a number per tile, such as its distance from the index."""
    layers: Mapping[str, Float32[np.ndarray, "tile gene"]] = field(default_factory=dict)
    """Layers of the AnnData: a value per tile and gene, such as the neighbours' spread."""


@dataclass(frozen=True)
class SlidePrediction:
    """What is known of a slide's prediction before its first part."""

    genes: list[str]
    tiles: TileTable
    provenance: Mapping[str, object]
    measured: ad.AnnData | None = None
    """Measured expression, as `writer.prediction_to_anndata` takes it."""
    layers: tuple[str, ...] = ()
    """Names of the parts' layers."""
    var: Mapping[str, Shaped[np.ndarray, "gene"]] = field(default_factory=dict)
    """Columns of the AnnData's var: a number per gene, over the whole slide."""
    missing: bool = False
    """Whether a value may be NaN, because no neighbour has measured the gene; else NaN is an error."""
    form: MatrixForm = "float32"
    """How X and the layers of the AnnData are stored."""


def write_in_parts(
    slide: SlidePrediction,
    parts: Iterable[PredictionPart],
    *,
    parquet: tuple[StoragePath, pa.Schema] | None = None,
    h5ad: StoragePath | None = None,
) -> int:
    """Write the files of a slide from its parts and return the number of tiles; a file without a path is skipped.

    The parquet has the columns of its schema: `expression` as lists of float32 or float16, the others from the parts.

    Raises:
        ModelError: a prediction is not finite, or the parts do not match the slide; no file is left then.
        SectionError: a spot or gene was not measured.
    """
    count: list[int] = []

    def with_h5ad(table: "_ParquetFile | None") -> None:
        if h5ad is None:
            count.append(_write_parts(slide, parts, table, None))
            return

        def write(path: Path) -> None:
            with _H5adFile(path, slide) as file:
                count.append(_write_parts(slide, parts, table, file))
                file.finish()

        h5ad.write_file(write)

    def with_both(path: Path) -> None:
        assert parquet is not None  # called for a parquet only
        with _ParquetFile(path, parquet[1]) as table:
            with_h5ad(table)

    if parquet is None:
        with_h5ad(None)
    else:
        parquet[0].write_file(with_both)
    return count[0]


def _write_parts(
    slide: SlidePrediction,
    parts: Iterable[PredictionPart],
    parquet: "_ParquetFile | None",
    h5ad: "_H5adFile | None",
) -> int:
    """Write each part to the open files; return the number of tiles."""
    done, expected = 0, len(slide.tiles.names)
    for part in parts:
        _check(slide, part, done)
        if parquet is not None:
            parquet.add(part)
        if h5ad is not None:
            h5ad.add(part, done)
        done += len(part.expression)
    if done != expected:
        msg = f"library '{slide.tiles.library}': the parts have {done} tiles, the slide has {expected}"
        raise ModelError(msg)
    return done


def _check(slide: SlidePrediction, part: PredictionPart, done: int) -> None:
    genes, library = slide.genes, slide.tiles.library
    count, expected = len(part.expression), len(slide.tiles.names)
    if part.expression.shape[1] != len(genes) or done + count > expected:
        msg = f"library '{library}': a part of shape {part.expression.shape} after {done} tiles does not match "
        raise ModelError(msg + f"{expected} tiles and {len(genes)} genes")
    if set(part.layers) != set(slide.layers):
        msg = f"library '{library}': a part has layers {sorted(part.layers)}, expected {sorted(slide.layers)}"
        raise ModelError(msg)
    check_finite(part.expression, genes, library, missing=slide.missing)


class _ParquetFile:
    """A parquet file with one row group per part."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.schema = schema
        lists = [f"{field.name}.list.element" for field in schema if pa.types.is_fixed_size_list(field.type)]
        self.writer = pq.ParquetWriter(
            path,
            schema,
            compression="zstd",
            compression_level=_ZSTD_LEVEL,
            use_dictionary=[field.name for field in schema if pa.types.is_string(field.type)],
            use_byte_stream_split=lists,
            write_statistics=[field.name for field in schema if not pa.types.is_fixed_size_list(field.type)],
        )

    def __enter__(self) -> "_ParquetFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.writer.close()

    def add(self, part: PredictionPart) -> None:
        """Write a row group."""
        kind = self.schema.field("expression").type
        flat = pa.array(np.ascontiguousarray(part.expression, kind.value_type.to_pandas_dtype()).ravel())
        lists = pa.FixedSizeListArray.from_arrays(flat, kind.list_size)
        names = [field.name for field in self.schema]
        columns = [lists if name == "expression" else part.columns[name] for name in names]
        self.writer.write_table(pa.table(columns, schema=self.schema), row_group_size=max(1, len(part.expression)))


class _H5adFile:
    """An h5ad whose matrices are filled part by part, and whose tables are written at the end."""

    def __init__(self, path: Path, slide: SlidePrediction) -> None:
        self.slide = slide
        self.truth = None if slide.measured is None else match_measured(slide.measured, slide.genes, slide.tiles)
        self.obs: dict[str, list[np.ndarray]] = {}
        self.file = h5py.File(path, "w")
        shape = (len(slide.tiles.names), len(slide.genes))
        names = (*(() if self.truth is None else ("measured",)), *slide.layers)
        self.layers = {name: create_matrix(self.file, f"layers/{name}", shape, slide.form) for name in names}
        self.values = create_matrix(self.file, "X", shape, slide.form)
        set_encoding(self.file.require_group("layers"), "dict", "0.1.0")

    def __enter__(self) -> "_H5adFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def add(self, part: PredictionPart, first: int) -> None:
        """Write the rows of a part, the first of which is row `first` of the slide."""
        end = first + len(part.expression)
        self.values.add(part.expression, first)
        for name, layer in part.layers.items():
            self.layers[name].add(layer, first)
        if self.truth is not None:
            self.layers["measured"].add(dense_values(self.truth[first:end]), first)
        for name, column in part.obs.items():
            self.obs.setdefault(name, []).append(column)

    def finish(self) -> None:
        """Write all elements that are not matrices of tiles and genes."""
        for matrix in (self.values, *self.layers.values()):
            matrix.finish()
        tiles = self.slide.tiles
        obs = pd.DataFrame(index=pd.Index(tiles.names)) if self.truth is None else self.truth.obs.copy()
        for name, columns in self.obs.items():
            obs[name] = np.concatenate(columns)
        ad.io.write_elem(self.file, "obs", obs)
        ad.io.write_elem(self.file, "var", pd.DataFrame(dict(self.slide.var), index=pd.Index(self.slide.genes)))
        ad.io.write_elem(self.file, "obsm", {"spatial": tiles.centres})
        ad.io.write_elem(self.file, "uns", prediction_uns(tiles, self.slide.provenance))
        for name in ("obsp", "varm", "varp"):
            ad.io.write_elem(self.file, name, {})
        set_encoding(self.file, "anndata", "0.1.0")
