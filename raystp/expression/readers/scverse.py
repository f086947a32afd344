"""An h5ad in scverse's form: `obsm["spatial"]`, and `uns["spatial"]` where there is one. HEST's `st/<id>.h5ad` is such.

Counts are `layers["counts"]` where that exists, else `X`. Places are `obsm["spatial"]` (x = column, y = row), else the
columns `pxl_col_in_fullres` and `pxl_row_in_fullres` of `obs`, as HEST and Space Ranger call them. No array need be
known: um/px must be given, unless the file says it.
"""

from collections.abc import Mapping
from typing import Any

import anndata as ad
import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float64
from scipy.spatial import cKDTree

from raystp.errors import SectionError
from raystp.expression.readers.source import Notes, SectionSource, dropped
from raystp.expression.schema import SectionInfo, SpotPositions, make_section, read_h5ad
from raystp.units import is_plausible

IN_PIXELS = ("pxl_col_in_fullres", "pxl_row_in_fullres")
MPP_NAMES = ("mpp", "microns_per_pixel", "pixel_size_um_estimated", "pixel_size_um")
"""What um/px is called in `uns["raystp"]`, in Visium HD's scale factors, and in HEST's metadata."""


def read_scverse(source: SectionSource) -> tuple[ad.AnnData, Notes]:
    """Read a section's spots in tissue and what was dropped or assumed.

    Without a spot diameter in the file, half the median distance to the nearest spot is taken, and noted. Raises
    SectionError where counts, places or um/px cannot be had, or where x and y are swapped.
    """
    found = read_h5ad(source.counts)
    notes: Notes = {}
    counts = sp.csr_matrix(found.layers.get("counts", found.X))
    notes["counts_from"] = "layers['counts']" if "counts" in found.layers else "X"
    inside = _in_tissue(found)
    full = np.asarray(np.abs(counts).sum(axis=1)).ravel() != 0
    dropped(notes, "off_tissue", found.obs_names[~inside].tolist())
    dropped(notes, "empty", found.obs_names[inside & ~full].tolist())
    kept = found[inside & full]
    xy = _places(kept, source, notes)
    section = make_section(
        counts[inside & full],
        [str(name) for name in found.var_names],
        SpotPositions(
            names=[str(name) for name in kept.obs_names],
            xy=xy,
            array_row=_column(kept, "array_row", xy[:, 1]),
            array_col=_column(kept, "array_col", xy[:, 0]),
        ),
        _about(source, found, xy, notes),
        gene_ids=[str(gene) for gene in found.var["gene_ids"]] if "gene_ids" in found.var else None,
        scalefactors=_numbers(_library(found).get("scalefactors")),
    )
    return section, notes


def _about(source: SectionSource, found: ad.AnnData, xy: Float64[np.ndarray, "spot 2"], notes: Notes) -> SectionInfo:
    mpp = _mpp(source, found, notes)
    placed = xy[np.isfinite(xy).all(axis=1)]
    nearest = cKDTree(placed).query(placed, k=2)[0][:, 1] if len(placed) > 1 else np.zeros(1)
    pitch_um = float(np.median(nearest)) * mpp
    diameter_px = _numbers(_library(found).get("scalefactors")).get("spot_diameter_fullres")
    notes["spot_diameter_from"] = "scalefactors" if diameter_px else "half the pitch"
    diameter_um = diameter_px * mpp if diameter_px else pitch_um / 2
    known = _numbers(found.uns.get("raystp"))  # a section of raystp keeps its own measures
    return SectionInfo(
        section=source.section,
        patient=source.patient,
        slide=source.slide,
        mpp=mpp,
        spot_diameter_um=known.get("spot_diameter_um", diameter_um),
        pitch_um=known.get("pitch_um", pitch_um),
        layout="scverse",
    )


def _mpp(source: SectionSource, found: ad.AnnData, notes: Notes) -> float:
    library = _library(found)
    said = [
        (where, numbers[name])
        for where, numbers in (
            ("uns['raystp']", _numbers(found.uns.get("raystp"))),
            ("scalefactors", _numbers(library.get("scalefactors"))),
            ("metadata", _numbers(library.get("metadata"))),
        )
        for name in MPP_NAMES
        if name in numbers
    ]
    given = [("given", source.mpp)] if source.mpp is not None else []
    notes["mpp_from"], mpp = next(iter([*given, *said]), ("", None))
    if mpp is None or not is_plausible(mpp):
        seen = "nothing in the file says it" if mpp is None else f"{mpp} ({notes['mpp_from']}) is no microscope's"
        msg = f"{source.where}: um/px is needed, and {seen}: give mpp, the um per pixel of the image the spots are on"
        raise SectionError(msg)
    return mpp


def _places(found: ad.AnnData, source: SectionSource, notes: Notes) -> Float64[np.ndarray, "spot 2"]:
    pixels = None
    if all(name in found.obs for name in IN_PIXELS):
        pixels = np.asarray(found.obs[list(IN_PIXELS)], dtype=np.float64)
    if "spatial" not in found.obsm:
        if pixels is None:
            msg = f"{source.where} has no places: neither obsm['spatial'] nor obs columns {', '.join(IN_PIXELS)}"
            raise SectionError(msg)
        notes["places_from"] = "obs"
        return pixels
    notes["places_from"] = "obsm['spatial']"
    xy = np.asarray(found.obsm["spatial"], dtype=np.float64)
    if xy.ndim != 2 or xy.shape[1] != 2:  # noqa: PLR2004 -- x and y
        msg = f"{source.where}: obsm['spatial'] is of shape {xy.shape}, wanted is an (x, y) for each spot"
        raise SectionError(msg)
    if pixels is not None and np.allclose(xy[:, ::-1], pixels, atol=1) and not np.allclose(xy, pixels, atol=1):
        msg = (
            f"{source.where}: obsm['spatial'] is (row, column), as its obs columns {', '.join(IN_PIXELS)} show; "
            "scverse has (x = column, y = row): swap its columns"
        )
        raise SectionError(msg)
    return xy


def _in_tissue(found: ad.AnnData) -> Bool[np.ndarray, "spot"]:
    if "in_tissue" not in found.obs:
        return np.ones(found.n_obs, dtype=bool)
    return np.not_equal(np.asarray(found.obs["in_tissue"], dtype=np.float64), 0)


def _column(found: ad.AnnData, name: str, otherwise: Float64[np.ndarray, "spot"]) -> Float64[np.ndarray, "spot"]:
    """Return a column of obs as numbers; where there is no array, the place itself stands for it."""
    return np.asarray(found.obs[name], dtype=np.float64) if name in found.obs else otherwise


def _library(found: ad.AnnData) -> Mapping[str, Any]:
    """Return the first library of uns['spatial'], or nothing."""
    spatial = found.uns.get("spatial")
    first = next(iter(spatial.values()), None) if isinstance(spatial, Mapping) else None
    return first if isinstance(first, Mapping) else {}


def _numbers(values: Any) -> dict[str, float]:
    """Return those of a mapping's values that are single numbers."""
    if not isinstance(values, Mapping):
        return {}
    return {
        str(name): float(value)
        for name, value in values.items()
        if isinstance(value, int | float | np.number) or (isinstance(value, np.ndarray) and value.size == 1)
    }
