"""Text that a user writes or exports: lists and tables, from any editor, spreadsheet program, R or pandas.

All lists and tables of users are read here, so each accepts the same: UTF-8 with or without a byte order mark, UTF-16
with one ("Unicode text" of Excel), gzip, any line ends; commas, semicolons or tabs; quoted cells; empty rows and
columns. Other readers, of positions or large matrices, use `decode_text` and `split_header` before their own parser.
`read_object` reads the JSON of other programs.

Each function takes the class of the error that it raises, which names the file, and the line where there is one.
"""

import codecs
import csv
import gzip
import io
import re
import zlib
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import pydantic_core

from raystp.errors import LONGEST, ConfigError, RaystpError, some
from raystp.storage.path import StoragePath

MAX_TEXT = 1 << 32
"""Bytes of text at most, unzipped."""

MAX_EXPANSION = 200
TEXT_ALLOWANCE = 1 << 28
"""A gzip file may unpack to so many times its size, and so many bytes more; gzip itself expands up to 1032 times."""

_PIECE = 1 << 20

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}

_MARKS = {  # UTF-32 before UTF-16: its mark begins with that of UTF-16
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_OTHER_FORMATS = {
    b"PK\x03\x04": "an Excel workbook (.xlsx) or another ZIP file",
    b"\xd0\xcf\x11\xe0": "an Excel workbook (.xls)",
    b"PAR1": "a parquet file",
    b"\x89HDF": "an HDF5 file",
    b"%PDF": "a PDF",
}
_GZIP = b"\x1f\x8b"
_INVISIBLE = "\ufeff\u200b\u200c\u200d\u200e\u200f\u2060"
_SEPARATOR_LINE = re.compile(r"^\ufeff?\"?sep=(.)\"?[,;\t]*$", re.IGNORECASE)
_REMARK = re.compile(r"(^|\s)#.*")


@dataclass(frozen=True)
class TextRow:
    """One row of a table: the number of its line in the file, and its cells by column."""

    line: int
    cells: dict[str, str]


@dataclass(frozen=True)
class TextTable:
    """A table as text. Names and cells have no spaces, marks or invisible characters at their ends."""

    where: str
    """The file, for messages."""
    separator: str
    """One of `SEPARATORS`; a comma for a table that is not text."""
    columns: list[str]
    rows: list[TextRow]
    """Without the empty ones; a cell that is absent at a row's end is empty."""
    unnamed: list[int]
    """Numbers of the columns, from 1, that have values but no name, such as R's row names; they are not in `cells`."""


def read_text_table(
    path: StoragePath, *, known: Collection[str] = (), error: type[RaystpError] = ConfigError
) -> TextTable:
    """Read a table with a header; the separator is the one that gives most of the `known` columns, or most cells.

    Lines before the header that begin with `#`, and Excel's `sep=;`, are not part of the table. Raises `error` for
    another encoding or format, a column that occurs twice, a row with more cells than the header, a line break within a
    cell, and a quote without its end.
    """
    lines = io.StringIO(decode_text(path.read_bytes(), str(path), error)).readlines()
    separator, first = _find_header(lines, known)
    reader = csv.reader(lines[first:], delimiter=separator, strict=True)
    rows: list[tuple[int, dict[int, str]]] = []
    try:
        header = [trimmed(cell) for cell in next(reader, [])]
        for cells in reader:
            found = {number: text for number, cell in enumerate(cells) if (text := trimmed(cell))}
            rows += [(first + reader.line_num, found)] if found else []
    except csv.Error as fault:
        line = first + reader.line_num
        msg = f"{path}, line {line} or a line before it is not a row of cells ({fault}): is a quote missing?"
        raise error(msg) from None
    return as_table(str(path), separator, header, rows, error=error)


def read_list(path: StoragePath, *, error: type[RaystpError] = ConfigError) -> list[tuple[int, str]]:
    """Return the lines of a list with their numbers, without empty lines and remarks (`# ...`).

    A line may be quoted, or end with separators, as a spreadsheet with one column is saved. Raises `error` for a line
    with several cells.
    """
    found = []
    for number, line in read_text_lines(path, error=error):
        cells = [_unquoted(trimmed(cell)) for cell in re.split(r"[,;\t]", _REMARK.sub("", line))]
        entries = [cell for cell in cells if cell]
        if len(entries) > 1:
            msg = f"{path}, line {number}: {line[:60]!r} has {len(entries)} cells; a list has one entry per line"
            raise error(msg)
        found += [(number, entry) for entry in entries]
    return found


def read_text_lines(path: StoragePath, *, error: type[RaystpError] = ConfigError) -> list[tuple[int, str]]:
    """Return the lines with their numbers from 1, without line ends, empty lines, and remarks (`# ...`)."""
    lines = decode_text(path.read_bytes(), str(path), error).split("\n")
    return [(number, line) for number, line in enumerate(lines, 1) if trimmed(line) and not line.startswith("#")]


def as_table(
    where: str,
    separator: str,
    header: list[str],
    numbered: list[tuple[int, dict[int, str]]],
    *,
    error: type[RaystpError],
) -> TextTable:
    """Return the table with cells by name; `numbered` has each row's line, and its cells by column number.

    Raises `error` for a column that occurs twice, and for a row with more cells than the header or with a line break.
    """
    repeated = sorted(name for name, times in Counter(header).items() if times > 1 and name)
    if repeated:
        msg = f"{where} has the column {some(repeated)} more than once: rename or remove one"
        raise error(msg)
    rows, unnamed = [], set()
    for line, cells in numbered:
        surplus = [cell for number, cell in cells.items() if number >= len(header)]
        if surplus:
            msg = (
                f"{where}, line {line}: there are more cells than columns, {some(surplus)} too many; the cells are "
                f"separated by {SEPARATORS[separator]}: quote a cell that has one"
            )
            raise error(msg)
        broken = [header[number] for number, cell in cells.items() if "\n" in cell]
        if broken:
            msg = f"{where}, line {line}: the cell of {broken[0]!r} has a line break; remove it, or add a missing quote"
            raise error(msg)
        unnamed |= {number + 1 for number in cells if not header[number]}
        rows.append(TextRow(line, {name: cells.get(number, "") for number, name in enumerate(header) if name}))
    return TextTable(where, separator, [name for name in header if name], rows, sorted(unnamed))


def decode_text(content: bytes, where: str, error: type[RaystpError] = ConfigError) -> str:
    """Return the text of a file, unzipped, without a byte order mark, and with line feeds as the only line ends.

    Raises `error` for an encoding that is not UTF-8, and is not UTF-16 or UTF-32 with a mark; also for other formats,
    and for more than `MAX_TEXT` bytes.
    """
    limit = MAX_TEXT
    try:
        if content.startswith(_GZIP):
            limit = min(MAX_TEXT, TEXT_ALLOWANCE + MAX_EXPANSION * len(content))
            content = _unzipped(content, limit)
    except (OSError, EOFError, zlib.error) as fault:
        msg = f"{where} cannot be read as text ({type(fault).__name__}: {fault}): the gzip file is damaged"
        raise error(msg) from None
    if len(content) > limit:
        msg = f"{where} holds over {limit >> 20:,} MiB of text: a damaged or hostile file; it was not read"
        raise error(msg)
    other = next((name for start, name in _OTHER_FORMATS.items() if content.startswith(start)), None)
    if other is not None:
        msg = f"{where} cannot be read as text: it is {other}; save it as CSV UTF-8"
        raise error(msg)
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as fault:
        line = content[: fault.start].count(b"\n") + 1
        byte = f"line {line} is not {encoding.removesuffix('-sig').upper()}, byte 0x{content[fault.start]:02x}"
        msg = f"{where} cannot be read as text ({byte}): save it as UTF-8, in Excel as CSV UTF-8"
        raise error(msg) from None
    if "\0" in text:
        msg = f"{where} cannot be read as text: it has NUL characters, as UTF-16 without a mark has; save it as UTF-8"
        raise error(msg)
    return text.replace("\r\n", "\n").replace("\r", "\n").removeprefix("\ufeff")


def _unzipped(content: bytes, limit: int) -> bytes:
    """Return the start of a gzip file's content, more than `limit` bytes where it has more.

    It is read in pieces: `read(n)` allocates n bytes at once, also for a file of some bytes.
    """
    unzipped = io.BytesIO()
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
        while unzipped.tell() <= limit and (piece := file.read(_PIECE)):
            unzipped.write(piece)
    return unzipped.getvalue()


def split_header(text: str, known: Collection[str] = ()) -> tuple[list[str], str, str]:
    """Return the names of a table's columns, its separator, and the text below the header, for another parser.

    Raises ValueError for a header that is not one row of cells.
    """
    lines = io.StringIO(text).readlines()
    separator, first = _find_header(lines, known)
    reader = csv.reader(lines[first:], delimiter=separator)
    try:
        names = [trimmed(cell) for cell in next(reader, [])]
    except csv.Error as fault:
        msg = f"its header is not a row of cells ({fault})"
        raise ValueError(msg) from None
    return names, separator, "".join(lines[first + reader.line_num :])


def find_separator(header: str, known: Collection[str] = ()) -> str:
    """Return the separator of a header: the one that gives most `known` columns, of equal ones most cells."""

    def rank(separator: str) -> tuple[int, int]:
        cells = {_unquoted(trimmed(cell)).casefold() for cell in header.split(separator)}
        return len(cells & {name.casefold() for name in known}), header.count(separator)

    return max(SEPARATORS, key=rank)


def trimmed(text: str) -> str:
    """Return a text without spaces, no-break spaces, byte order marks and zero-width characters at its ends."""
    text = text.strip()
    while text and (text[0] in _INVISIBLE or text[-1] in _INVISIBLE):
        text = text.strip(_INVISIBLE).strip()
    return text


def parse_number(text: str) -> float | None:
    """Return a number written as `0.5`, `5e-1` or `0,5`; None for other text, and for `1,234`, which may be 1234."""
    if re.fullmatch(r"[+-]?\d+,\d+", text, re.ASCII) and not re.fullmatch(r"[+-]?[1-9]\d{0,2},\d{3}", text, re.ASCII):
        text = text.replace(",", ".")
    return float(text) if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text, re.ASCII) else None


