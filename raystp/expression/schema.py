"""One schema for a measured section, whatever it was read from: an AnnData in the form that scverse's tools expect.

`X` is raw counts, CSR float32 (whole numbers); `obs_names` are the spots; `obsm["spatial"]` is (x = column, y = row) of
the spots' centres in full-resolution (level-0) pixels; `uns["raystp"]` says whose tissue it is, and the um of a pixel.
No image is kept inside, so scanpy draws it with `sc.pl.spatial(section, img_key=None)`; the default wants an image.
A section is checked when it is made, written and read, so that a step may trust what it holds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from jaxtyping import Float64

from raystp.errors import SectionError
from raystp.expression.checks import check_counts, check_label, check_names, check_places
from raystp.expression.hdf5 import checked_hdf5
from raystp.storage import StoragePath

SCHEMA_VERSION = 1
"""Version of `uns["raystp"]` and of what a section holds."""


@dataclass(frozen=True)
class SpotPositions:
    """The measured spots of a section, in the order of the counts' rows."""

    names: list[str]
    xy: Float64[np.ndarray, "spot 2"]
    """Centres in level-0 pixels: x is the column, y the row."""
    array_row: Float64[np.ndarray, "spot"]
    array_col: Float64[np.ndarray, "spot"]
    """Places on the printed array. Legacy arrays have fractions there."""


@dataclass(frozen=True)
class SectionInfo:
    """Whose tissue a section is, and its measures."""

    section: str
    patient: str
    slide: str
    mpp: float
    """um per level-0 pixel, as used for the spots."""
    spot_diameter_um: float
    pitch_um: float
    """Distance between the centres of neighbouring spots."""
    layout: str


def make_section(
    counts: Any,
    genes: Sequence[str],
    spots: SpotPositions,
    about: SectionInfo,
    *,
    gene_ids: Sequence[str] | None = None,
    scalefactors: Mapping[str, float] | None = None,
) -> ad.AnnData:
    """Return a checked section of raw counts, `[spot gene]`, dense or scipy sparse.

    `scalefactors` are Space Ranger's own where there are some; else the spot's diameter in pixels is computed, and
    `tissue_hires_scalef` is 1. Raises SectionError as `check_section` does.
    """
    factors = {"tissue_hires_scalef": 1.0, "spot_diameter_fullres": about.spot_diameter_um / about.mpp}
    adata = ad.AnnData(
        X=_as_csr(counts),
        obs=pd.DataFrame(
            {
                "in_tissue": np.ones(len(spots.names), dtype=np.int64),
                "array_row": _whole_where_possible(spots.array_row),
                "array_col": _whole_where_possible(spots.array_col),
            },
            index=pd.Index(spots.names, dtype=object),
        ),
        var=pd.DataFrame(
            {} if gene_ids is None else {"gene_ids": list(gene_ids)}, index=pd.Index(list(genes), dtype=object)
        ),
        obsm={"spatial": spots.xy.astype(np.float64)},
        uns={
            "spatial": {
                about.section: {"images": {}, "scalefactors": {**factors, **(scalefactors or {})}, "metadata": {}}
            },
            "raystp": {"schema_version": SCHEMA_VERSION, **asdict(about)},
        },
    )
    check_section(adata, f"section '{about.section}'")
    return adata


def check_section(adata: ad.AnnData, where: str) -> None:
    """Raise SectionError, in a sentence that begins with `where`, for whatever the schema does not allow."""
    check_label(adata, where, version=SCHEMA_VERSION, names=tuple(SectionInfo.__dataclass_fields__))
    check_names(adata, where)
    check_places(adata, where)
    check_counts(adata, where)


def write_section(place: StoragePath, adata: ad.AnnData) -> None:
    """Check a section and write it as h5ad, whole or not at all."""
    check_section(adata, str(place))
    place.write_file(lambda path: adata.write_h5ad(path, compression="gzip"))


def read_section(place: StoragePath) -> ad.AnnData:
    """Read a section that `write_section` wrote; raises SectionError for any other file."""
    adata = read_h5ad(place)
    check_section(adata, str(place))
    return adata


def read_h5ad(place: StoragePath) -> ad.AnnData:
    """Read any h5ad file into memory after a look at its header; raises SectionError where it cannot be read."""
    with checked_hdf5(place) as path:
        try:
            return ad.read_h5ad(path)
        except Exception as error:  # a damaged file makes anndata raise almost anything
            msg = f"{place} is not an h5ad file that anndata can read ({type(error).__name__}: {_first_line(error)})"
            raise SectionError(msg) from error


def about(adata: ad.AnnData) -> SectionInfo:
    """Return whose tissue a checked section is, and its measures, as plain values."""
    label = adata.uns["raystp"]
    texts = {name: str(label[name]) for name in ("section", "patient", "slide", "layout")}
    numbers = {name: float(label[name]) for name in ("mpp", "spot_diameter_um", "pitch_um")}
    return SectionInfo(**texts, **numbers)  # type: ignore[arg-type]  # mypy joins the two kinds of value


def _as_csr(counts: Any) -> sp.csr_matrix:
    with np.errstate(over="ignore"):  # beyond float32 is inf, which the check names
        matrix = sp.csr_matrix(counts, dtype=np.float32, copy=True)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return matrix


def _whole_where_possible(values: Float64[np.ndarray, "spot"]) -> Any:
    return values.astype(np.int64) if np.isfinite(values).all() and (values == np.rint(values)).all() else values


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
