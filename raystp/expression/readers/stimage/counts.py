"""Read a comma-separated table of counts, spots x genes, into a sparse matrix, block by block."""

import csv
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.csv as pcsv
import scipy.sparse as sp

from raystp.errors import SectionError
from raystp.storage import StoragePath
from raystp.storage.text_files import decode_text

BLOCK_BYTES = 16 << 20
"""Bytes that are parsed at a time; a row of 33,000 genes has about 100 KB."""
HEADER_BYTES = 8 << 20
"""The header ends within these."""
MAX_SPOTS = 10_000_000


@dataclass(frozen=True)
class CsvCounts:
    """Counts with the names of their rows and columns."""

    spots: list[str]
    genes: list[str]
    counts: sp.csr_matrix


def read_count_table(path: StoragePath, origin: str) -> CsvCounts:
    """Read the table; raises SectionError where it is no table of numbers with a name in each row's first cell.

    A cell that is empty or `NA` becomes NaN, which the check of counts refuses with its spot and gene.
    """
    path.size()
    header = _header(path, origin)
    names = [str(number) for number in range(len(header))]  # genes may be there twice
    options = pcsv.ConvertOptions(column_types={"0": pa.string()} | dict.fromkeys(names[1:], pa.float32()))
    reading = pcsv.ReadOptions(block_size=BLOCK_BYTES, column_names=names, skip_rows=1)
    spots: list[str] = []
    blocks: list[sp.csr_matrix] = []
    try:
        with path.open() as file, pcsv.open_csv(file, read_options=reading, convert_options=options) as reader:
            for batch in reader:
                spots += [str(name) for name in batch.column(0).to_pylist()]
                _check_size(spots, path, origin)
                dense = np.column_stack([column.to_numpy(zero_copy_only=False) for column in batch.columns[1:]])
                blocks.append(sp.csr_matrix(dense))
    except (pa.ArrowException, ValueError) as error:
        msg = f"{origin}: {path} is not a comma-separated table of counts: {str(error).partition(chr(10))[0]}"
        raise SectionError(msg) from None
    if not spots:
        msg = f"{origin}: {path} is not a comma-separated table of counts: it has no rows below its header"
        raise SectionError(msg)
    return CsvCounts(spots, [name.strip() for name in header[1:]], sp.csr_matrix(sp.vstack(blocks)))


def _header(path: StoragePath, origin: str) -> list[str]:
    with path.open() as file:
        first = file.read(HEADER_BYTES)
    line = decode_text(first.partition(b"\n")[0], str(path), SectionError)
    try:
        header = next(csv.reader([line]), [])
    except csv.Error:  # an old line end, or more than 128 kB in a cell
        header = []
    if len(header) < 2:  # noqa: PLR2004 -- a name and a gene
        msg = (
            f"{origin}: {path} is not a comma-separated table of counts: its first line has no gene names, but "
            f"{line[:60]!r}"
        )
        raise SectionError(msg)
    return header


def _check_size(spots: list[str], path: StoragePath, origin: str) -> None:
    if len(spots) > MAX_SPOTS:
        msg = f"{origin}: {path} has more than {MAX_SPOTS:,} rows: it is no table of spots x genes"
        raise SectionError(msg)
