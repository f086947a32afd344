"""Tables between steps: their label, their round trip through a file, and the refusal of another version."""

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
    "completion steps": tables.COMPLETION_STEPS,
    "completion errors": tables.COMPLETION_ERRORS,
    "embeddings": tables.embeddings(4),
    "half embeddings": tables.embeddings(4, precision="float16"),
    "predictions": tables.predictions(3),
}


def _labelled(schema: pa.Schema, **changed: str) -> pa.Schema:
    metadata = dict(schema.metadata)
    return schema.with_metadata(metadata | {f"raystp.{key}".encode(): value.encode() for key, value in changed.items()})


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_a_table_keeps_its_name_version_and_columns_on_disk(tmp_path: Path, schema: pa.Schema) -> None:
    file = StoragePath.of(tmp_path / "table.parquet")
    file.write_table(schema.empty_table())
    tables.check(file.read_schema(), schema, str(file))
    tables.check(file.read_table().schema, schema, str(file))


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_a_table_of_another_version_is_refused_with_what_to_do(schema: pa.Schema) -> None:
    name = schema.metadata[tables.NAME].decode()
    refusal = (
        rf"store/x.parquet is table '{name}' version 2, and this raystp reads table '{name}' version 1: run its step"
    )
    with pytest.raises(ArtifactError, match=refusal):
        tables.check(_labelled(schema, version="2"), schema, "store/x.parquet")


def test_another_table_and_one_without_a_label_are_refused() -> None:
    with pytest.raises(ArtifactError, match=r"is table 'failures' version 1, and this raystp reads table 'tiles'"):
        tables.check(tables.FAILURES, tables.TILES, "x.parquet")
    with pytest.raises(ArtifactError, match=r"is a table without the name and version that raystp writes, and this"):
        tables.check(pa.schema([pa.field("slide", pa.string())]), tables.TILES, "x.parquet")


def test_a_table_with_other_columns_than_its_label_is_refused_with_their_names() -> None:
    floats = [pa.field(f.name, pa.float32(), nullable=False) if f.name in {"x", "y"} else f for f in tables.TILES]
    altered = pa.schema(floats, metadata=tables.TILES.metadata)
    with pytest.raises(ArtifactError, match=r"its columns differ: \['x', 'y'\]; the file is damaged or was changed"):
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
def test_vectors_are_read_back_as_rows_from_slices_of_several_chunks_too(precision: str) -> None:
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


def test_a_row_without_a_required_value_cannot_be_stored(tmp_path: Path) -> None:
    row = tables.of_rows([{"slide": None, "stage": "tile", "reason": "?"}], tables.FAILURES)
    with pytest.raises(StorageError, match=r"cannot write .*failures.parquet: Column 'slide' is declared non-nullable"):
        StoragePath.of(tmp_path / "failures.parquet").write_table(row)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_vectors_are_read_as_written_and_take_no_more_than_their_own_bytes(tmp_path: Path, precision: str) -> None:
    values = np.random.default_rng(0).standard_normal((500, 32)).astype(precision)
    schema = tables.embeddings(32, precision=precision)
    tiles = [["S"] * 500, range(500), np.arange(500.0), np.arange(500.0), np.ones(500), [f"s{n}" for n in range(500)]]
    table = tables.of_columns([*tiles, tables.vectors(values, precision)], schema)
    file = StoragePath.of(tmp_path / "a.parquet")
    file.write_table(table)
    assert file.read_table().equals(table)
    assert file.size() < values.nbytes + 12_000  # of the other columns
