"""Recognise Visium HD, which has bins in place of spots, however a user names its folders and files."""

import re

from raystp.errors import SectionError
from raystp.expression.readers.source import SectionSource
from raystp.storage import StoragePath

FOLDER = re.compile(r"^square_(\d{3})um$")
SEGMENTED = ("segmented_outputs", "filtered_feature_cell_matrix.h5", "raw_feature_cell_matrix.h5")

_BIN = re.compile(r"^s_\d{3}um_\d+_\d+(-\d+)?$|^cellid_\d+(-\d+)?$")
_CELL = re.compile(r"^cellid_\d+(-\d+)?$")
_MARKS = ("binned_outputs", "segmented_outputs", "feature_slice.h5", "barcode_mappings.parquet")


def refuse_visium_hd(source: SectionSource) -> None:
    """Raise SectionError where the counts or the positions are given as a folder or file of Visium HD."""
    for path in (source.counts, source.positions):
        if path is None:
            continue
        parts = str(path).split("/")
        if any(part in _MARKS or FOLDER.match(part) for part in parts[-4:]):
            raise SectionError(_message(source))
        if _has_marks(path):
            raise SectionError(_message(source))


def refuse_bins(names: list[str], source: SectionSource) -> None:
    """Raise SectionError where barcodes are those of bins (`s_008um_00012_00345-1`) or of segmented cells."""
    if names and _BIN.match(names[0]):
        raise SectionError(_message(source))


def is_bin(name: str) -> bool:
    """Return whether a barcode is that of a bin or a segmented cell of Visium HD."""
    return _BIN.match(name) is not None


def is_cell(name: str) -> bool:
    """Return whether a barcode is that of a segmented cell of Visium HD."""
    return _CELL.match(name) is not None


def _has_marks(path: StoragePath) -> bool:
    if not path.is_folder():
        return False
    names = path.names()
    inside = [name for name in names if name == "outs"]
    names = names + [name for one in inside for name in (path / one).names()]
    return any(name in _MARKS or name.endswith("_feature_slice.h5") or FOLDER.match(name) for name in names)


def _message(source: SectionSource) -> str:
    return (
        f"{source.origin} is Visium HD, whose square bins are not spots, and the layout `{source.layout}` reads spots: "
        "set the layout to `visium_hd`, which pools bins to squares of pool_um"
    )
