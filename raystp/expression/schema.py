"""The schema of a measured section, the same for every layout: an AnnData in the form that scverse's tools expect.

`X` is raw counts, CSR float32 (whole numbers). `obs_names` are the spots. `obsm["spatial"]` is (x = column, y = row) of
the spots' centres in full-resolution (level-0) pixels. `uns["raystp"]` holds section, patient, slide, and the um of a
pixel. No image is stored, so scanpy needs `sc.pl.spatial(section, img_key=None)`; its default expects an image.
A section is checked when it is created, written and read, so steps can rely on its content.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from jaxtyping import Float64, Shaped

from raystp.errors import SectionError
from raystp.expression.checks import check_counts, check_label, check_names, check_positions
from raystp.expression.normalise import CountArray
from raystp.expression.sparse import check_sparse
from raystp.hdf5 import checked_hdf5
from raystp.storage import StoragePath

SCHEMA_VERSION = 1
"""Version of `uns["raystp"]` and of the content of a section."""


@dataclass(frozen=True)
class SpotPositions:
    """The measured spots of a section, in the order of the counts' rows."""

    names: list[str]
    xy: Float64[np.ndarray, "spot 2"]
    """Centres in level-0 pixels: x is the column, y the row."""
    array_row: Float64[np.ndarray, "spot"]
    array_col: Float64[np.ndarray, "spot"]
    """Coordinates on the printed array. Those of legacy arrays have fractions."""


@dataclass(frozen=True)
class SectionInfo:
    """Section, patient and slide, and lengths in um."""

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
    counts: CountArray,
    genes: Sequence[str],
    spots: SpotPositions,
    info: SectionInfo,
    *,
    gene_ids: Sequence[str] | None = None,
    scalefactors: Mapping[str, float] | None = None,
) -> ad.AnnData:
    """Return a checked section of raw counts.

    `scalefactors` are those of Space Ranger. Without them the spot diameter in pixels is computed, and
    `tissue_hires_scalef` is 1. Raises SectionError like `check_section`.
    """
    factors = {"tissue_hires_scalef": 1.0, "spot_diameter_fullres": info.spot_diameter_um / info.mpp}
    adata = ad.AnnData(
        X=_as_csr(counts),
        obs=pd.DataFrame(
            {
                "in_tissue": np.ones(len(spots.names), dtype=np.int64),
                "array_row": _as_integers_if_whole(spots.array_row),
                "array_col": _as_integers_if_whole(spots.array_col),
            },
            index=pd.Index(spots.names, dtype=object),
        ),
        var=pd.DataFrame(
            {} if gene_ids is None else {"gene_ids": list(gene_ids)}, index=pd.Index(list(genes), dtype=object)
        ),
        obsm={"spatial": spots.xy.astype(np.float64)},
        uns={
            "spatial": {
                info.section: {"images": {}, "scalefactors": {**factors, **(scalefactors or {})}, "metadata": {}}
            },
            "raystp": {"schema_version": SCHEMA_VERSION, **asdict(info)},
        },
    )
    check_section(adata, f"section '{info.section}'")
    return adata


def check_section(adata: ad.AnnData, origin: str) -> None:
    """Raise SectionError, with a message that begins with `origin`, where a section does not follow the schema."""
    check_label(adata, origin, version=SCHEMA_VERSION, names=tuple(SectionInfo.__dataclass_fields__))
    check_names(adata, origin)
    check_positions(adata, origin)
    check_counts(adata, origin)


def write_section(path: StoragePath, adata: ad.AnnData) -> None:
    """Check a section and write it as h5ad, completely or not at all."""
    check_section(adata, str(path))
    path.write_file(lambda local: adata.write_h5ad(local, compression="gzip"))


def read_section(path: StoragePath) -> ad.AnnData:
    """Read a section that `write_section` wrote; raises SectionError for any other file."""
    adata = read_h5ad(path)
    check_section(adata, str(path))
    return adata


def read_h5ad(path: StoragePath) -> ad.AnnData:
    """Read any h5ad file into memory after a check of its header; raises SectionError where it cannot be read."""
    with checked_hdf5(path, SectionError) as local:
        try:
            adata = ad.read_h5ad(local)
            raw = None if adata.raw is None else adata.raw.X
            for matrix in (adata.X, raw, *adata.layers.values(), *adata.obsm.values()):
                check_sparse(matrix)
            return adata
        except Exception as error:  # a damaged file makes anndata raise almost anything
            reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            msg = f"{path} is not an h5ad file that anndata can read ({reason})"
            raise SectionError(msg) from error


def section_info(adata: ad.AnnData) -> SectionInfo:
    """Return section, patient, slide and lengths of a checked section, as plain values."""
    label = adata.uns["raystp"]
    return SectionInfo(
        section=str(label["section"]),
        patient=str(label["patient"]),
        slide=str(label["slide"]),
        mpp=float(label["mpp"]),
        spot_diameter_um=float(label["spot_diameter_um"]),
        pitch_um=float(label["pitch_um"]),
        layout=str(label["layout"]),
    )


def _as_csr(counts: CountArray) -> sp.csr_matrix:
    with np.errstate(over="ignore"):  # beyond float32 is inf, which the check reports
        matrix = sp.csr_matrix(counts, dtype=np.float32, copy=True)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return matrix


def _as_integers_if_whole(values: Float64[np.ndarray, "spot"]) -> Shaped[np.ndarray, "spot"]:
    return values.astype(np.int64) if np.isfinite(values).all() and (values == np.rint(values)).all() else values
