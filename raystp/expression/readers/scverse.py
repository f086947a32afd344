"""Parse an h5ad in scverse's form: `obsm["spatial"]`, and `uns["spatial"]` if present. HEST's `st/<id>.h5ad` is one.

Positions are `obsm["spatial"]` (x = column, y = row), else the columns `pxl_col_in_fullres` and `pxl_row_in_fullres` of
`obs`, as HEST and Space Ranger name them, else Space Ranger's file of positions. No array is needed. um/px must be
given, unless the file has it, or the array is Visium's.
"""

import anndata as ad
import numpy as np
from jaxtyping import Float64

from raystp.errors import SectionError
from raystp.expression.readers.files.folders import refuse_packed
from raystp.expression.readers.files.values import number, numbers
from raystp.expression.readers.scverse_counts import find_counts
from raystp.expression.readers.scverse_libraries import facts_of, libraries_of
from raystp.expression.readers.source import SectionSource
from raystp.expression.readers.space_ranger import find_in_spatial
from raystp.expression.readers.tissue_positions import read_tissue_positions
from raystp.expression.readers.visium_hd.recognise import is_bin
from raystp.expression.schema import read_h5ad
from raystp.expression.section_checks.raw import LibraryFacts, Notes, RawPlaces, RawSection, warn
from raystp.expression.section_checks.technology import Technology, visium_hd

PIXEL_COLUMNS = ("pxl_col_in_fullres", "pxl_row_in_fullres")
ARRAY_COLUMNS = ("array_col", "array_row")


def parse_scverse(source: SectionSource, notes: Notes) -> RawSection:
    """Parse a section; raises SectionError where counts or positions are missing, or x and y are swapped."""
    refuse_packed(source.counts, source.origin)
    adata = read_h5ad(source.counts)
    counts, genes = find_counts(adata, source, notes)
    places = _places(adata, source, notes)
    facts = facts_of(adata)
    own = numbers(adata.uns.get("raystp"))  # a section of raystp keeps its own lengths
    return RawSection(
        counts=counts,
        spots=[str(name) for name in adata.obs_names],
        genes=genes,
        places=places,
        libraries=libraries_of(adata, list(facts)),
        technology=_bins(adata, list(facts.values())),
        flag_may_be_void=True,
        facts_of=facts,
        own_places=notes["places_from"] != "positions",
        stored_um={name: own[name] for name in ("spot_diameter_um", "pitch_um") if own.get(name, 0) > 0},
    )


def _places(adata: ad.AnnData, source: SectionSource, notes: Notes) -> RawPlaces:
    names = [str(name) for name in adata.obs_names]
    pixels = _columns(adata, PIXEL_COLUMNS)
    flags = list(adata.obs["in_tissue"]) if "in_tissue" in adata.obs else None
    array = _columns(adata, ARRAY_COLUMNS)
    if "spatial" in adata.obsm:
        notes["places_from"] = "obsm['spatial']"
        if source.positions is not None:
            warn(notes, f"positions are those of obsm['spatial']; {source.positions} is not read")
        return RawPlaces(names, _checked(_spatial(adata, source), pixels, source), flags, array)
    if pixels is not None:
        notes["places_from"] = "obs"
        return RawPlaces(names, pixels, flags, array)
    if source.positions is not None:
        notes["places_from"] = "positions"
        found, _ = find_in_spatial(source.positions, source)
        return read_tissue_positions(found.path, source.origin)
    msg = (
        f"{source.origin} has no positions: neither obsm['spatial'] nor obs columns {', '.join(PIXEL_COLUMNS)}; give "
        "Space Ranger's spatial folder as `positions`, or add them"
    )
    raise SectionError(msg)


def _spatial(adata: ad.AnnData, source: SectionSource) -> Float64[np.ndarray, "spot 2"]:
    try:
        xy = np.asarray(adata.obsm["spatial"], dtype=np.float64)
    except (ValueError, TypeError) as error:
        msg = f"{source.origin}: obsm['spatial'] has values that are not numbers: {error}"
        raise SectionError(msg) from None
    if xy.ndim != 2 or xy.shape[1] != 2:  # noqa: PLR2004 -- x and y
        msg = f"{source.origin}: obsm['spatial'] has shape {xy.shape}, expected one (x, y) per spot"
        raise SectionError(msg)
    return xy


def _checked(
    xy: Float64[np.ndarray, "spot 2"], pixels: Float64[np.ndarray, "spot 2"] | None, source: SectionSource
) -> Float64[np.ndarray, "spot 2"]:
    """Return the positions; raises SectionError where the columns of obs contradict them."""
    if pixels is None or np.allclose(xy, pixels, atol=1, equal_nan=True):
        return xy
    columns = ", ".join(PIXEL_COLUMNS)
    if np.allclose(xy[:, ::-1], pixels, atol=1, equal_nan=True):
        msg = (
            f"{source.origin}: obsm['spatial'] is (row, column), as its obs columns {columns} show; "
            "scverse has (x = column, y = row): swap its columns"
        )
        raise SectionError(msg)
    apart = int((~np.isclose(xy, pixels, atol=1, equal_nan=True).all(axis=1)).sum())
    msg = (
        f"{source.origin}: obsm['spatial'] and the obs columns {columns} differ for {apart} of {len(xy)} spots: one of "
        "them is in px of another image; remove the wrong one"
    )
    raise SectionError(msg)


def _columns(adata: ad.AnnData, names: tuple[str, str]) -> Float64[np.ndarray, "spot 2"] | None:
    """Return two columns of obs as numbers; None where one is absent or has no numbers at all."""
    if not all(name in adata.obs for name in names):
        return None
    values = [[number(value) for value in adata.obs[name].tolist()] for name in names]
    known = [[np.nan if value is None else value for value in column] for column in values]
    result = np.asarray(known, np.float64).T.reshape(-1, 2)
    return result if np.isfinite(result).all(axis=1).any() else None


def _bins(adata: ad.AnnData, facts: list[LibraryFacts]) -> Technology | None:
    """Return Visium HD where the file is of its bins, as their names or the scale factors show."""
    sizes = {one.factors["bin_size_um"] for one in facts if one.factors.get("bin_size_um", 0) > 0}
    named = adata.n_obs > 0 and is_bin(str(adata.obs_names[0])) and str(adata.obs_names[0]).startswith("s_")
    if named:
        sizes.add(float(str(adata.obs_names[0])[2:5]))
    return visium_hd(sizes.pop()) if len(sizes) == 1 else None
