"""The formats by name: what `raystp import` reads and `raystp export` writes.

Modules are named, not imported: a format's libraries are loaded when it is used.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raystp.errors import FormatError, some
from raystp.interop.choice import FolderChoice, FoundFiles, SlideFiles, TableChoice

if TYPE_CHECKING:
    import raystp.interop.features.tiles
    import raystp.interop.sections.tables
    import raystp.storage


@dataclass(frozen=True)
class FeatureFormat:
    """A tool's tiles and vectors. Its module has `find` and `read`, and `write` where `writes`."""

    name: str
    tool: str
    """The tool's name and the version whose files were looked at."""
    module: str
    reads: bool = True
    writes: bool = False
    has_tables: bool = False
    """Whether tables of all slides go with what is written; its module has `write_tables`."""
    carries_mpp: bool = False
    """Whether its files have um/px; else the slide table gives it."""

    def find(self, folder: "raystp.storage.StoragePath", choice: FolderChoice) -> FoundFiles:
        """Return the files of each slide in a tool's folder; raises FormatError where there are none."""
        found: Callable[[raystp.storage.StoragePath, FolderChoice], FoundFiles] = self._function("find")
        return found(folder, choice)

    def read(
        self, files: SlideFiles, choice: FolderChoice, mpp: float | None
    ) -> "raystp.interop.features.tiles.TileVectors":
        """Read one slide; `mpp` is its um/px by the slide table. Raises FormatError."""
        read: Callable[[SlideFiles, FolderChoice, float | None], raystp.interop.features.tiles.TileVectors] = (
            self._function("read")
        )
        return read(files, choice, mpp)

    def write(
        self, tiles: "raystp.interop.features.tiles.TileVectors", folder: "raystp.storage.StoragePath"
    ) -> Sequence[str]:
        """Write one slide into a folder; return what was rounded or left out. Raises FormatError."""
        write: Callable[[raystp.interop.features.tiles.TileVectors, raystp.storage.StoragePath], Sequence[str]] = (
            self._function("write")
        )
        return write(tiles, folder)

    def write_tables(
        self, patients: Mapping[str, str], encoder: str, folder: "raystp.storage.StoragePath"
    ) -> Sequence[str]:
        """Write the tables of an export with the patient of each slide; return what is left to do."""
        if not self.has_tables:
            return ()
        write: Callable[[Mapping[str, str], str, raystp.storage.StoragePath], Sequence[str]] = self._function(
            "write_tables"
        )
        return write(patients, encoder, folder)

    def _function(self, name: str) -> Any:
        return getattr(importlib.import_module(self.module), name)


@dataclass(frozen=True)
class TableFormat:
    """A data set of slides with measured spots. Its module has `table_files`."""

    name: str
    data_set: str
    """Its name and the versions whose files were looked at."""
    module: str

    def table_files(
        self, root: "raystp.storage.StoragePath", choice: TableChoice
    ) -> "raystp.interop.sections.tables.TableFiles":
        """Return the slide table of the data set's folder, and the files that go with it. Raises FormatError."""
        read: Callable[[raystp.storage.StoragePath, TableChoice], raystp.interop.sections.tables.TableFiles] = (
            importlib.import_module(self.module).table_files
        )
        return read(root, choice)


FEATURES: Mapping[str, FeatureFormat] = {
    one.name: one
    for one in (
        FeatureFormat("trident", "TRIDENT 0.1 to 0.3", "raystp.interop.features.trident", writes=True),
        FeatureFormat("clam", "CLAM", "raystp.interop.features.clam", writes=True),
        FeatureFormat("stamp", "STAMP 1 to 2", "raystp.interop.features.stamp", writes=True, has_tables=True),
        FeatureFormat("slide2vec", "slide2vec 5 to 7", "raystp.interop.features.slide2vec", carries_mpp=True),
        FeatureFormat("atlaspatch", "AtlasPatch 1", "raystp.interop.features.atlaspatch", carries_mpp=True),
        FeatureFormat(
            "lazyslide", "LazySlide 0.13 and wsidata 0.12", "raystp.interop.features.lazyslide", carries_mpp=True
        ),
        FeatureFormat("hest-embeddings", "hest-bench", "raystp.interop.sections.hest_embeddings", writes=True),
    )
}
"""Format -> its record."""

TABLES: Mapping[str, TableFormat] = {
    one.name: one
    for one in (
        TableFormat("hest", "HEST-1k 1.1 to 1.3", "raystp.interop.sections.hest"),
        TableFormat("hest-bench", "hest-bench", "raystp.interop.sections.hest_bench"),
        TableFormat("her2st", "HER2-positive breast cancer of legacy ST", "raystp.interop.sections.her2st"),
        TableFormat("stimage", "STimage-1K4M", "raystp.interop.sections.stimage"),
    )
}
"""Data set -> its record."""


def feature_format(name: str) -> FeatureFormat:
    """Return a format's record; raises FormatError for an unknown name."""
    if name not in FEATURES:
        msg = f"unknown format {name!r}; the formats are {some(list(FEATURES), 20)}"
        raise FormatError(msg)
    return FEATURES[name]
