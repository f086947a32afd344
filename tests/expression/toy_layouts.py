"""One toy section, written in each layout: what a check says must not depend on the layout."""

import gzip
import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
from jaxtyping import Float64

from raystp.expression.readers.source import SectionSource
from raystp.storage import StoragePath

ALL_LAYOUTS = ("legacy_st", "space_ranger", "scverse")
MPP = 0.5
GENES = ["ACTB", "EPCAM", "VIM", "KRT8", "CD3D", "CD8A", "ERBB2", "ESR1", "GNAS", "MKI67"]
IDS = [f"ENSG{number:011d}" for number in range(len(GENES))]


@dataclass(frozen=True)
class Toy:
    """A section: what its files state, whatever the layout."""

    array: Float64[np.ndarray, "spot 2"]
    """(column, row)"""
    xy: Float64[np.ndarray, "spot 2"]
    counts: Float64[np.ndarray, "spot gene"]
    spots: list[str]
    """Names on the side of the counts."""
    places: list[str]
    """Names on the side of the positions."""
    genes: list[str] = field(default_factory=lambda: list(GENES))
    ids: list[str] = field(default_factory=lambda: list(IDS))
    kinds: list[str] | None = None
    symbols: list[str] | None = None
    """A column of symbols beside the names; only h5ad has one."""
    flags: list[object] | None = None
    libraries: list[str] | None = None
    factors: dict[str, object] = field(default_factory=dict)
    own_places: bool = True
    """Whether an h5ad has its positions itself, and not in Space Ranger's file beside it."""


def hexagonal(rows: int = 8, columns: int = 8) -> Float64[np.ndarray, "spot 2"]:
    """Return (column, row) of a Visium array."""
    return np.array([(2 * c + r % 2, r) for r in range(rows) for c in range(columns)], np.float64)


def square(rows: int = 8, columns: int = 8) -> Float64[np.ndarray, "spot 2"]:
    """Return (x, y) of a 1k array of legacy ST."""
    return np.array([(c + 1, r + 1) for r in range(rows) for c in range(columns)], np.float64)


def checkerboard(rows: int = 12, columns: int = 12) -> Float64[np.ndarray, "spot 2"]:
    """Return (x, y) of a 2k array of legacy ST: x + y is even."""
    return np.array([(c, r) for r in range(rows) for c in range(columns) if (r + c) % 2 == 0], np.float64)


def place(array: Float64[np.ndarray, "spot 2"], step: tuple[float, float]) -> Float64[np.ndarray, "spot 2"]:
    """Return positions in px of an array whose steps are so long, in um."""
    return np.asarray(array * np.asarray(step) / MPP + [400.0, 300.0], np.float64)


def toy(layout: str) -> Toy:
    """Return a sound section of 64 spots and 10 genes."""
    if layout == "legacy_st":
        array, xy = square(), place(square(), (200.0, 200.0))
        names = [f"{x:.0f}x{y:.0f}" for x, y in array.tolist()]
    else:
        array, xy = hexagonal(), place(hexagonal(), (50.0, 50.0 * 3**0.5))
        rng = np.random.default_rng(1)
        names = ["".join(rng.choice(list("ACGT"), 16)) + "-1" for _ in array]
    counts = np.random.default_rng(0).integers(1, 9, (len(array), len(GENES))).astype(np.float64)
    factors = {"spot_diameter_fullres": 65 / MPP, "tissue_hires_scalef": 0.25, "tissue_lowres_scalef": 0.05}
    return Toy(array, xy, counts, names, list(names), factors=dict(factors))


def write(section: Toy, layout: str, folder: Path) -> SectionSource:
    """Write the section's files and return where they are."""
    folder.mkdir(parents=True, exist_ok=True)
    return {"legacy_st": _legacy_st, "space_ranger": _space_ranger, "scverse": _scverse}[layout](section, folder)


def _source(layout: str, counts: Path, positions: Path | None = None, mpp: float | None = None) -> SectionSource:
    place = None if positions is None else StoragePath.of(positions)
    return SectionSource("S1", "slide1", "P1", layout, StoragePath.of(counts), place, mpp=mpp)


def _legacy_st(section: Toy, folder: Path) -> SectionSource:
    rows = [
        "\t".join([name, *(f"{value:.17g}" for value in values)])
        for name, values in zip(section.spots, section.counts.tolist(), strict=True)
    ]
    (folder / "counts.tsv").write_text("\n".join(["\t".join(["", *section.genes]), *rows]) + "\n")
    named = [name.split("x") for name in section.places]
    table = {"x": [x for x, _ in named], "y": [y for _, y in named]}
    table |= {"pixel_x": section.xy[:, 0].tolist(), "pixel_y": section.xy[:, 1].tolist()}
    if section.flags is not None:
        table |= {"selected": [str(flag) for flag in section.flags]}
    pd.DataFrame(table).to_csv(folder / "selection.tsv", sep="\t", index=False, na_rep="NA")
    return _source("legacy_st", folder / "counts.tsv", folder / "selection.tsv")


