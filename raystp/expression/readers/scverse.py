"""Read an h5ad in scverse's form: `obsm["spatial"]`, and `uns["spatial"]` if present. HEST's `st/<id>.h5ad` is one.

Counts are `layers["counts"]` if it exists, else `X`. Positions are `obsm["spatial"]` (x = column, y = row), else the
columns `pxl_col_in_fullres` and `pxl_row_in_fullres` of `obs`, as HEST and Space Ranger name them. No array is needed.
um/px must be given, unless the file has it.
"""

from collections.abc import Mapping

import anndata as ad
import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float64
from scipy.spatial import cKDTree

from raystp.errors import SectionError
from raystp.expression.readers.source import Notes, SectionSource, note_dropped
from raystp.expression.schema import SectionInfo, SpotPositions, make_section, read_h5ad
from raystp.units import is_plausible

PIXEL_COLUMNS = ("pxl_col_in_fullres", "pxl_row_in_fullres")
MPP_NAMES = ("mpp", "microns_per_pixel", "pixel_size_um_estimated", "pixel_size_um")
"""Names of um/px in `uns["raystp"]`, in Visium HD's scale factors, and in HEST's metadata."""


def read_scverse(source: SectionSource) -> tuple[ad.AnnData, Notes]:
    """Read a section's spots in tissue and what was dropped or assumed.

    Without a spot diameter in the file, half the median distance to the nearest spot is used, and noted. Raises
    SectionError where counts, positions or um/px are missing, or where x and y are swapped.
    """
    adata = read_h5ad(source.counts)
    notes: Notes = {}
    counts = sp.csr_matrix(adata.layers.get("counts", adata.X))
    notes["counts_from"] = "layers['counts']" if "counts" in adata.layers else "X"
    in_tissue = _in_tissue(adata)
    nonzero = np.asarray(np.abs(counts).sum(axis=1)).ravel() != 0
    note_dropped(notes, "off_tissue", adata.obs_names[~in_tissue].tolist())
    note_dropped(notes, "empty", adata.obs_names[in_tissue & ~nonzero].tolist())
    kept = adata[in_tissue & nonzero]
    xy = _positions(kept, source, notes)
    section = make_section(
        counts[in_tissue & nonzero],
        [str(name) for name in adata.var_names],
        SpotPositions(
            names=[str(name) for name in kept.obs_names],
            xy=xy,
            array_row=_column(kept, "array_row", xy[:, 1]),
            array_col=_column(kept, "array_col", xy[:, 0]),
        ),
        _info(source, adata, xy, notes),
        gene_ids=[str(gene) for gene in adata.var["gene_ids"]] if "gene_ids" in adata.var else None,
        scalefactors=_numbers(_library(adata).get("scalefactors")),
    )
    return section, notes


def _info(source: SectionSource, adata: ad.AnnData, xy: Float64[np.ndarray, "spot 2"], notes: Notes) -> SectionInfo:
    mpp = _mpp(source, adata, notes)
    finite = xy[np.isfinite(xy).all(axis=1)]
    nearest = cKDTree(finite).query(finite, k=2)[0][:, 1] if len(finite) > 1 else np.zeros(1)
    pitch_um = float(np.median(nearest)) * mpp
    diameter_px = _numbers(_library(adata).get("scalefactors")).get("spot_diameter_fullres")
    notes["spot_diameter_from"] = "scalefactors" if diameter_px else "half the pitch"
    diameter_um = diameter_px * mpp if diameter_px else pitch_um / 2
    known = _numbers(adata.uns.get("raystp"))  # a section of raystp keeps its own lengths
    return SectionInfo(
        section=source.section,
        patient=source.patient,
        slide=source.slide,
        mpp=mpp,
        spot_diameter_um=known.get("spot_diameter_um", diameter_um),
        pitch_um=known.get("pitch_um", pitch_um),
        layout="scverse",
    )


def _mpp(source: SectionSource, adata: ad.AnnData, notes: Notes) -> float:
    library = _library(adata)
    stored = [
        (location, numbers[name])
        for location, numbers in (
            ("uns['raystp']", _numbers(adata.uns.get("raystp"))),
            ("scalefactors", _numbers(library.get("scalefactors"))),
            ("metadata", _numbers(library.get("metadata"))),
        )
        for name in MPP_NAMES
        if name in numbers
    ]
    given = [("given", source.mpp)] if source.mpp is not None else []
    notes["mpp_from"], mpp = next(iter([*given, *stored]), ("", None))
    if mpp is None or not is_plausible(mpp):
        found = "the file has none" if mpp is None else f"{mpp} ({notes['mpp_from']}) is implausible"
        msg = f"{source.origin}: um/px is needed, and {found}: give mpp, the um per pixel of the image the spots are on"
        raise SectionError(msg)
    return mpp


def _positions(adata: ad.AnnData, source: SectionSource, notes: Notes) -> Float64[np.ndarray, "spot 2"]:
    pixels = None
    if all(name in adata.obs for name in PIXEL_COLUMNS):
        pixels = np.asarray(adata.obs[list(PIXEL_COLUMNS)], dtype=np.float64)
    if "spatial" not in adata.obsm:
        if pixels is None:
            msg = (
                f"{source.origin} has no positions: neither obsm['spatial'] nor obs columns {', '.join(PIXEL_COLUMNS)}"
            )
            raise SectionError(msg)
        notes["places_from"] = "obs"
        return pixels
    notes["places_from"] = "obsm['spatial']"
    xy = np.asarray(adata.obsm["spatial"], dtype=np.float64)
    if xy.ndim != 2 or xy.shape[1] != 2:  # noqa: PLR2004 -- x and y
        msg = f"{source.origin}: obsm['spatial'] has shape {xy.shape}, expected one (x, y) per spot"
        raise SectionError(msg)
    if pixels is not None and np.allclose(xy[:, ::-1], pixels, atol=1) and not np.allclose(xy, pixels, atol=1):
        msg = (
            f"{source.origin}: obsm['spatial'] is (row, column), as its obs columns {', '.join(PIXEL_COLUMNS)} show; "
            "scverse has (x = column, y = row): swap its columns"
        )
        raise SectionError(msg)
    return xy


def _in_tissue(adata: ad.AnnData) -> Bool[np.ndarray, "spot"]:
    if "in_tissue" not in adata.obs:
        return np.ones(adata.n_obs, dtype=bool)
    return np.not_equal(np.asarray(adata.obs["in_tissue"], dtype=np.float64), 0)


def _column(adata: ad.AnnData, name: str, default: Float64[np.ndarray, "spot"]) -> Float64[np.ndarray, "spot"]:
    """Return a column of obs as numbers; without it, the given coordinates."""
    return np.asarray(adata.obs[name], dtype=np.float64) if name in adata.obs else default


def _library(adata: ad.AnnData) -> Mapping[str, object]:
    """Return the first library of uns['spatial'], or an empty mapping."""
    spatial = adata.uns.get("spatial")
    first = next(iter(spatial.values()), None) if isinstance(spatial, Mapping) else None
    return first if isinstance(first, Mapping) else {}


def _numbers(values: object) -> dict[str, float]:
    """Return the values of a mapping that are single numbers."""
    if not isinstance(values, Mapping):
        return {}
    return {
        str(name): float(value)
        for name, value in values.items()
        if isinstance(value, int | float | np.number) or (isinstance(value, np.ndarray) and value.size == 1)
    }
