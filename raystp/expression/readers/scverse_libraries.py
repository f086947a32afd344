"""Libraries of an h5ad: what `uns["spatial"]` states about each, and which spots are whose by a column of `obs`."""

from collections.abc import Mapping

import anndata as ad

from raystp.expression.readers.files.values import numbers, single
from raystp.expression.readers.space_ranger import MIRRORING_CHEMISTRY
from raystp.expression.section_checks.raw import LibraryFacts

MPP_NAMES = ("mpp", "microns_per_pixel", "pixel_size_um_estimated", "pixel_size_um")
"""Names of um/px in `uns["raystp"]`, in Visium HD's scale factors, and in HEST's metadata."""
OWN_COLUMNS = (
    "library_id",
    "library",
    "sample_id",
    "sample",
    "slide_id",
    "slide",
    "section_id",
    "orig.ident",
    "sample_name",
    "in_slice",
)
"""Columns that name a library; two values mean two libraries."""
WEAK_COLUMNS = ("batch", "section", "dataset", "region", "array", "capture_area", "donor_id", "patient", "sangerID")
"""Columns that name a library only if their values are the libraries, or if two spots share an array place."""


def facts_of(adata: ad.AnnData) -> dict[str, LibraryFacts]:
    """Return the libraries of uns['spatial']; entries that are no libraries, such as `is_single`, are left out."""
    spatial = adata.uns.get("spatial")
    libraries = {}
    if isinstance(spatial, Mapping):
        libraries = {str(name): value for name, value in spatial.items() if isinstance(value, Mapping)}
    if libraries and set(libraries) <= {"images", "scalefactors", "metadata"}:  # one library without its name
        libraries = {"": dict(libraries)}
    own = numbers(adata.uns.get("raystp"))
    if not libraries:
        return {"": LibraryFacts(stored_mpp=_mpp([("uns['raystp']", own)]))} if own else {}
    return {name: _facts(library, own) for name, library in libraries.items()}


def libraries_of(adata: ad.AnnData, named: list[str]) -> list[str] | None:
    """Return the library of each spot by a column of obs; None where no column tells libraries apart."""
    candidates = [name for name in (*OWN_COLUMNS, *WEAK_COLUMNS) if name in adata.obs]
    values = {name: [str(single(value)) for value in adata.obs[name].tolist()] for name in candidates}
    folded = {name.casefold() for name in named}
    for labels in values.values():
        if {label.casefold() for label in labels} <= folded:
            return labels
    for name, labels in values.items():
        several = len(set(labels)) > 1
        if several and (name in OWN_COLUMNS or _share_places(adata, labels)):
            return labels
    return None


def _share_places(adata: ad.AnnData, labels: list[str]) -> bool:
    """Return whether spots of different labels have one place on the array, which one section cannot have."""
    if not {"array_row", "array_col"} <= set(adata.obs.columns):
        return False
    places = list(zip(adata.obs["array_row"].tolist(), adata.obs["array_col"].tolist(), strict=True))
    return len(set(zip(places, labels, strict=True))) > len(set(places))


def _facts(library: Mapping[str, object], own: Mapping[str, float]) -> LibraryFacts:
    factors, metadata = library.get("scalefactors"), library.get("metadata")
    texts = metadata.values() if isinstance(metadata, Mapping) else ()
    chemistry = " ".join(str(single(text)) for text in texts).casefold()
    return LibraryFacts(
        factors=numbers(factors),
        stored_mpp=_mpp([("uns['raystp']", own), ("scalefactors", numbers(factors)), ("metadata", numbers(metadata))]),
        mirroring=any(word in chemistry for word in MIRRORING_CHEMISTRY),
    )


def _mpp(places: list[tuple[str, Mapping[str, float]]]) -> tuple[str, float] | None:
    return next(((where, found[name]) for where, found in places for name in MPP_NAMES if name in found), None)
