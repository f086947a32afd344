"""The layouts that a measured section can have on disk. A new one is a file, and a line here."""

from collections.abc import Callable

import anndata as ad

from raystp.errors import SectionError
from raystp.expression.readers.legacy_st import read_legacy_st
from raystp.expression.readers.scverse import read_scverse
from raystp.expression.readers.source import Notes, SectionSource
from raystp.expression.readers.space_ranger import read_space_ranger

LAYOUTS: dict[str, Callable[[SectionSource], tuple[ad.AnnData, Notes]]] = {
    "legacy_st": read_legacy_st,
    "space_ranger": read_space_ranger,
    "scverse": read_scverse,
}


def read(source: SectionSource) -> tuple[ad.AnnData, Notes]:
    """Read a measured section in its layout: the section in raystp's schema, and what was dropped or assumed.

    Raises SectionError for a layout that is not known, and wherever its reader does.
    """
    if source.layout not in LAYOUTS:
        msg = f"section '{source.section}': no such layout; there are {', '.join(LAYOUTS)}, got {source.layout!r}"
        raise SectionError(msg)
    return LAYOUTS[source.layout](source)
