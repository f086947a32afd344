"""Tables of positions and counts as text: any separator, a byte order mark, gzip, quotes, and R's row names."""

import csv
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from raystp.errors import SectionError, some
from raystp.storage import StoragePath
from raystp.storage.text_files import decode_text, find_separator, parse_number, trimmed

SHOWN = 60
"""Characters of a cell in a message."""


@dataclass(frozen=True)
class Cells:
    """Rows of text cells below a header; `header` is None where the first row is data."""

    header: list[str] | None
    rows: list[list[str]]

    def column(self, name: str) -> list[str]:
        """Return the cells of a column; raises KeyError for an unknown one."""
        if self.header is None or name not in self.header:
            raise KeyError(name)
        position = self.header.index(name)
        return [row[position] for row in self.rows]


def read_cells(path: StoragePath, known: tuple[str, ...], what: str, origin: str) -> Cells:
    """Read a table; its first row is a header if it has one of the `known` names.

    R writes row names without a header, so a header that is one cell shorter than the rows gets an empty first name.
    Names are in lower case. Raises SectionError for rows of different lengths.
    """
    path.size()
    text = decode_text(path.read_bytes(), str(path), SectionError)
    lines = [line for line in text.split("\n") if trimmed(line)]
    if not lines:
        msg = f"{origin}: {path} is not {what}: it is empty"
        raise SectionError(msg)
    separator = find_separator(lines[0], known)
    try:
        rows = [[trimmed(cell) for cell in row] for row in csv.reader(lines, delimiter=separator)]
    except csv.Error as error:
        msg = f"{origin}: {path} is not {what}: {error}"
        raise SectionError(msg) from None
    rows = [row for row in rows if any(row)]
    first = [cell.casefold() for cell in rows[0]] if rows else []
    header = first if set(first) & {name.casefold() for name in known} else None
    rows = rows[1:] if header is not None else rows
    if header is not None and rows and len(rows[0]) == len(header) + 1:
        header = ["", *header]
    return _same_lengths(Cells(header, rows), path, what, origin)


def to_numbers(cells: list[str], column: str, path: StoragePath, origin: str) -> Float64[np.ndarray, "row"]:
    """Return cells as numbers, `NA` and empty ones as nan; raises SectionError for other text."""
    values = []
    for cell in cells:
        value = np.nan if cell.casefold() in {"", "na", "nan", "null", "none"} else parse_number(cell)
        if value is None:
            value = _infinite(cell)
        if value is None:
            msg = f"{origin}: {path} has values that are not numbers: {column} is {_short(cell)!r}"
            raise SectionError(msg)
        values.append(value)
    return np.asarray(values, np.float64)


def _short(cell: str) -> str:
    """Return a cell for a message; after a quote without its end, a cell holds many lines."""
    return cell if len(cell) <= SHOWN else f"{cell[:SHOWN]}..."


def _infinite(cell: str) -> float | None:
    return float(cell) if cell.casefold().lstrip("+-") in {"inf", "infinity"} else None


def _same_lengths(cells: Cells, path: StoragePath, what: str, origin: str) -> Cells:
    width = len(cells.header) if cells.header is not None else len(cells.rows[0]) if cells.rows else 0
    odd = [row for row in cells.rows if len(row) != width and any(row[width:])] or [
        row for row in cells.rows if len(row) < width
    ]
    if odd or not cells.rows:
        fault = (
            f"{len(odd)} rows do not have its {width} columns ({some([_short(cell) for cell in odd[0]])})"
            if odd
            else "it has no rows"
        )
        msg = f"{origin}: {path} is not {what}: {fault}"
        raise SectionError(msg)
    return Cells(cells.header, [row[:width] for row in cells.rows])
