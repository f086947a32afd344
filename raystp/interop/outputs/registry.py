"""The formats that predicted expression is written in, by name.

Modules are named, not imported: a format's libraries are loaded when it is used.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from raystp.interop.outputs.slide import OutputOptions, SlideExpression

if TYPE_CHECKING:
    import raystp.storage

PREDICTIONS: Mapping[str, str] = MappingProxyType(
    {
        "spatialdata": "raystp.interop.outputs.spatialdata.store",
        "qupath": "raystp.interop.outputs.qupath",
        "omezarr": "raystp.interop.outputs.omezarr",
        "ometiff": "raystp.interop.outputs.ometiff",
        "csv": "raystp.interop.outputs.csv_table",
    }
)
"""Format -> the module that has its `write`."""


def write_slide(
    form: str, slide: SlideExpression, folder: "raystp.storage.StoragePath", options: OutputOptions
) -> Sequence[str]:
    """Write one slide into a folder; return what a reader should know, a sentence each. Raises FormatError."""
    write: Callable[[SlideExpression, raystp.storage.StoragePath, OutputOptions], Sequence[str]]
    write = importlib.import_module(PREDICTIONS[form]).write
    return write(slide, folder, options)
