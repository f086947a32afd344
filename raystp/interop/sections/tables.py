"""What a folder of paired data becomes: a slide table of raystp, and the small files that go with it.

Slides and counts stay where they are; the table names them by absolute paths or URIs. Equal folders give equal bytes.
"""

import csv
import io
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from raystp.errors import FormatError, some
from raystp.interop.choice import TableChoice
from raystp.storage import StoragePath, is_safe_name
from raystp.storage.text_files import decode_text, split_header, trimmed

COLUMNS = ("slide", "path", "patient", "mpp", "layout", "counts", "positions", "section")
"""Columns of a slide table that are written where a row has them; columns `x_*` follow."""

EMPTY = frozenset({"", "na", "n/a", "nan", "none", "null"})
"""How these tables write an absent value, in any case."""

MAX_TABLE_BYTES = 1 << 28
"""Bytes of a data set's own table at most; HEST's has about 1 MB."""

Row = Mapping[str, str]


@dataclass(frozen=True)
class TableFiles:
    """A slide table and its companions, to be written into one folder."""

    files: Mapping[str, bytes]
    """Name relative to the folder -> content: `slides.csv`, `panel.json`, `splits/fold0.yaml`, ..."""
    slides: int
    notes: tuple[str, ...] = ()
    """What was assumed, left out or is known to be wrong, a sentence each."""


def slide_table(rows: Sequence[Row]) -> bytes:
    """Return rows as the CSV of a slide table: columns that no row has are left out, those of `x_*` are sorted."""
    used = {name for row in rows for name, cell in row.items() if cell}
    columns = [name for name in COLUMNS if name in used] + sorted(name for name in used if name.startswith("x_"))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([[row.get(name, "") for name in columns] for row in rows])
    return text.getvalue().encode()


def read_records(path: StoragePath, separator: str | None = None) -> list[dict[str, str]]:
    """Read a data set's own table, with or without a byte order mark. Line breaks in a cell become spaces.

    `separator` is fixed by the data set, or found in the header. Raises FormatError for a table that is too large,
    no text, or has two columns of one name.
    """
    size = path.size()
    if size > MAX_TABLE_BYTES:
        msg = f"{path} has {size >> 20:,} MiB, a table of samples has up to {MAX_TABLE_BYTES >> 20}; it was not read"
        raise FormatError(msg)
    text = decode_text(path.read_bytes(), str(path), FormatError)
    try:
        reader = csv.reader(io.StringIO(text), delimiter=separator or split_header(text)[1])
    except ValueError as fault:
        msg = f"{path} is not a table: {fault}"
        raise FormatError(msg) from None
    try:
        header, *lines = list(reader) or [[]]
    except csv.Error as fault:
        msg = f"{path}, line {reader.line_num} is not a row of cells ({fault}): is a quote missing?"
        raise FormatError(msg) from None
    names = [trimmed(name) for name in header]
    if repeated := sorted({name for name in names if name and names.count(name) > 1}):
        msg = f"{path} has the column {some(repeated)} more than once: rename or remove one"
        raise FormatError(msg)
    return [
        {name: " ".join(cell.split()) for name, cell in itertools.zip_longest(names, line, fillvalue="") if name}
        for line in lines
        if any(cell.strip() for cell in line)
    ]


def value(record: Row, column: str) -> str:
    """Return a cell; empty where the column is absent or its cell says that there is no value."""
    cell = record.get(column, "")
    return "" if cell.lower() in EMPTY else cell


def covariates(record: Row, taken: Sequence[str]) -> dict[str, str]:
    """Return the cells of the columns that are not `taken`, by raystp's names of covariates."""
    return {f"x_{name}": value(record, name) for name in record if name not in taken}


def choose(records: Sequence[Row], column: str, choice: TableChoice, origin: str) -> list[Row]:
    """Return the records that are chosen, in the order of the table; `column` has their names.

    Raises FormatError for a name or column that is not there, for a choice of nothing, and for a name that is no id.
    """
    known = [record.get(column, "") for record in records]
    if repeated := sorted({name for name in known if known.count(name) > 1}):
        msg = f"{origin} has the {column} {some(repeated)} more than once; each sample needs its own"
        raise FormatError(msg)
    if unknown := [name for name in choice.ids if name not in known]:
        msg = f"ids: {origin} has no {some(unknown)}; it has {some(known)}"
        raise FormatError(msg)
    found = [one for one in records if not choice.ids or one[column] in choice.ids]
    for name, wanted in choice.only.items():
        found = _only(found, name, wanted, origin)
    if unsafe := [record[column] for record in found if not is_safe_name(record[column])]:
        msg = f"{origin}: {some(unsafe)} are not valid ids; they have letters, digits, '.', '_' and '-'"
        raise FormatError(msg)
    return list(found)


def _only(records: Sequence[Row], name: str, wanted: Sequence[str], origin: str) -> list[Row]:
    columns = sorted({column for record in records for column in record})
    if name not in columns:
        msg = f"only: {origin} has no column {name!r}; it has {some(columns, 40)}"
        raise FormatError(msg)
    folded = {one.casefold() for one in wanted}
    found = [record for record in records if record.get(name, "").casefold() in folded]
    if not found:
        values = sorted({record.get(name, "") for record in records})
        msg = f"only: no sample of {origin} has {name} {some(list(wanted))}; the values are {some(values, 20)}"
        raise FormatError(msg)
    return found