def _unquoted(text: str) -> str:
    return trimmed(text[1:-1]) if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text


def _find_header(lines: list[str], known: Collection[str]) -> tuple[str, int]:
    """Return the separator, and the number of lines before the header."""
    separator = None
    for number, line in enumerate(lines):
        declared = _SEPARATOR_LINE.match(line.rstrip("\n"))
        if declared is not None:
            separator = declared[1] if declared[1] in SEPARATORS else None
        elif trimmed(line.strip(",;\t\n")) and not line.startswith("#"):
            return separator or find_separator(line.rstrip("\n"), known), number
    return separator or ",", len(lines)


def read_object(path: StoragePath, limit: int, error: type[RaystpError]) -> dict[str, Any]:
    """Return a file of JSON that is an object. Raises `error` for another one, and above `limit` bytes."""
    size = path.size()
    if size > limit:
        msg = f"{path} has {size:,} bytes, and {limit:,} are expected at most; it was not read"
        raise error(msg)
    try:
        # It refuses half of a surrogate pair, which no table stores.
        found = pydantic_core.from_json(path.read_bytes().removeprefix(codecs.BOM_UTF8))
    except ValueError as fault:
        msg = f"{path} is not readable JSON ({str(fault)[:LONGEST]}): write, copy or download it again"
        raise error(msg) from None
    if not isinstance(found, dict):
        msg = f"{path} holds a JSON {type(found).__name__}, expected an object"
        raise error(msg)
    return found
