"""The values of a column are counted by its pages, whatever their version, compression and number."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raystp.parquet_pages import values_of_pages


def _table(version: str, compression: str, rows: int = 1000) -> bytes:
    vectors = [[float(value) for value in range(row % 7)] or None for row in range(rows)]
    table = pa.table({"gene": ["a"] * rows, "vector": vectors, "pair": [{"x": 1, "y": [2, 3]}] * rows})
    sink = io.BytesIO()
    pq.write_table(
        table, sink, data_page_version=version, compression=compression, row_group_size=300, data_page_size=500
    )
    return sink.getvalue()


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
def test_pages_have_the_values_of_their_column(version: str, compression: str) -> None:
    source = pa.BufferReader(_table(version, compression))
    assert values_of_pages(source, {"vector"}) == sum(max(1, row % 7) for row in range(1000))
    assert values_of_pages(source, {"pair"}) == 3000
    assert values_of_pages(source, {"gene", "pair"}) == 4000
    assert values_of_pages(source, {"absent"}) == 0


def test_a_damaged_file_has_a_count_or_is_one_error() -> None:
    content = _table("1.0", "none", 40)
    outcomes = set()
    for at in range(0, len(content), 23):
        changed = bytearray(content)
        changed[at] ^= 0x55
        try:
            values_of_pages(pa.BufferReader(bytes(changed)), {"vector"})
            outcomes.add("count")
        except ValueError:
            outcomes.add("error")
    assert outcomes == {"count", "error"}
