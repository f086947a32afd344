"""The formats that predicted expression is written in."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from raystp.interop.outputs import csv_table, ometiff, omezarr, qupath
from raystp.interop.outputs.slide import OutputOptions, SlideExpression
from raystp.interop.outputs.spatialdata import store
from raystp.storage import StoragePath

WriteSlide = Callable[[SlideExpression, StoragePath, OutputOptions], Sequence[str]]
"""Write one slide into a folder; return what a reader should know, a sentence each."""

PREDICTIONS: Mapping[str, WriteSlide] = MappingProxyType(
    {
        "spatialdata": store.write,
        "qupath": qupath.write,
        "omezarr": omezarr.write,
        "ometiff": ometiff.write,
        "csv": csv_table.write,
    }
)
"""Name of a format -> its function."""
