"""Count the values of columns by the headers of their pages, before pyarrow reads one.

A list of 10^9 equal numbers takes some bytes of a parquet file, and one row. The footer states how many values a column
has, and so does each page; pyarrow reads as many as the page says. Both are parsed here as plain bytes, since pyarrow
ends the process where the part of a damaged footer that describes a column is asked for (pyarrow 25).
Format: https://parquet.apache.org/docs/file-format/metadata/ and Thrift's compact protocol.
"""

from collections.abc import Collection
from typing import Any

import pyarrow as pa

ROW_GROUPS, COLUMNS, METADATA = 4, 1, 3
PATH, VALUES, FIRST_PAGE, DICTIONARY_PAGE = 3, 5, 9, 11
"""Fields of the footer."""
STORED, PAGES = 3, (5, 8)
"""Fields of a page's header: bytes of the page that follow, and the description of a page of data, version 1 or 2."""
MAX_HEADER = 1 << 16
"""Bytes of a page's header that are read; one has some tens, and the least and largest value, which writers cut."""
MAX_DEPTH = 16


def values_of_pages(source: pa.NativeFile, columns: Collection[str]) -> int:
    """Return the number of values of these columns, with those below them; raises ValueError for a damaged file."""
    size = source.size()
    try:
        source.seek(size - 8)
        length = int.from_bytes(source.read(4), "little")
        source.seek(max(0, size - 8 - length))
        footer = _Compact(source.read(length)).struct()
        described = [one[METADATA] for group in footer[ROW_GROUPS] for one in group[COLUMNS]]
        return sum(_of_column(source, one) for one in described if one[PATH][0].decode() in columns)
    except (KeyError, IndexError, TypeError, AttributeError, OverflowError, OSError) as error:
        msg = f"its footer or a page is damaged ({type(error).__name__}: {error})"
        raise ValueError(msg) from None


def _of_column(source: pa.NativeFile, described: dict[int, Any]) -> int:
    """Return the values of a column in a row group: pages are read until they have as many as the footer says."""
    at, values = min(described[FIRST_PAGE], described.get(DICTIONARY_PAGE) or described[FIRST_PAGE]), 0
    while values < described[VALUES]:
        source.seek(at)
        parser = _Compact(source.read(MAX_HEADER))
        header = parser.struct()
        values += max([header[one][1] for one in PAGES if one in header], default=0)
        if header[STORED] < 0 or values < 0:
            msg = f"a page has {header[STORED]} bytes and {values} values"
            raise ValueError(msg)
        at += parser.at + header[STORED]
    return max(values, int(described[VALUES]))


class _Compact:
    """Parses a struct of Thrift's compact protocol to the number of each field and its value."""

    def __init__(self, content: bytes) -> None:
        self._content, self._depth = content, 0
        self.at = 0
        """Bytes that are read."""

    def struct(self) -> dict[int, Any]:
        """Return the fields of the next struct; raises IndexError where the bytes end, ValueError for another type."""
        if self._depth == MAX_DEPTH:
            msg = f"a header has more than {MAX_DEPTH} structs in each other"
            raise ValueError(msg)
        self._depth += 1
        found: dict[int, Any] = {}
        number = 0
        while byte := self._byte():
            number = number + (byte >> 4) if byte >> 4 else self._zigzag()
            found[number] = byte & 15 == 1 if byte & 15 in {1, 2} else self._value(byte & 15)
        self._depth -= 1
        return found

    def _value(self, kind: int) -> Any:
        if kind in {1, 2, 3}:  # of a list; a field has a boolean in its type
            return self._byte()
        if kind in {4, 5, 6}:
            return self._zigzag()
        if kind in {7, 8}:
            size = 8 if kind == 7 else self._varint()  # noqa: PLR2004 -- a double
            self.at += size
            return self._content[self.at - size : self.at]
        if kind in {9, 10}:
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._varint()  # noqa: PLR2004 -- the number follows
            return [self._value(head & 15) for _ in range(count)]
        if kind == 12:  # noqa: PLR2004 -- a struct
            return self.struct()
        msg = f"a header has a value of the type {kind}"
        raise ValueError(msg)

    def _zigzag(self) -> int:
        number = self._varint()
        return number >> 1 if not number & 1 else -(number >> 1) - 1

    def _varint(self) -> int:
        found, shift = 0, 0
        while (byte := self._byte()) & 128:
            found, shift = found | (byte & 127) << shift, shift + 7
        return found | byte << shift

    def _byte(self) -> int:
        self.at += 1
        return self._content[self.at - 1]