def positions_table(section: Toy) -> pd.DataFrame:
    """Return Space Ranger's table of tissue positions."""
    flags = section.flags if section.flags is not None else [1] * len(section.places)
    return pd.DataFrame(
        {
            "barcode": section.places,
            "in_tissue": flags,
            "array_row": section.array[:, 1].astype(int),
            "array_col": section.array[:, 0].astype(int),
            "pxl_row_in_fullres": section.xy[:, 1],
            "pxl_col_in_fullres": section.xy[:, 0],
        }
    )


def write_h5(section: Toy, path: Path) -> None:
    """Write the counts as Space Ranger's HDF5."""
    matrix = sp.csr_matrix(section.counts)
    kinds = section.kinds or ["Gene Expression"] * len(section.genes)
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        group["barcodes"] = np.array([name.encode() for name in section.spots])
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(matrix, name)
        group["shape"] = np.array(section.counts.shape[::-1], np.int32)
        for name, values in (("id", section.ids), ("name", section.genes), ("feature_type", kinds)):
            group[f"features/{name}"] = np.array([value.encode() for value in values])


def write_spatial(section: Toy, folder: Path) -> None:
    """Write Space Ranger's `spatial` folder."""
    folder.mkdir(parents=True, exist_ok=True)
    positions_table(section).to_csv(folder / "tissue_positions.csv", index=False)
    (folder / "scalefactors_json.json").write_text(json.dumps(section.factors))


def _space_ranger(section: Toy, folder: Path) -> SectionSource:
    write_h5(section, folder / "filtered_feature_bc_matrix.h5")
    write_spatial(section, folder / "spatial")
    return _source("space_ranger", folder)


def as_h5ad(section: Toy) -> ad.AnnData:
    """Return the section as squidpy would make it."""
    obs = pd.DataFrame(index=pd.Index(section.spots, dtype=object))
    if section.flags is not None:
        obs["in_tissue"] = pd.Series(section.flags, index=obs.index)
    if section.libraries is not None:
        obs["library_id"] = section.libraries
    var = pd.DataFrame({"gene_ids": section.ids}, index=pd.Index(section.genes, dtype=object))
    if section.kinds is not None:
        var["feature_types"] = section.kinds
    if section.symbols is not None:
        var["gene_symbols"] = section.symbols
    adata = ad.AnnData(X=sp.csr_matrix(section.counts.astype(np.float32)), obs=obs, var=var)
    if section.own_places:
        adata.obsm["spatial"] = section.xy.copy()
        adata.obs["array_row"], adata.obs["array_col"] = (
            section.array[:, 1].astype(int),
            section.array[:, 0].astype(int),
        )
    libraries = list(dict.fromkeys(section.libraries or ["lib1"]))
    adata.uns["spatial"] = {
        name: {"images": {}, "scalefactors": dict(section.factors), "metadata": {}} for name in libraries
    }
    return adata


def _scverse(section: Toy, folder: Path) -> SectionSource:
    as_h5ad(section).write_h5ad(folder / "section.h5ad")
    if section.own_places:
        return _source("scverse", folder / "section.h5ad")
    write_spatial(section, folder / "spatial")
    return _source("scverse", folder / "section.h5ad", folder / "spatial")


def geo(section: Toy, folder: Path, prefix: str) -> None:
    """Write the files as GEO keeps them: one folder, a prefix before each name, `.gz` behind."""
    folder.mkdir(parents=True, exist_ok=True)
    write_h5(section, folder / f"{prefix}filtered_feature_bc_matrix.h5")
    table = positions_table(section).to_csv(index=False, header=False)
    with gzip.open(folder / f"{prefix}tissue_positions_list.csv.gz", "wt") as file:
        file.write(table)
    with gzip.open(folder / f"{prefix}scalefactors_json.json.gz", "wt") as file:
        file.write(json.dumps(section.factors))


def without(section: Toy, rows: list[int]) -> Toy:
    """Return the section without the counts of these spots; the places stay."""
    kept = [row for row in range(len(section.spots)) if row not in rows]
    return replace(section, counts=section.counts[kept], spots=[section.spots[row] for row in kept])
