"""Check a section against the schema. Each error names the section and the first faulty spots, genes or values."""

from collections.abc import Mapping

import anndata as ad
import numpy as np
import scipy.sparse as sp

from raystp.errors import SectionError, some
from raystp.expression.sparse import check_sparse
from raystp.storage import is_safe_name
from raystp.units import is_plausible


def check_label(adata: ad.AnnData, origin: str, *, version: int, names: tuple[str, ...]) -> None:
    """Raise SectionError where `uns["raystp"]` is absent, of another version, incomplete, or implausible."""
    label = adata.uns.get("raystp")
    if not isinstance(label, Mapping) or "schema_version" not in label:
        msg = (
            f"{origin} has no uns['raystp'] with a schema_version: it is not a section of raystp; "
            "run `raystp spots` on it"
        )
        raise SectionError(msg)
    if label["schema_version"] != version:
        msg = (
            f"{origin} has section schema version {label['schema_version']}, this raystp reads version "
            f"{version}: run `raystp spots` again with this version"
        )
        raise SectionError(msg)
    absent = [name for name in names if name not in label]
    if absent:
        msg = f"{origin} lacks {some(absent)} in uns['raystp']: the file is damaged or was changed"
        raise SectionError(msg)
    if not is_safe_name(str(label["section"])) or not str(label["patient"]) or not str(label["slide"]):
        msg = (
            f"{origin} has section {str(label['section'])!r}, patient {str(label['patient'])!r}, slide "
            f"{str(label['slide'])!r}: a section's name consists of letters, digits, '.', '_' and '-'; patient and "
            "slide must not be empty"
        )
        raise SectionError(msg)
    _check_lengths({name: float(label[name]) for name in ("mpp", "spot_diameter_um", "pitch_um")}, origin)


def _check_lengths(lengths: dict[str, float], origin: str) -> None:
    if not is_plausible(lengths["mpp"]):
        msg = (
            f"{origin} has an implausible {lengths['mpp']} um/px: give the um/px of the image whose pixels the spots "
            "refer to"
        )
        raise SectionError(msg)
    for name in ("spot_diameter_um", "pitch_um"):
        if not 0 < lengths[name] < np.inf:
            msg = f"{origin} has {name} {lengths[name]}: expected a length above 0 um"
            raise SectionError(msg)


def check_names(adata: ad.AnnData, origin: str) -> None:
    """Raise SectionError without spots or genes, and for duplicate names."""
    for names, kind in ((adata.obs_names, "spot"), (adata.var_names, "gene")):
        if not len(names):
            msg = f"{origin} has no {kind}s: {adata.n_obs} spots x {adata.n_vars} genes"
            raise SectionError(msg)
        duplicates = sorted({str(name) for name in names[names.duplicated()]})
        if duplicates:
            msg = f"{origin} lists {len(duplicates)} {kind}s more than once ({some(duplicates)}): names must be unique"
            raise SectionError(msg)


def check_positions(adata: ad.AnnData, origin: str) -> None:
    """Raise SectionError for a spot without a finite (x, y)."""
    if "spatial" not in adata.obsm or np.shape(adata.obsm["spatial"]) != (adata.n_obs, 2):
        found = f"has shape {np.shape(adata.obsm['spatial'])}" if "spatial" in adata.obsm else "is absent"
        msg = f"{origin}: obsm['spatial'] {found}, expected ({adata.n_obs}, 2): one (x, y) per spot"
        raise SectionError(msg)
    positions = np.asarray(adata.obsm["spatial"], dtype=np.float64)
    bad = adata.obs_names[~np.isfinite(positions).all(axis=1)].tolist()
    if bad:
        msg = f"{origin} has {len(bad)} spots whose position is not finite: {some(bad)}"
        raise SectionError(msg)


def check_counts(adata: ad.AnnData, origin: str) -> None:
    """Raise SectionError where the counts are not CSR float32, not raw, or where a spot has none."""
    counts = adata.X
    if not sp.issparse(counts) or counts.format != "csr" or counts.dtype != np.float32:
        kind = f"{counts.format} {counts.dtype}" if sp.issparse(counts) else type(counts).__name__
        msg = f"{origin} holds its counts as {kind}, the schema has CSR float32: create the section with make_section"
        raise SectionError(msg)
    try:
        check_sparse(counts)
    except ValueError as error:
        msg = f"{origin} has a damaged count matrix: {error}"
        raise SectionError(msg) from None
    check_values(counts, adata.obs_names.tolist(), adata.var_names.tolist(), origin)
    empty = adata.obs_names[np.asarray(counts.sum(axis=1)).ravel() == 0].tolist()
    if empty:
        msg = f"{origin} has {len(empty)} spots without a count, which cannot be normalised: {some(empty)}; remove them"
        raise SectionError(msg)


def check_values(counts: sp.csr_matrix, spots: list[str], genes: list[str], origin: str) -> None:
    """Raise SectionError, with spots and genes, for counts that are not finite, negative, or not whole."""
    values = counts.data
    faults = (
        (~np.isfinite(values), "counts that are not finite numbers"),
        (values < 0, "negative counts"),
        (
            values != np.rint(values),
            "counts that are not whole numbers, so they are not raw counts (normalised already?)",
        ),
    )
    for faulty, kind in faults:
        stored = np.flatnonzero(faulty)
        if not stored.size:
            continue
        first = stored[:5]
        rows = np.searchsorted(counts.indptr, first, side="right") - 1
        triples = zip(rows.tolist(), counts.indices[first].tolist(), values[first].tolist(), strict=True)
        examples = [f"{spots[row]}/{genes[column]} = {value:g}" for row, column, value in triples]
        more = f" and {stored.size - len(examples)} more" if stored.size > len(examples) else ""
        msg = f"{origin} has {stored.size} {kind}: {', '.join(examples)}{more}"
        raise SectionError(msg)
