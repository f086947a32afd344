"""The layouts that a measured section can have on disk. To add one, add a file and a line here."""

from collections.abc import Callable

import anndata as ad

from raystp.errors import SectionError
from raystp.expression.readers.hest.reader import parse_hest, sidecars
from raystp.expression.readers.legacy_st import parse_legacy_st
from raystp.expression.readers.scverse import parse_scverse
from raystp.expression.readers.source import SectionSource
from raystp.expression.readers.space_ranger import files_beside, parse_space_ranger
from raystp.expression.readers.stimage.reader import files_beside_counts, parse_stimage
from raystp.expression.readers.visium_hd.folders import files_of_bins
from raystp.expression.readers.visium_hd.reader import parse_visium_hd
from raystp.expression.readers.xenium.bundle import files_of_bundle
from raystp.expression.readers.xenium.reader import parse_xenium
from raystp.expression.section_checks.finish import finish_section
from raystp.expression.section_checks.raw import Notes, RawSection
from raystp.storage import StoragePath

LAYOUTS: dict[str, Callable[[SectionSource, Notes], RawSection]] = {
    "legacy_st": parse_legacy_st,
    "space_ranger": parse_space_ranger,
    "scverse": parse_scverse,
    "visium_hd": parse_visium_hd,
    "xenium": parse_xenium,
    "hest": parse_hest,
    "stimage": parse_stimage,
}
"""Each parses its files, and only that: the checks are `SECTION_CHECKS`, for all layouts."""

FILES_BESIDE: dict[str, Callable[[SectionSource], list[StoragePath]]] = {
    "space_ranger": files_beside,
    "visium_hd": files_of_bins,
    "xenium": files_of_bundle,
    "hest": sidecars,
    "stimage": files_beside_counts,
}
"""The files that a layout finds by their names, in or beside those that the slide table gives."""

POOLED = ("visium_hd", "xenium")
"""Layouts whose `counts` are large folders: `FILES_BESIDE` has all that is read of them."""

SIZED = ("xenium",)
"""Layouts that leave out what is not on the image, whose size is `SectionSource.image_px`."""


def read(source: SectionSource) -> tuple[ad.AnnData, Notes]:
    """Read a measured section: return it in raystp's schema, with notes on what was dropped or assumed.

    Raises SectionError for an unknown layout, and wherever the layout's parser or a check does.
    """
    if source.layout not in LAYOUTS:
        msg = f"section '{source.section}': unknown layout {source.layout!r}; choose one of {', '.join(LAYOUTS)}"
        raise SectionError(msg)
    notes: Notes = {}
    return finish_section(LAYOUTS[source.layout](source, notes), source, notes)
