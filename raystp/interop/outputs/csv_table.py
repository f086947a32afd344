"""Predicted expression as one plain table `<slide>.csv`, for R and for spreadsheets.

Columns: slide, tile, x, y and side of the tile's box in level-0 px, its centre in um (`x_um`, `y_um`), what is known of
each tile (`distance`, `far`), and a column per gene. A missing value is empty. Lines end with a line feed.
"""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raystp.errors import FormatError
from raystp.interop.outputs.slide import OutputOptions, SlideExpression
from raystp.storage import StoragePath

PLACE = ("slide", "tile", "x", "y", "side", "x_um", "y_um")
DIGITS = 6
"""Decimals of values and um; a float32 has no more than 7 digits."""

MAX_COLUMNS = 16_384
"""Most columns of a spreadsheet (Excel's limit)."""


def write(slide: SlideExpression, folder: StoragePath, options: OutputOptions) -> Sequence[str]:  # noqa: ARG001 -- of all formats
    """Write `<slide>.csv` into a folder; return what a reader should know, a sentence each.

    Raises:
        FormatError: a gene has the name of another column.
    """
    taken = {*PLACE, *slide.per_tile}
    if clash := [gene for gene in slide.genes if gene in taken]:
        msg = f"slide {slide.slide!r}: the gene {clash[0]!r} has the name of another column of the table; leave it out"
        raise FormatError(msg)
    (folder / f"{slide.slide}.csv").write_file(lambda path: _write(slide, path))
    columns = len(taken) + len(slide.genes)
    if columns > MAX_COLUMNS:
        return [f"{columns} columns, and Excel opens {MAX_COLUMNS} at most; choose fewer with `genes`"]
    return []


def _write(slide: SlideExpression, path: Path) -> None:
    centres_um = (slide.centres * slide.mpp).tolist()
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow([*PLACE, *slide.per_tile, *slide.genes])
        for first, slab in slide.values.slabs():
            for offset, values in enumerate(slab.tolist()):
                row = first + offset
                place = [slide.slide, int(slide.tiles[row]), *slide.boxes[row].tolist(), *centres_um[row]]
                known = [column[row].item() for column in slide.per_tile.values()]
                rows.writerow([_cell(one) for one in (*place, *known, *values)])


def _cell(value: Any) -> Any:
    """Return a cell: a number rounded, a missing one empty, a truth value as 0 or 1."""
    if isinstance(value, bool):
        return int(value)
    if not isinstance(value, float):
        return value
    return "" if math.isnan(value) else round(value, DIGITS)
