"""Barcodes of bins: `s_008um_00012_00345-1` is the bin of 8 um in array row 12 and column 345."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int64

from raystp.errors import SectionError
from raystp.expression.readers.visium_hd.recognise import is_cell

_FORM = r"^s_(?P<um>\d{3})um_(?P<row>\d{1,6})_(?P<col>\d{1,6})(?:-(?P<suffix>\d{1,6}))?$"


@dataclass(frozen=True)
class BinNames:
    """What the barcodes of some bins say."""

    rows: Int64[np.ndarray, "bin"]
    columns: Int64[np.ndarray, "bin"]
    kinds: frozenset[tuple[int, str]]
    """Each side in um and suffix that occurs."""


def parse_bins(names: pa.StringArray, origin: str, where: str) -> BinNames:
    """Return array rows and columns; raises SectionError for barcodes that are no bins."""
    parts = pc.extract_regex(names, _FORM)
    if parts.null_count:
        bad = str(names.filter(pc.is_null(parts))[0].as_py())
        why = " (a segmented cell)" if is_cell(bad) else ""
        msg = (
            f"{origin}: {where} has {bad!r}{why} among {parts.null_count} of {len(names)} barcodes that are no bins of "
            "Visium HD, such as 's_008um_00012_00345-1'"
        )
        raise SectionError(msg)
    um, suffix = pc.unique(parts.field("um")).to_pylist(), pc.unique(parts.field("suffix")).to_pylist()
    return BinNames(
        rows=_numbers(parts.field("row")),
        columns=_numbers(parts.field("col")),
        kinds=frozenset((int(one), other or "") for one in um for other in suffix),
    )


def _numbers(texts: pa.StringArray) -> Int64[np.ndarray, "bin"]:
    return np.asarray(texts.cast(pa.int64()).to_numpy(), np.int64)
