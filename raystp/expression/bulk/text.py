"""Read a table of cases x genes from text: any separator, a decimal comma, and what Excel leaves empty."""

import io
import re

import pandas as pd

from raystp.errors import SectionError, some
from raystp.storage import StoragePath
from raystp.storage.text_files import decode_text, parse_number, split_header, trimmed


def read_text_columns(path: StoragePath, case: str) -> list[tuple[str, pd.Series]]:
    """Return the columns by name; cells are numbers, or text in a column that has other cells too.

    Raises SectionError for another encoding, and for an unclear decimal comma; ValueError for text that is no table.
    """
    names, separator, text = split_header(decode_text(path.read_bytes(), str(path), SectionError), (case,))
    if not names:
        msg = "it is empty"
        raise ValueError(msg)
    body = _read_body(text, separator, names, case)
    commas = [cell for cell in _text_cells(body, names, case) if re.fullmatch(r"[+-]?\d+,\d+", cell.strip())]
    if commas:
        if separator != ";" and all(parse_number(cell.strip()) is None for cell in commas):
            msg = f"{path}: {some(commas)} may be 1.234 or 1234; write decimal points, and no separators of thousands"
            raise SectionError(msg)
        body = _read_body(text, separator, names, case, decimal=",")
        points = [cell for cell in _text_cells(body, names, case) if re.fullmatch(r"[+-]?\d+\.\d+", cell.strip())]
        if points:
            msg = f"{path} has numbers with a decimal comma ({some(commas, 2)}) and with a point ({some(points, 2)})"
            raise SectionError(f"{msg}: write decimal points alone")
    empty = body.isna() | (body == "")
    body = body[~empty.all(axis=1)]
    return [(name, body[number]) for number, name in enumerate(names) if name or not empty[number].all()]


def _read_body(text: str, separator: str, names: list[str], case: str, *, decimal: str = ".") -> pd.DataFrame:
    """Return the rows below the header, columns by number; names of cases stay text: a case may be called 007 or NA."""
    body = pd.read_csv(
        io.StringIO(text),
        sep=separator,
        header=None,
        converters={number: trimmed for number, name in enumerate(names) if name == case},
        index_col=False,
        low_memory=False,
        decimal=decimal,
    )
    if body.shape[1] != len(names):
        msg = f"its header has {len(names)} columns, its rows have {body.shape[1]}"
        raise ValueError(msg)
    return body


def _text_cells(body: pd.DataFrame, names: list[str], case: str) -> list[str]:
    """Return the cells of the columns that are not all numbers."""
    columns = [body[number] for number, name in enumerate(names) if name != case and body[number].dtype == object]
    return [str(cell) for column in columns for cell in column.dropna()]
