"""Read a table of Space Ranger's tissue positions: CSV of version 1 (no header) or 2, R's export, or parquet."""

import numpy as np
import pyarrow as pa

from raystp.errors import SectionError, some
from raystp.expression.readers.files.delimited import Cells, read_cells, to_numbers
from raystp.expression.section_checks.raw import RawPlaces
from raystp.parquet import read_foreign_parquet
from raystp.storage import StoragePath

COLUMNS = ("barcode", "in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres")
SEURAT = {
    "tissue": "in_tissue",
    "row": "array_row",
    "col": "array_col",
    "imagerow": "pxl_row_in_fullres",
    "imagecol": "pxl_col_in_fullres",
}
"""Names that Seurat gives these columns."""
WHAT = f"a table of tissue positions ({', '.join(COLUMNS)})"


def read_tissue_positions(path: StoragePath, origin: str) -> RawPlaces:
    """Return the places of a file, in tissue or not; raises SectionError, with the columns, for another table."""
    cells = _read_parquet(path, origin) if path.name.endswith(".parquet") else _with_header(path, origin)
    columns = {name: cells.column(name) for name in COLUMNS}
    values = {name: to_numbers(columns[name], name, path, origin) for name in COLUMNS[2:]}
    return RawPlaces(
        names=columns["barcode"],
        xy=np.column_stack([values["pxl_col_in_fullres"], values["pxl_row_in_fullres"]]),
        in_tissue=list(columns["in_tissue"]),
        array=np.column_stack([values["array_col"], values["array_row"]]),
    )


def _with_header(path: StoragePath, origin: str) -> Cells:
    cells = read_cells(path, (*COLUMNS, *SEURAT, "v1"), WHAT, origin)
    header = cells.header
    rows = cells.rows
    if header is None or "v1" in header:  # R names the columns of a table without a header V1, V2, ...
        width = len(rows[0])
        if width == len(COLUMNS) + 1:  # R's row numbers before the barcodes
            rows, width = [row[1:] for row in rows], width - 1
        if width != len(COLUMNS):
            msg = f"{origin}: {path} is not {WHAT}: it has no header and {width} columns, not {len(COLUMNS)}"
            raise SectionError(msg)
        return Cells(list(COLUMNS), rows)
    header = [SEURAT.get(name, name) for name in header]
    if "barcode" not in header and header[0] in {"", "barcodes", "index", "unnamed: 0"}:
        header[0] = "barcode"
    absent = [name for name in COLUMNS if name not in header]
    if absent:
        msg = f"{origin}: {path} is not {WHAT}: it has no column {some(absent)}; it has {some(header, 8)}"
        raise SectionError(msg)
    return Cells(header, rows)


def _read_parquet(path: StoragePath, origin: str) -> Cells:
    size = path.size()
    try:
        with path.open() as opened:
            table = read_foreign_parquet(opened, size)
        stored = [column.to_pylist() for column in table.columns]
    except (pa.ArrowException, ValueError, OSError, KeyError, OverflowError) as error:
        msg = f"{origin}: {path} is not {WHAT}: {str(error).partition(chr(10))[0]}"
        raise SectionError(msg) from None
    names = ["barcode" if name.startswith("__index_level") else name.casefold() for name in table.column_names]
    absent = [name for name in COLUMNS if name not in names]
    if absent:
        msg = f"{origin}: {path} is not {WHAT}: it has no column {some(absent)}; it has {some(names, 8)}"
        raise SectionError(msg)
    columns = [stored[names.index(name)] for name in COLUMNS]
    return Cells(
        list(COLUMNS), [["" if cell is None else str(cell) for cell in row] for row in zip(*columns, strict=True)]
    )
