"""What the schema of a section does not allow, each in a sentence that names the section and the first offenders."""

from collections.abc import Mapping
from typing import Any

import anndata as ad
import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool

from raystp.errors import SectionError, some
from raystp.storage import is_safe_name
from raystp.units import is_plausible


def check_label(adata: ad.AnnData, where: str, *, version: int, names: tuple[str, ...]) -> None:
    """Raise SectionError where `uns["raystp"]` is absent, of another version, incomplete, or not possible."""
    label = adata.uns.get("raystp")
    if not isinstance(label, Mapping) or "schema_version" not in label:
        msg = (
            f"{where} has no uns['raystp'] with a schema_version: it is no section of raystp; run `raystp spots` on it"
        )
        raise SectionError(msg)
    if label["schema_version"] != version:
        msg = (
            f"{where} is of section schema version {label['schema_version']}, this raystp reads version "
            f"{version}: run `raystp spots` again with this version"
        )
        raise SectionError(msg)
    absent = [name for name in names if name not in label]
    if absent:
        msg = f"{where} lacks {some(absent)} in uns['raystp']: a damaged or altered section"
        raise SectionError(msg)
    if not is_safe_name(str(label["section"])) or not str(label["patient"]) or not str(label["slide"]):
        msg = (
            f"{where} has section {str(label['section'])!r}, patient {str(label['patient'])!r}, slide "
            f"{str(label['slide'])!r}: a section is named by letters, digits, '.', '_' and '-', and neither of the "
            "others is empty"
        )
        raise SectionError(msg)
    _check_measures(label, where)


def _check_measures(label: Mapping[str, Any], where: str) -> None:
    if not is_plausible(float(label["mpp"])):
        msg = (
            f"{where} has {label['mpp']} um/px, which is no microscope's: give the um/px of the pixels its spots are in"
        )
        raise SectionError(msg)
    for name in ("spot_diameter_um", "pitch_um"):
        if not 0 < float(label[name]) < np.inf:
            msg = f"{where} has {name} {label[name]}: a length above 0 um was wanted"
            raise SectionError(msg)


def check_names(adata: ad.AnnData, where: str) -> None:
    """Raise SectionError where there are no spots or genes, or where two have one name."""
    for names, what in ((adata.obs_names, "spot"), (adata.var_names, "gene")):
        if not len(names):
            msg = f"{where} has no {what}s: {adata.n_obs} spots x {adata.n_vars} genes"
            raise SectionError(msg)
        twice = sorted({str(name) for name in names[names.duplicated()]})
        if twice:
            msg = f"{where} names {len(twice)} {what}s more than once ({some(twice)}): each needs a name of its own"
            raise SectionError(msg)


def check_places(adata: ad.AnnData, where: str) -> None:
    """Raise SectionError where a spot has no finite (x, y)."""
    if "spatial" not in adata.obsm or np.shape(adata.obsm["spatial"]) != (adata.n_obs, 2):
        seen = f"of shape {np.shape(adata.obsm['spatial'])}" if "spatial" in adata.obsm else "absent"
        msg = f"{where}: obsm['spatial'] is {seen}, wanted is ({adata.n_obs}, 2), an (x, y) for each spot"
        raise SectionError(msg)
    places = np.asarray(adata.obsm["spatial"], dtype=np.float64)
    lost = adata.obs_names[~np.isfinite(places).all(axis=1)].tolist()
    if lost:
        msg = f"{where} has {len(lost)} spots whose place is not a finite number: {some(lost)}"
        raise SectionError(msg)


def check_counts(adata: ad.AnnData, where: str) -> None:
    """Raise SectionError where the counts are not CSR float32, not raw, or where a spot has none."""
    counts = adata.X
    if not sp.issparse(counts) or counts.format != "csr" or counts.dtype != np.float32:
        kind = f"{counts.format} {counts.dtype}" if sp.issparse(counts) else type(counts).__name__
        msg = f"{where} holds its counts as {kind}, the schema has CSR float32: make it with make_section"
        raise SectionError(msg)
    try:
        counts.check_format(full_check=True)
    except ValueError as error:
        msg = f"{where} has a damaged count matrix: {error}"
        raise SectionError(msg) from None
    values = counts.data
    with np.errstate(invalid="ignore"):  # inf - inf, in a value that the first line has named
        _refuse(adata, ~np.isfinite(values), f"{where} has {{}} counts that are not finite numbers")
        _refuse(adata, values < 0, f"{where} has {{}} negative counts")
        _refuse(
            adata,
            values != np.rint(values),
            f"{where} has {{}} counts that are not whole numbers, so they are not raw counts (normalised already?)",
        )
    empty = adata.obs_names[np.asarray(counts.sum(axis=1)).ravel() == 0].tolist()
    if empty:
        msg = f"{where} has {len(empty)} spots without a count, which cannot be normalised: {some(empty)}; drop them"
        raise SectionError(msg)


def _refuse(adata: ad.AnnData, wrong: Bool[np.ndarray, "stored"], sentence: str) -> None:
    at = np.flatnonzero(wrong)
    if not at.size:
        return
    counts = adata.X
    first = at[:5]
    rows = np.searchsorted(counts.indptr, first, side="right") - 1
    seen = [
        f"{adata.obs_names[row]}/{adata.var_names[column]} = {value:g}"
        for row, column, value in zip(rows, counts.indices[first], counts.data[first], strict=True)
    ]
    more = f" and {at.size - len(seen)} more" if at.size > len(seen) else ""
    msg = f"{sentence.format(at.size)}: {', '.join(seen)}{more}"
    raise SectionError(msg)
