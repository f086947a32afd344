"""What the headers of many slides say, and the table of it, which every step reads back.

Of an object in a store only the header is fetched. An object that has to be downloaded to be opened is not read.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from raystp.errors import RaystpError, failure_reason
from raystp.slides.open import Slide, open_header
from raystp.slides.table import FACTS, OPTIONAL, SlideRow

COLUMNS = ("slide", "path", "patient", "mpp", *FACTS)


@dataclass(frozen=True)
class SlideHeader:
    """One slide and what its header says."""

    row: SlideRow
    mpp: float | None = None
    """um/px of the slide table, else the slide's own; None if measured spots give it."""
    width: int | None = None
    """Columns of level 0; None for a slide that could not be opened, or has to be downloaded first."""
    height: int | None = None
    vendor: str = ""
    problem: str = ""
    """The reader's error; empty for a slide that can be read."""


def read_headers(rows: Sequence[SlideRow], *, threads: int) -> Iterator[SlideHeader]:
    """Open each slide and yield what its header says, in the order given; a slide that fails has its problem."""
    with ThreadPoolExecutor(threads, thread_name_prefix="raystp-headers") as pool:
        yield from pool.map(read_one, rows)


def read_one(row: SlideRow) -> SlideHeader:
    """Return what one slide's header says, or why it cannot be read."""
    try:
        by_spots = 1.0 if row.layout else None  # a stand-in: the spots' distances give the um/px when they are read
        opened = open_header(row.slide, row.path, given_mpp=row.mpp, derived_mpp=by_spots)
    except Exception as error:  # noqa: BLE001 -- one file's fault, of whatever kind, does not end the others
        found = SlideHeader(row, mpp=row.mpp, problem=" ".join(failure_reason(error).split()))
        return _with_size(found) if isinstance(error, RaystpError) and row.mpp is None else found
    if opened is None:
        return SlideHeader(row, mpp=row.mpp)
    with opened as slide:
        known = slide.mpp if row.mpp is None else row.mpp  # of image patches the table may have the patches' own
        return _of(row, slide, None if slide.mpp_from == "spots" else known)


def _of(row: SlideRow, slide: Slide, mpp: float | None, problem: str = "") -> SlideHeader:
    return SlideHeader(row, mpp, slide.width, slide.height, slide.vendor, problem)


def _with_size(found: SlideHeader) -> SlideHeader:
    """Return the header with size and format, if only the um/px are wrong or missing."""
    try:
        opened = open_header(found.row.slide, found.row.path, given_mpp=1.0)
    except RaystpError:
        return found
    if opened is None:
        return found
    with opened as slide:
        return _of(found.row, slide, None, found.problem)


def to_csv(headers: Sequence[SlideHeader]) -> str:
    """Return the headers as a slide table; columns of measured spots and covariates follow if a row has any."""
    rows = [header_cells(one) for one in headers]
    more = list(dict.fromkeys(name for row in rows for name, cell in row.items() if name not in COLUMNS and cell))
    text = io.StringIO()
    writer = csv.DictWriter(text, [*COLUMNS, *more], extrasaction="ignore", restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def header_cells(header: SlideHeader) -> dict[str, str]:
    """Return the cells of one row of the table."""
    row = header.row
    cells: dict[str, object] = {name: getattr(row, name) for name in OPTIONAL}
    cells |= {"slide": row.slide, "path": row.path.with_query(), "patient": row.patient, "mpp": header.mpp}
    cells |= {name: getattr(header, name) for name in FACTS}
    cells |= {name: path.with_query() for name in ("counts", "positions") if (path := getattr(row, name))}
    cells |= {"section": row.section if row.section != row.slide else None, **row.covariates}
    return {name: "" if value is None else str(value) for name, value in cells.items()}
