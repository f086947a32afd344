"""Tables between steps: they say what they are, come back as they were, and another version is refused."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raystp import tables
from raystp.errors import ArtifactError, StorageError
from raystp.storage import StoragePath

SCHEMAS = {
    "slides": tables.SLIDES,
    "tiles": tables.TILES,
    "failures": tables.FAILURES,
    "epochs": tables.EPOCHS,
    "scores": tables.SCORES,
    "embeddings": tables.embeddings(4),
    "half embeddings": tables.embeddings(4, precision="float16"),
    "predictions": tables.predictions(3),
}


def _labelled(schema: pa.Schema, **changed: str) -> pa.Schema:
    marks = dict(schema.metadata)
    return schema.with_metadata(marks | {f"raystp.{key}".encode(): value.encode() for key, value in changed.items()})


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_a_table_keeps_its_name_version_and_columns_on_disk(tmp_path: Path, schema: pa.Schema) -> None:
    file = StoragePath.of(tmp_path / "table.parquet")
    file.write_table(schema.empty_table())
    tables.check(file.read_schema(), schema, str(file))
    tables.check(file.read_table().schema, schema, str(file))


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_a_table_of_another_version_is_refused_with_what_to_do(schema: pa.Schema) -> None:
    name = schema.metadata[tables.NAME].decode()
    wanted = (
        rf"store/x.parquet holds table '{name}' version 2, this raystp reads table '{name}' version 1: run the step"
    )
    with pytest.raises(ArtifactError, match=wanted):
        tables.check(_labelled(schema, version="2"), schema, "store/x.parquet")


def test_another_table_and_one_without_a_label_are_refused() -> None:
    with pytest.raises(ArtifactError, match=r"holds table 'failures' version 1, this raystp reads table 'tiles'"):
        tables.check(tables.FAILURES, tables.TILES, "x.parquet")
    with pytest.raises(ArtifactError, match=r"holds a table without raystp's label, this raystp reads table 'tiles'"):
        tables.check(pa.schema([pa.field("slide", pa.string())]), tables.TILES, "x.parquet")


def test_a_label_over_other_columns_is_refused_and_the_columns_are_named() -> None:
    floats = [pa.field(f.name, pa.float32(), nullable=False) if f.name in {"x", "y"} else f for f in tables.TILES]
    altered = pa.schema(floats, metadata=tables.TILES.metadata)
    with pytest.raises(ArtifactError, match=r"its columns differ: \['x', 'y'\] \(a damaged or altered file\)"):
        tables.check(altered, tables.TILES, "x.parquet")
    with pytest.raises(ArtifactError, match=r"its columns differ: \['spot'\]"):
        tables.check(tables.TILES.remove(tables.TILES.get_field_index("spot")), tables.TILES, "x.parquet")


@pytest.mark.parametrize("other", [tables.embeddings(5), tables.embeddings(4, precision="float16")])
def test_embeddings_of_another_length_or_precision_are_refused(other: pa.Schema) -> None:
    with pytest.raises(ArtifactError, match=r"its columns differ: \['vector'\]"):
        tables.check(other, tables.embeddings(4), "x.parquet")


def test_embeddings_have_one_of_two_precisions() -> None:
    assert tables.embeddings(2).field("vector").type == pa.list_(pa.float32(), 2)
    assert tables.embeddings(2, precision="float16").field("vector").type == pa.list_(pa.float16(), 2)
    with pytest.raises(KeyError):
        tables.embeddings(2, precision="float64")


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_vectors_come_back_as_rows_also_from_a_slice_of_several_chunks(precision: str) -> None:
    rows = np.arange(12, dtype=np.float64).reshape(4, 3)
    column = pa.chunked_array([tables.vectors(rows[:1], precision), tables.vectors(rows[1:], precision)])
    np.testing.assert_array_equal(tables.matrix(column), rows)
    np.testing.assert_array_equal(tables.matrix(column.slice(1, 2)), rows[1:3])
    np.testing.assert_array_equal(tables.matrix(column.slice(2, 2)), rows[2:])  # of one chunk, from its middle
    assert tables.matrix(column.slice(0, 0)).shape == (0, 3)


def test_vectors_of_a_view_keep_the_order_of_its_rows() -> None:
    view = np.arange(6, dtype=np.float32).reshape(2, 3).T[::-1]
    np.testing.assert_array_equal(tables.matrix(pa.chunked_array([tables.vectors(view)])), view)


def test_rows_and_columns_make_the_same_table() -> None:
    rows = [{"slide": "A", "tile": 0, "x": 1.0, "y": 2.0, "side": 4.0, "spot": None}]
    columns = [["A"], np.array([0]), np.array([1.0]), np.array([2.0]), np.array([4.0]), [None]]
    assert tables.of_rows(rows, tables.TILES).equals(tables.of_columns(columns, tables.TILES))
    assert tables.of_rows([], tables.TILES).equals(tables.TILES.empty_table())


def test_a_row_that_lacks_what_a_table_must_hold_cannot_be_stored(tmp_path: Path) -> None:
    row = tables.of_rows([{"slide": None, "stage": "tile", "reason": "?"}], tables.FAILURES)
    with pytest.raises(StorageError, match=r"cannot write .*failures.parquet: Column 'slide' is declared non-nullable"):
        StoragePath.of(tmp_path / "failures.parquet").write_table(row)
    assert not list(tmp_path.iterdir())
