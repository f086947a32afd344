"""A prediction written in parts equals one written at once, and is written completely or not at all."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raystp import tables
from raystp.errors import ModelError, SectionError
from raystp.impute.matrices import create_matrix
from raystp.impute.stream import PredictionPart, SlidePrediction, write_in_parts
from raystp.impute.writer import SlideOverview, TileTable, prediction_to_anndata, write_prediction
from raystp.storage import StoragePath
from raystp.units import Level0Pixels

TILES, GENES = 23, ["ERBB2", "HLA-A", "C1orf/2", "D", "E"]
NAMES = [f"A1-{tile:06d}" for tile in range(TILES)]
PROVENANCE = {"model": "train/bleep-0123456789ab", "k": 50, "shared_patients": ["B"], "far": {"q99": 0.25}}


def tiles() -> TileTable:
    centres = np.arange(2.0 * TILES).reshape(TILES, 2)
    return TileTable("A1", NAMES, centres, Level0Pixels(150.0), SlideOverview(np.full((6, 4, 3), 240, np.uint8), 0.1))


def measured() -> ad.AnnData:
    """Return measured expression in another order, with a spot and a gene that were not predicted."""
    random = np.random.default_rng(5)
    names, genes = [*NAMES[::-1], "elsewhere"], ["X", *GENES[::-1]]
    obs = pd.DataFrame({"array_row": np.arange(TILES + 1)}, index=pd.Index(names))
    return ad.AnnData(random.random((TILES + 1, 6), dtype=np.float32), obs=obs, var=pd.DataFrame(index=pd.Index(genes)))


def whole() -> dict[str, Any]:
    random = np.random.default_rng(0)
    values, spread = random.random((2, TILES, len(GENES)), dtype=np.float32)
    distance = random.random(TILES, dtype=np.float32)
    return {"values": values, "spread": spread, "distance": distance, "far": distance > 0.5}


def slide(**changed: Any) -> SlidePrediction:
    values = {"genes": GENES, "tiles": tiles(), "provenance": PROVENANCE, "layers": ("spread",)}
    return SlidePrediction(**{**values, **changed})


def tile_columns() -> dict[str, Any]:
    at = np.arange(TILES)
    return {"slide": ["A1"] * TILES, "tile": at, "x": at * 2.0, "y": at * 1.0, "side": at * 0.0 + 4, "spot": NAMES}


def parts(size: int, *, broken: int | None = None) -> Iterator[PredictionPart]:
    given = whole()
    for start in range(0, TILES, size):
        cut = slice(start, start + size)
        values = given["values"][cut].copy()
        if broken is not None and start <= broken:
            values[-1, 1] = np.nan
        columns = {name: pa.array(column[cut]) for name, column in tile_columns().items()}
        obs = {"distance": given["distance"][cut], "far": given["far"][cut]}
        yield PredictionPart(values, columns, obs, {"spread": given["spread"][cut]})


def write_at_once(file: StoragePath, truth: ad.AnnData | None) -> None:
    given = whole()
    maps = {"spread": given["spread"]}
    adata = prediction_to_anndata(given["values"], GENES, tiles(), measured=truth, maps=maps, provenance=PROVENANCE)
    adata.obs["distance"], adata.obs["far"] = given["distance"], given["far"]
    write_prediction(file, adata)


def content(path: Path) -> dict[str, Any]:
    """Return all content of an HDF5 file: attributes, and values as lists."""
    found: dict[str, Any] = {}

    def note(name: str, one: Any) -> None:
        values = None if isinstance(one, h5py.Group) else (str(one.dtype), np.asarray(one[()]).tolist())
        attributes = {key: np.asarray(value).tolist() for key, value in one.attrs.items()}
        found[name] = (attributes, values)

    with h5py.File(path) as file:
        file.visititems(note)
        found["/"] = {key: np.asarray(value).tolist() for key, value in file.attrs.items()}
    return found


@pytest.mark.parametrize("truth", [None, measured()], ids=["prediction", "with measured"])
@pytest.mark.parametrize("size", [1, 7, TILES])
def test_parts_make_the_file_that_is_written_at_once(tmp_path: Path, size: int, truth: ad.AnnData | None) -> None:
    streamed, direct = (StoragePath.of(tmp_path / f"{name}.h5ad") for name in ("streamed", "direct"))
    assert write_in_parts(slide(measured=truth), parts(size), h5ad=streamed) == TILES
    write_at_once(direct, truth)
    assert content(streamed.local_path) == content(direct.local_path)
    both = [ad.read_h5ad(file.local_path) for file in (streamed, direct)]
    assert np.array_equal(both[0].X, both[1].X)
    pd.testing.assert_frame_equal(both[0].obs, both[1].obs)
    assert both[0].obs["far"].dtype == bool


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_the_parquet_has_a_row_group_per_part_and_the_columns_of_its_schema(tmp_path: Path, precision: str) -> None:
    value = {"float32": pa.float32(), "float16": pa.float16()}[precision]
    dense = tables.predictions(len(GENES))
    field = pa.field("expression", pa.list_(value, len(GENES)), nullable=False)
    schema = dense.set(dense.get_field_index("expression"), field)
    file = StoragePath.of(tmp_path / "A1.parquet")
    h5ad = StoragePath.of(tmp_path / "A1.h5ad")
    assert write_in_parts(slide(), parts(7), parquet=(file, schema), h5ad=h5ad) == TILES
    table = file.read_table()
    tables.check(table.schema, schema, "A1.parquet")
    assert np.array_equal(tables.matrix(table["expression"]), whole()["values"].astype(precision).astype(np.float32))
    assert table["tile"].to_pylist() == list(range(TILES))
    assert table["spot"].to_pylist() == NAMES
    assert pq.ParquetFile(file.local_path).num_row_groups == 4
    assert ad.read_h5ad(h5ad.local_path).n_obs == TILES


def test_parts_that_do_not_match_are_refused_and_leave_no_file(tmp_path: Path) -> None:
    schema = tables.predictions(len(GENES))
    parquet, h5ad = (StoragePath.of(tmp_path / name) for name in ("A1.parquet", "A1.h5ad"))
    short = TileTable("A1", NAMES[:20], np.zeros((20, 2)), Level0Pixels(1.0))
    longer = TileTable("A1", [*NAMES, "one more"], np.zeros((TILES + 1, 2)), Level0Pixels(1.0))
    cases: list[tuple[SlidePrediction, Iterator[PredictionPart], type[Exception], str]] = [
        (slide(), parts(7, broken=15), ModelError, r"library 'A1': predictions of 1 genes \('HLA-A'\) are not finite"),
        (slide(tiles=short), parts(7), ModelError, r"shape \(7, 5\) after 14 tiles does not match 20 tiles and 5"),
        (slide(tiles=longer), parts(7), ModelError, "the parts have 23 tiles, the slide has 24"),
        (slide(layers=()), parts(7), ModelError, r"a part has layers \['spread'\], expected \[\]"),
        (slide(measured=measured()[:, 2:]), parts(7), SectionError, r"1 genes \('E'\) were not measured"),
    ]
    for given, stream, error, message in cases:
        with pytest.raises(error, match=message):
            write_in_parts(given, stream, parquet=(parquet, schema), h5ad=h5ad)
        assert list(tmp_path.iterdir()) == []


def test_scanpy_opens_a_prediction_written_in_parts(tmp_path: Path) -> None:
    sc = pytest.importorskip("scanpy", reason="scanpy is in the dev extra")
    file = StoragePath.of(tmp_path / "A1.h5ad")
    write_in_parts(slide(), parts(5), h5ad=file)
    adata = sc.read_h5ad(file.local_path)
    assert (adata.shape, list(adata.layers)) == ((TILES, len(GENES)), ["spread"])
    assert sc.get.obs_df(adata, ["ERBB2", "distance"]).shape == (TILES, 2)


@pytest.mark.parametrize("size", [1, 7, TILES])
def test_a_sparse_or_half_precision_file_has_the_values_of_the_dense_one(tmp_path: Path, size: int) -> None:
    found = {}
    for form in ("float32", "float16", "csr"):
        file = StoragePath.of(tmp_path / f"{form}.h5ad")
        write_in_parts(slide(form=form, measured=measured()), parts(size), h5ad=file)
        found[form] = ad.read_h5ad(file.local_path)
    whole_file = found["float32"]
    for name in ("X", "spread", "measured"):
        dense, half, sparse = (one.X if name == "X" else one.layers[name] for one in found.values())
        assert (half.dtype, sparse.dtype) == (np.float16, np.float32)
        np.testing.assert_array_equal(half, dense.astype(np.float16))
        np.testing.assert_array_equal(sparse.toarray(), dense)
    for other in (found["float16"], found["csr"]):
        pd.testing.assert_frame_equal(other.obs, whole_file.obs)
        assert other.uns["raystp"]["model"] == PROVENANCE["model"]


def test_sparse_rows_keep_a_missing_value_and_leave_out_zeros(tmp_path: Path) -> None:
    values = np.zeros((3, 4), np.float32)
    values[1, 2], values[2, 0] = np.nan, 5
    with h5py.File(tmp_path / "m.h5", "w") as file:
        matrix = create_matrix(file, "X", values.shape, "csr")
        for row in range(3):
            matrix.add(values[row : row + 1], row)
        matrix.finish()
        assert file["X/data"].shape == (2,)
        np.testing.assert_array_equal(ad.io.read_elem(file["X"]).toarray(), values)


def test_values_that_float16_cannot_hold_are_refused_and_never_become_infinite(tmp_path: Path) -> None:
    values = np.array([[65504.0, np.nan], [np.nan, np.nan], [70000.0, 0.0]], np.float32)
    with h5py.File(tmp_path / "m.h5", "w") as file:
        matrix = create_matrix(file, "X", values.shape, "float16")
        matrix.add(values[:2], 0)
        assert file["X"][0, 0] == 65504
        with pytest.raises(
            ModelError, match=r"values up to 70000 are beyond float16, which ends at 65504: set x=float"
        ):
            matrix.add(values[2:], 2)
