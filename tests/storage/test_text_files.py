"""Text of users: every encoding, separator and line end gives the same table, and damage is named."""

import codecs
import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from raystp.errors import ConfigError, SectionError
from raystp.storage import StoragePath, text_files
from raystp.storage.text_files import (
    find_separator,
    parse_number,
    read_list,
    read_object,
    read_text_lines,
    read_text_table,
)

TABLE = 'id,näme,n\nA,"x,y;z\tü",1\n\n,,\nB,w,\n'
"""Quoted separators, umlauts, an empty line, an empty row, and an empty cell."""
ENCODINGS: dict[str, Callable[[str], bytes]] = {
    "utf-8": lambda text: text.encode(),
    "utf-8 with a mark": lambda text: codecs.BOM_UTF8 + text.encode(),
    "utf-16 little": lambda text: codecs.BOM_UTF16_LE + text.encode("utf-16-le"),
    "utf-16 big": lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
    "utf-32": lambda text: text.encode("utf-32"),
    "gzip": lambda text: gzip.compress(text.encode()),
}


def _file(folder: Path, content: bytes | str) -> StoragePath:
    (folder / "t.csv").write_bytes(content.encode() if isinstance(content, str) else content)
    return StoragePath.of(folder / "t.csv")


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_table_reads_the_same_however_it_was_saved(tmp_path: Path, encoding: str, end: str, separator: str) -> None:
    quoted = '"x,y;z\tü"'
    text = separator.join(TABLE.replace(quoted, "QUOTED").split(",")).replace("QUOTED", quoted)
    table = read_text_table(_file(tmp_path, ENCODINGS[encoding](text.replace("\n", end))), known=("id", "näme"))
    assert (table.columns, table.separator) == (["id", "näme", "n"], separator)
    assert [row.cells for row in table.rows] == [
        {"id": "A", "näme": "x,y;z\tü", "n": "1"},
        {"id": "B", "näme": "w", "n": ""},
    ]
    assert [row.line for row in table.rows] == [2, 5]


def test_excels_own_line_remarks_and_empty_columns_are_no_part_of_a_table(tmp_path: Path) -> None:
    table = read_text_table(_file(tmp_path, "sep=;\r\n# saved today\r\n;;\r\n id\xa0;\ufeffx;;\r\nA;1,5;;\r\n;;;\r\n"))
    assert (table.columns, [row.cells for row in table.rows]) == (["id", "x"], [{"id": "A", "x": "1,5"}])
    assert (table.rows[0].line, table.unnamed) == (5, [])
    assert read_text_table(_file(tmp_path, '"",id\n1,A\n2,B\n')).unnamed == [1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "id\nä\n".encode("latin-1"),
            r"t.csv cannot be read as text \(line 2 is not UTF-8, byte 0xe4\): save it as UTF",
        ),
        ("id\nA\n".encode("utf-16-le"), "it has NUL characters, as UTF-16 without a mark has; save it as UTF-8"),
        (b"\xff\xfei", r"\(line 1 is not UTF-16"),
        (b"PK\x03\x04...", r"it is an Excel workbook \(.xlsx\) or another ZIP file; save it as CSV UTF-8"),
        (b"PAR1...", "it is a parquet file"),
        (b"\x1f\x8b...", "the gzip file is damaged"),
        (gzip.compress(b"id\n" * 99, mtime=0)[:-9], "the gzip file is damaged"),
        ("id,n\nA,1,2\n", "line 2: there are more cells than columns, '2' too many; .* separated by commas: quote"),
        ("id,n,id\nA,1,2\n", "has the column 'id' more than once"),
        ('id,n\nA,"1\nB,2\n', "line 3 or a line before it is not a row of cells .*: is a quote missing"),
        ('id,n\nA,"1\nB",2\n', "line 3: there are more cells than columns"),
        ('id,n\n"A\nB",2\n', "line 3: the cell of 'id' has a line break; remove it, or add a missing quote"),
        ('id,n\n"A"B,2\n', "line 2 or a line before it is not a row of cells"),
    ],
)
def test_damage_is_named_with_its_line_by_the_callers_error(tmp_path: Path, content: bytes | str, message: str) -> None:
    for error in (ConfigError, SectionError):
        with pytest.raises(error, match=message):
            read_text_table(_file(tmp_path, content), error=error)


def test_json_with_a_byte_order_mark_is_the_same_object(tmp_path: Path) -> None:
    assert read_object(_file(tmp_path, b'\xef\xbb\xbf{"mpp": 0.5}'), 100, ConfigError) == {"mpp": 0.5}


def test_an_empty_file_is_a_table_without_columns(tmp_path: Path) -> None:
    for content in ("", "\n\n", "\ufeff", ",,\n"):
        table = read_text_table(_file(tmp_path, content))
        assert (table.columns, table.rows) == ([], [])


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_list_has_one_entry_per_line_without_remarks(tmp_path: Path, encoding: str) -> None:
    text = '# genes\r\nACTB\r\n\r\n "HLA-A" ,,\r\nCD3D # T cells\r\nA#1;\r\n'
    assert read_list(_file(tmp_path, ENCODINGS[encoding](text))) == [(2, "ACTB"), (4, "HLA-A"), (5, "CD3D"), (6, "A#1")]
    with pytest.raises(ConfigError, match=r"line 2: 'B\\tENSG1' has 2 cells; a list has one entry per line"):
        read_list(_file(tmp_path, "A\nB\tENSG1\n"))


def test_lines_keep_their_separators_and_numbers(tmp_path: Path) -> None:
    assert read_text_lines(_file(tmp_path, "\ufeffa\tb \r\n \r\nc\x0bd\n")) == [(1, "a\tb "), (3, "c\x0bd")]


def test_the_separator_gives_most_of_the_known_columns() -> None:
    assert find_separator("slide;a,b,c,d;case", ("slide", "case")) == ";"
    assert find_separator("a,b;c\td\te") == "\t"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0.5", 0.5),
        ("0,5", 0.5),
        ("12,3456", 12.3456),
        ("-1e3", -1000),
        ("7", 7),
        ("1,234", None),  # 1.234 or 1234
        ("1.234,5", None),
        ("1_0", None),
        ("٣", None),
        ("nan", None),
        ("inf", None),
        ("", None),
        ("0x1", None),
    ],
)
def test_a_number_is_read_only_where_it_has_one_meaning(text: str, number: float | None) -> None:
    assert parse_number(text) == number


def test_a_small_file_that_unzips_to_more_than_the_limit_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "MAX_TEXT", 1 << 20)
    assert len(text_files.decode_text(gzip.compress(b"a" * (1 << 20)), "list.txt.gz")) == 1 << 20
    with pytest.raises(ConfigError, match=r"list.txt.gz holds over 1 MiB of text: .* it was not read"):
        text_files.decode_text(gzip.compress(b"a" * ((1 << 20) + 1)), "list.txt.gz")
