"""The layouts that a measured section can have on disk. To add one, add a file and a line here."""

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
    """Read a measured section: return it in raystp's schema, with notes on what was dropped or assumed.

    Raises SectionError for an unknown layout, and wherever the layout's reader does.
    """
    if source.layout not in LAYOUTS:
        msg = f"section '{source.section}': unknown layout {source.layout!r}; choose one of {', '.join(LAYOUTS)}"
        raise SectionError(msg)
    return LAYOUTS[source.layout](source)
