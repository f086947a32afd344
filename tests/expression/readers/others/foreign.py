"""Sections of HEST and STimage-1K4M as their pages describe them, by anndata, json and csv alone."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from jaxtyping import Float64

Places = Float64[np.ndarray, "spot 2"]


def lattice(rows: int, columns: int, pitch: float, *, hexagonal: bool) -> tuple[Places, Places]:
    """Return (column, row) on the array, and (x, y) in px of spots `pitch` px apart."""
    row, column = (grid.ravel().astype(np.float64) for grid in np.mgrid[:rows, :columns])
    if not hexagonal:
        return np.column_stack([column, row]), np.column_stack([column, row]) * pitch + 500.0
    column = 2 * column + row % 2
    return np.column_stack([column, row]), np.column_stack([column / 2, row * 0.75**0.5]) * pitch + 500.0


def hest_section(
    path: Path, on: tuple[Places, Places], genes: Sequence[str], *, about: Any, diameter_px: float
) -> None:
    """Write `st/<id>.h5ad`, and `metadata/<id>.json` unless `about` is None; `on` is array and (x, y)."""
    array, xy = on
    spots = len(xy)
    counts = np.random.default_rng(0).poisson(3.0, (spots, len(genes))).astype(np.float32)
    obs = pd.DataFrame({"in_tissue": np.ones(spots, np.int64)}, index=[f"spot{number}-1" for number in range(spots)])
    obs["array_row"], obs["array_col"] = array[:, 1].astype(int), array[:, 0].astype(int)
    obs["pxl_row_in_fullres"], obs["pxl_col_in_fullres"] = xy[:, 1], xy[:, 0]
    obs["total_counts"] = counts.sum(axis=1)
    adata = ad.AnnData(counts, obs=obs, var=pd.DataFrame(index=list(genes)), obsm={"spatial": xy.copy()})
    adata.uns["spatial"] = {
        "ST": {
            "images": {"downscaled_fullres": np.zeros((4, 4, 3), np.uint8)},
            "scalefactors": {"tissue_downscaled_fullres_scalef": 0.05, "spot_diameter_fullres": diameter_px},
        }
    }
    sidecar = path.parent.parent / "metadata" / f"{path.stem}.json"
    for folder in (path.parent, sidecar.parent):
        folder.mkdir(parents=True, exist_ok=True)
    adata.write_h5ad(path)
    if about is not None:
        sidecar.write_text(about if isinstance(about, str) else json.dumps(about))


def stimage_section(folder: Path, name: str, xy: Places, genes: Sequence[str], *, radius: float) -> Path:
    """Write `coord/<slide>_coord.csv` (y first) and `gene_exp/<slide>_count.csv` below the technology's folder."""
    for part in ("coord", "gene_exp"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    names = [f"{name}_{number}" for number in range(len(xy))]
    with (folder / "coord" / f"{name}_coord.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["", "yaxis", "xaxis", "r"])
        writer.writerows([spot, y, x, radius] for spot, (x, y) in zip(names, xy.tolist(), strict=True))
    counts = np.random.default_rng(0).poisson(3.0, (len(xy), len(genes)))
    with (folder / "gene_exp" / f"{name}_count.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["", *genes])
        writer.writerows([spot, *values] for spot, values in zip(names, counts.tolist(), strict=True))
    return folder / "gene_exp" / f"{name}_count.csv"
