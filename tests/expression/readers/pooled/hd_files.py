"""Make the output of Space Ranger 3 and 4 for Visium HD: bins of one size, with holes, at any angle."""

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse as sp
from jaxtyping import Bool, Float64, Int64

from raystp.expression.readers.options import SectionOptions
from raystp.expression.readers.source import SectionSource
from raystp.storage import StoragePath

MPP = 0.25
GENES = ["EPCAM", "VIM", "KRT8", "CD3D", "ERBB2"]
IDS = [f"ENSG{number:011d}" for number in range(len(GENES))]
KINDS = ["Gene Expression"] * 4 + ["Antibody Capture"]


@dataclass(frozen=True)
class Bins:
    """Bins of one section: what its files state."""

    side: int = 40
    bin_um: int = 8
    degrees: float = 3.0
    corner: tuple[float, float] = (4000.0, 3000.0)
    """Centre of the first bin, in px."""
    listed: Bool[np.ndarray, "bin"] = field(default_factory=lambda: np.ones(1600, bool))
    """Bins that the positions list; the matrix has none of the others."""
    inside: Bool[np.ndarray, "bin"] = field(default_factory=lambda: np.ones(1600, bool))
    seed: int = 0

    @cached_property
    def array(self) -> Int64[np.ndarray, "bin 2"]:
        """(row, column) of each bin."""
        return np.stack(np.divmod(np.arange(self.side**2), self.side), axis=1)

    @cached_property
    def xy(self) -> Float64[np.ndarray, "bin 2"]:
        """Centres in px: columns run along x, turned by the angle."""
        angle = np.deg2rad(self.degrees)
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        return np.asarray(self.array[:, ::-1] * (self.bin_um / MPP) @ turn + self.corner, np.float64)

    @cached_property
    def counts(self) -> Int64[np.ndarray, "bin gene"]:
        """Counts of all bins, also of those that no file has."""
        return np.random.default_rng(self.seed).poisson(1.5, (self.side**2, len(GENES)))

    @cached_property
    def names(self) -> list[str]:
        return [f"s_{self.bin_um:03d}um_{row:05d}_{column:05d}-1" for row, column in self.array.tolist()]


def holes(side: int = 40, seed: int = 1) -> Bins:
    """Return bins of which some are not listed, and others are off tissue: a corner, a stripe, and single ones."""
    random = np.random.default_rng(seed)
    row, column = np.divmod(np.arange(side**2), side)
    inside = (random.random(side**2) > 0.05) & ~((row < 12) & (column < 12)) & (np.abs(row - 28) > 1)
    return Bins(listed=random.random(side**2) > 0.03, inside=inside)


def write_matrix(path: Path, bins: Bins, rows: Int64[np.ndarray, "bin"], **changed: object) -> None:
    """Write a feature-barcode matrix: HDF5 of version 3, with one barcode a column."""
    counts = sp.csr_matrix(bins.counts[rows])
    stored: dict[str, object] = {
        "data": counts.data.astype(np.int32),
        "indices": counts.indices.astype(np.int64),
        "indptr": counts.indptr.astype(np.int64),
        "shape": np.array([len(GENES), len(rows)], np.int32),
        "barcodes": np.array([bins.names[row].encode() for row in rows.tolist()]),
        "features/id": np.array([name.encode() for name in IDS]),
        "features/name": np.array([name.encode() for name in GENES]),
        "features/feature_type": np.array([name.encode() for name in KINDS]),
    } | changed
    with h5py.File(path, "w") as file:
        for name, values in stored.items():
            file[f"matrix/{name}"] = values


def write_positions(path: Path, bins: Bins, **changed: object) -> None:
    """Write the table of the listed bins, in an order of its own."""
    rows = np.random.default_rng(2).permutation(np.flatnonzero(bins.listed))
    table: dict[str, object] = {
        "barcode": [bins.names[row] for row in rows.tolist()],
        "in_tissue": bins.inside[rows].astype(np.int64),
        "array_row": bins.array[rows, 0],
        "array_col": bins.array[rows, 1],
        "pxl_row_in_fullres": bins.xy[rows, 1],
        "pxl_col_in_fullres": bins.xy[rows, 0],
    } | changed
    pq.write_table(pa.table({name: values for name, values in table.items() if values is not None}), path)


def write_bins(outs: Path, bins: Bins) -> Path:
    """Write `binned_outputs/square_*um` with both matrices; return that folder."""
    folder = outs / "binned_outputs" / f"square_{bins.bin_um:03d}um"
    (folder / "spatial").mkdir(parents=True)
    write_matrix(folder / "filtered_feature_bc_matrix.h5", bins, np.flatnonzero(bins.listed & bins.inside))
    write_matrix(folder / "raw_feature_bc_matrix.h5", bins, np.flatnonzero(bins.listed))
    write_positions(folder / "spatial" / "tissue_positions.parquet", bins)
    factors = {
        "bin_size_um": float(bins.bin_um),
        "microns_per_pixel": MPP,
        "spot_diameter_fullres": bins.bin_um / MPP,
        "tissue_hires_scalef": 0.1,
        "tissue_lowres_scalef": 0.01,
    }
    (folder / "spatial" / "scalefactors_json.json").write_text(json.dumps(factors))
    return folder


def source_of(counts: Path, **options: object) -> SectionSource:
    """Return a section of these counts; every square with a count is kept."""
    chosen = SectionOptions(min_counts=0.0, **options)  # type: ignore[arg-type]  # options of one type each
    return SectionSource("S1", "S1", "P1", "visium_hd", StoragePath.of(counts), options=chosen)
