"""Files of embeddings that are damaged or of another run: each is refused by its path, before its values are read."""

import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raystp import tables
from raystp.artifacts import Artifact, ArtifactWriter
from raystp.errors import ArtifactError, RaystpError
from raystp.expression.embeddings.read import read_embeddings
from raystp.storage import StoragePath

DIM, TILES = 4, 3
BOMB_ROWS = 10_000_000


def _table(dim: int = DIM, rows: int = TILES, *, precision: str = "float32") -> pa.Table:
    vectors = np.arange(rows * dim, dtype=np.float32).reshape(rows, dim).astype(precision)
    places = [["S1"] * rows, list(range(rows)), [0.0] * rows, [0.0] * rows, [10.0] * rows, [None] * rows]
    return tables.of_columns([*places, vectors.tolist()], tables.embeddings(dim, precision=precision))


@pytest.fixture
def embed(tmp_path: Path) -> Artifact:
    """Embeddings of one slide in two units of three tiles."""
    store = StoragePath.of(tmp_path)
    for unit in range(2):
        (store / "embed" / "toy-0" / "embeddings" / "S1" / f"S1.0000{unit}.parquet").write_table(_table())
    notes = {"precision": "float32", "units": {"S1": ["S1.00000", "S1.00001"]}}
    return ArtifactWriter(store / "embed" / "toy-0", "embed", "toy", "0", {}, {}).finish({"tiles": 6}, [], notes)


def _with_nan() -> pa.Table:
    table = _table()
    values = tables.matrix(table["vector"]).copy()
    values[1, 2] = np.nan
    column = pa.FixedSizeListArray.from_arrays(values.ravel(), DIM)
    return pa.Table.from_arrays([*table.columns[:-1], column], schema=table.schema)


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def _bomb(file: Path) -> None:
    """Write one value 10^7 times: a few KB on disk."""
    one = pa.DictionaryArray.from_arrays(pa.array(np.zeros(BOMB_ROWS, np.int8)), pa.array(["S1"]))
    pq.write_table(pa.table({"slide": one}), file, compression="zstd")


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda file: file.write_bytes(b""), "cannot read .*: Parquet file size is 0 bytes"),
    "cut off": (_cut, "cannot read .*: Parquet magic bytes not found in footer"),
    "no parquet": (lambda file: file.write_bytes(b"x" * 5000), "cannot read .*: Parquet magic bytes not found"),
    "another table": (
        lambda file: pq.write_table(pa.table({"vector": [1.0]}), file),
        "is a table without the name and version that raystp writes",
    ),
    "vectors of another length": (lambda file: pq.write_table(_table(DIM + 1), file), r"columns differ: \['vector'\]"),
    "another precision": (
        lambda file: pq.write_table(_table(precision="float16"), file),
        r"columns differ: \['vector'\]",
    ),
    "not a number": (lambda file: pq.write_table(_with_nan(), file), r"1 vectors that are not finite \(tiles '1'\)"),
    "more rows than all": (lambda file: pq.write_table(_table(rows=7), file), "has 7 rows, and all .* have 6"),
    "a bomb": (_bomb, "is a table without the name and version"),
}


def test_whole_units_are_read_in_order(embed: Artifact) -> None:
    assert read_embeddings(embed, "S1")["tile"].to_pylist() == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("unit", [0, 1])
@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_file_of_embeddings_is_refused_by_its_path(kind: str, unit: int, embed: Artifact) -> None:
    damage, message = DAMAGES[kind]
    file = embed.path.local_path / "embeddings" / "S1" / f"S1.0000{unit}.parquet"
    damage(file)
    with pytest.raises(RaystpError, match=message) as caught:
        read_embeddings(embed, "S1")
    assert str(file.parent) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bomb_with_the_right_columns_takes_no_memory(embed: Artifact) -> None:
    part = _table(rows=1).take(pa.array(np.zeros(50_000, np.int32)))
    file = embed.path.local_path / "embeddings" / "S1" / "S1.00000.parquet"
    with pq.ParquetWriter(file, part.schema, compression="zstd") as writer:
        for _ in range(100):
            writer.write_table(part)
    assert file.stat().st_size < 1_000_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ArtifactError, match="has 5000000 rows"):
        read_embeddings(embed, "S1")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KB
