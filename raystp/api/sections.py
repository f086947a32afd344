"""Measured sections in a notebook."""

from pathlib import Path

import anndata as ad

from raystp.expression import schema
from raystp.expression.readers.options import SectionOptions
from raystp.expression.readers.registry import read
from raystp.expression.readers.source import SectionSource
from raystp.storage import StoragePath


def read_section(
    path: str | Path,
    *,
    layout: str | None = None,
    positions: str | Path | None = None,
    mpp: float | None = None,
    patient: str = "unknown",
    pool_um: float | None = None,
) -> ad.AnnData:
    """Read a measured section: `X` has raw counts, `obsm["spatial"]` the spots' centres (x, y) in level-0 px.

    `layout` is that of a slide table, such as `space_ranger` or `scverse`; without it the file is a section that
    `raystp spots` wrote.
    `mpp` is um/px of the pixels of the positions; by default it follows from the distance of the spots, if known.
    `pool_um` is the side of the squares of `visium_hd` and `xenium`, by default 112 and 100 um.

    Raises:
        SectionError: the files do not fit the layout, or a check of counts or positions fails.

    Examples:
        >>> section = rs.read_section(cohort / "counts" / "patient-A.h5ad", layout="scverse", patient="A")
        >>> section.n_vars, section.obsm["spatial"].shape[1]
        (280, 2)
    """
    place = StoragePath.of(path)
    if layout is None:
        return schema.read_section(place)
    name = place.name.partition(".")[0]
    where = None if positions is None else StoragePath.of(positions)
    options = SectionOptions(pool_um=pool_um)
    source = SectionSource(name, name, patient, layout, place, where, mpp, options=options)
    section, _ = read(source)
    return section
