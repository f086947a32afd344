"""A small cohort of slides whose stain follows expression, as raystp's own table, as HEST's folder and as hest-bench's.

The foreign folders are written from the pages of their formats with tifffile, h5py and anndata. All have the same
pixels, counts and places: um/px is .5, a spot is 200 um from the next, and a patch is 224 px of 112 um.
"""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import tifffile
from PIL import Image
from scipy.sparse import csr_matrix

from raystp.interop.choice import TableChoice
from raystp.interop.registry import TABLES
from raystp.storage import StoragePath
from tests.interop.sections.foreign import patches_file

MPP, PITCH, PATCH, MARGIN, GENES = 0.5, 400, 224, 100, 20
PATIENTS = {"A1": "1", "A2": "1", "B1": "2", "C1": "3"}


@dataclass(frozen=True)
class Paired:
    """One section: pixels, whole-px centres (x, y), array places from 1 on, and counts."""

    name: str
    image: np.ndarray
    centres: np.ndarray
    array: np.ndarray
    counts: np.ndarray

    @property
    def spots(self) -> list[str]:
        return [f"{x}x{y}" for x, y in self.array.tolist()]


def cohort(names: Sequence[str] = tuple(PATIENTS), across: int = 5) -> list[Paired]:
    return [
        _paired(name, np.random.default_rng(number), across) for number, name in enumerate(PATIENTS) if name in names
    ]


def _paired(name: str, random: np.random.Generator, across: int) -> Paired:
    array = np.stack(np.meshgrid(np.arange(1, across + 1), np.arange(1, across + 1)), axis=-1).reshape(-1, 2)
    side = 2 * MARGIN + across * PITCH
    centres = MARGIN + (array - 1) * PITCH + PITCH // 2
    stain = random.uniform(0, 1, len(array))
    image = np.full((side, side, 3), 245, np.int64)
    for (x, y), depth in zip(centres.tolist(), stain.tolist(), strict=True):
        colour = np.array([225, 160, 205]) - depth * np.array([110, 100, 60])
        image[y - PITCH // 2 : y + PITCH // 2, x - PITCH // 2 : x + PITCH // 2] = colour
    noise = random.integers(-12, 13, image.shape)
    rising = np.arange(GENES) % 2 == 0
    means = 10 * (1 + 3 * np.where(rising, stain[:, None], 1 - stain[:, None]))
    return Paired(name, np.clip(image + noise, 0, 255).astype(np.uint8), centres, array, random.poisson(means))


def own_table(folder: Path, sections: list[Paired]) -> Path:
    """Write the cohort as PNG files with legacy ST's counts and positions, and raystp's slide table."""
    folder.mkdir(parents=True)
    lines = ["slide,path,patient,mpp,layout,counts,positions"]
    for one in sections:
        Image.fromarray(one.image).save(folder / f"{one.name}.png", compress_level=1)
        counts = pd.DataFrame(one.counts, one.spots, [f"G{gene}" for gene in range(GENES)])
        counts.to_csv(folder / f"{one.name}.tsv", sep="\t")
        places = pd.DataFrame(np.hstack([one.array, one.array, one.centres]))
        places.columns = pd.Index(["x", "y", "new_x", "new_y", "pixel_x", "pixel_y"])
        places.assign(selected=1).to_csv(folder / f"{one.name}_selection.tsv", sep="\t", index=False)
        patient = f"Toy/{PATIENTS[one.name]}"
        lines.append(f"{one.name},{one.name}.png,{patient},{MPP},legacy_st,{one.name}.tsv,{one.name}_selection.tsv")
    (folder / "slides.csv").write_text("\n".join(lines))
    return folder / "slides.csv"


def hest_root(root: Path, sections: list[Paired]) -> Path:
    """Write the cohort as HEST's folder: pyramids in wsis/, spots in st/, um/px in metadata/, and the CSV."""
    for name in ("wsis", "st", "metadata"):
        (root / name).mkdir(parents=True)
    for one in sections:
        with tifffile.TiffWriter(root / "wsis" / f"{one.name}.tif") as file:
            how: dict[str, Any] = {
                "tile": (256, 256),
                "photometric": "rgb",
                "resolutionunit": "CENTIMETER",
                "compression": "lzw",
            }
            file.write(one.image, resolution=(2e4, 2e4), metadata=None, **how)
            file.write(one.image[::2, ::2], resolution=(1e4, 1e4), metadata=None, subfiletype=1, **how)
        h5ad(root / "st" / f"{one.name}.h5ad", one)
        about = {"pixel_size_um_estimated": MPP, "pixel_size_um_embedded": 0.25}
        (root / "metadata" / f"{one.name}.json").write_text(json.dumps(about))
    with (root / "HEST_v1_1_0.csv").open("w", encoding="utf-8-sig", newline="") as text:
        writer = csv.writer(text)
        writer.writerow(["dataset_title", "id", "patient", "organ", "st_technology"])
        writer.writerows(
            ["Toy", name, patient, "Breast", "Spatial Transcriptomics"] for name, patient in PATIENTS.items()
        )
    return root


def h5ad(path: Path, one: Paired) -> None:
    """Write a section as HEST's `st/<id>.h5ad`."""
    obs = pd.DataFrame({"in_tissue": 1, "array_row": one.array[:, 1], "array_col": one.array[:, 0]}, index=one.spots)
    obs["pxl_col_in_fullres"], obs["pxl_row_in_fullres"] = one.centres[:, 0], one.centres[:, 1]
    var = pd.DataFrame(index=[f"G{gene}" for gene in range(GENES)])
    found = ad.AnnData(csr_matrix(one.counts.astype(np.float32)), obs, var)
    found.obsm["spatial"] = one.centres.astype(np.float64)
    scales = {"tissue_downscaled_fullres_scalef": 0.1, "spot_diameter_fullres": 200.0}
    found.uns["spatial"] = {"ST": {"images": {"downscaled_fullres": one.image[::10, ::10]}, "scalefactors": scales}}
    path.parent.mkdir(parents=True, exist_ok=True)
    found.write_h5ad(path)


def bench_root(root: Path, sections: list[Paired], test: str) -> Path:
    """Write the cohort as a task of hest-bench; the only fold tests one section. The images are in another order."""
    task = root / "TOY"
    for one in sections:
        order = np.argsort(one.spots)
        corners = one.centres[order] - PATCH // 2
        images = np.stack([one.image[y : y + PATCH, x : x + PATCH] for x, y in corners.tolist()])
        names = [one.spots[row] for row in order.tolist()]
        patches_file(task / "patches" / f"{one.name}.h5", images, corners, names, pixel_size=MPP)
        h5ad(task / "adata" / f"{one.name}.h5ad", one)
    (task / "splits").mkdir()
    tested = [one.name for one in sections if PATIENTS[one.name] == PATIENTS[test]]
    trained = [one.name for one in sections if one.name not in tested]
    for side, names in (("train", trained), ("test", tested)):
        lines = [f"{name},patches/{name}.h5,adata/{name}.h5ad" for name in names]
        (task / "splits" / f"{side}_0.csv").write_text("\n".join(["sample_id,patches_path,expr_path", *lines]))
    (task / "var_50genes.json").write_text(json.dumps({"genes": [f"G{gene}" for gene in range(GENES)]}))
    return root


def written(data_set: str, root: Path, folder: Path) -> Path:
    """Write what `raystp import` makes of a folder; return the slide table."""
    found = TABLES[data_set].table_files(StoragePath.of(root), TableChoice())
    for name, content in found.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder / "slides.csv"
