"""Columns of parquet tables: read in parts, and refused before reading where a file declares more than it can hold."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raystp.errors import SectionError
from raystp.expression.readers.files import columns
from raystp.expression.readers.files.columns import open_columns
from raystp.storage import StoragePath


def _read(path: Path, *wanted: str) -> list[list[object]]:
    with open_columns(StoragePath.of(path), "section 'S1'", "a table") as table:
        batches = list(table.batches(wanted))
    return [np.concatenate([batch[name].to_pylist() for batch in batches]).tolist() for name in wanted]


def test_parts_are_the_whole_in_the_order_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "ROWS", 7)
    table = pa.table({"B": np.arange(100.0), "a": [str(number) for number in range(100)], "other": [None] * 100})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=30)
    a, b = _read(tmp_path / "a.parquet", "a", "b")
    assert a == [str(number) for number in range(100)]
    assert b == np.arange(100.0).tolist()


def test_an_empty_cell_is_named_with_its_column(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1, None, 2]}), tmp_path / "a.parquet")
    with pytest.raises(SectionError, match=r"^section 'S1': .*a.parquet has 1 empty cells in the column 'a'"):
        _read(tmp_path / "a.parquet", "a")


def _varint(number: int) -> bytes:
    """Return a number above 0 as thrift stores it: zigzag, then 7 bits a byte."""
    rest, found = 2 * number, b""
    while rest > 127:
        found, rest = found + bytes([rest % 128 + 128]), rest // 128
    return found + bytes([rest])


def test_a_table_of_more_rows_than_its_bytes_can_hold_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "bomb.parquet"
    pq.write_table(pa.table({"a": np.zeros(1000, np.int8)}), path)
    content = path.read_bytes()
    start = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    footer = content[start:-8].replace(b"\x16" + _varint(1000), b"\x16" + _varint(10**9), 1)
    path.write_bytes(content[:start] + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    with pytest.raises(SectionError, match=r"declares 1000000000 rows in a file of \d+ bytes: a damaged or hostile"):
        _read(path, "a")


def test_another_file_is_not_a_table(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("a,b\n1,2\n")
    with pytest.raises(SectionError, match=r"^section 'S1': .*a.parquet is not a table: "):
        _read(tmp_path / "a.parquet", "a")
