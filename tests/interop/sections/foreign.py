"""Folders of HEST-1k, hest-bench and STimage-1K4M as their pages describe them, by csv, json and h5py alone."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

HEST_ROWS = [
    {"dataset_title": "A study, of two", "id": "A1", "patient": "1", "organ": "Breast", "species": "Homo sapiens"},
    {"dataset_title": "A study, of two", "id": "A2", "patient": "2", "organ": "Breast", "species": "Homo sapiens"},
    {"dataset_title": "Another study", "id": "B1", "patient": "1", "organ": "Bowel", "species": "Mus musculus"},
]


def hest_folder(root: Path, rows: Sequence[Mapping[str, str]] = HEST_ROWS, mpp: Any = 0.5) -> Path:
    """Write HEST's CSV with its byte order mark, empty slides and sections, and a JSON for each sample."""
    for name in ("wsis", "st", "metadata"):
        (root / name).mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    (root / "HEST_v1_1_0.csv").write_bytes(b"\xef\xbb\xbf" + text.getvalue().encode())
    for row in rows:
        (root / "wsis" / f"{row['id']}.tif").write_bytes(b"II*\0")
        (root / "st" / f"{row['id']}.h5ad").write_bytes(b"")
        about = {"pixel_size_um_estimated": mpp, "pixel_size_um_embedded": 0.9}
        (root / "metadata" / f"{row['id']}.json").write_text(json.dumps(about))
    return root


def patches_file(path: Path, images: np.ndarray, corners: np.ndarray, names: Sequence[str], **attributes: Any) -> Path:
    """Write `patches/<id>.h5`; an attribute that is None is left out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    px = images.shape[1]
    usual = {"patch_size_src": px, "patch_size_target": px, "downsample": 1.0, "pixel_size": 0.5, "name": path.stem}
    with h5py.File(path, "w") as file:
        data = file.create_dataset(
            "img", data=images, chunks=(1, *images.shape[1:]), maxshape=(None, *images.shape[1:])
        )
        for key, value in {**usual, **attributes}.items():
            if value is not None:
                data.attrs[key] = value
        file.create_dataset("coords", data=corners.astype(np.int64))
        text = np.asarray([[name] for name in names], dtype=object)
        file.create_dataset("barcode", data=text, dtype=h5py.string_dtype())
    return path


def bench_folder(root: Path, folds: Sequence[tuple[Sequence[str], Sequence[str]]], task: str = "IDC") -> Path:
    """Write a task of hest-bench with two images per sample; a fold is (train, test)."""
    names = sorted({name for fold in folds for side in fold for name in side})
    for name in names:
        patches_file(
            root / task / "patches" / f"{name}.h5",
            np.zeros((2, 8, 8, 3), np.uint8),
            np.eye(2),
            [f"{name}-a", f"{name}-b"],
        )
        (root / task / "adata").mkdir(exist_ok=True)
        (root / task / "adata" / f"{name}.h5ad").write_bytes(b"")
    (root / task / "splits").mkdir()
    for number, fold in enumerate(folds):
        for side, members in zip(("train", "test"), fold, strict=True):
            lines = [f"{name},patches/{name}.h5,adata/{name}.h5ad" for name in members]
            text = "\n".join(["sample_id,patches_path,expr_path", *lines])
            (root / task / "splits" / f"{side}_{number}.csv").write_text(text)
    (root / task / "var_50genes.json").write_text(json.dumps({"genes": ["ERBB2", "GNAS"]}))
    return root


def stimage_folder(root: Path, radius: float = 50.0) -> Path:
    """Write two slides of one study and one of another: two of Visium, one of legacy ST."""
    slides = [("GSE1_a", "Visium", "111"), ("GSE1_b", "Visium", "111"), ("GSE2_a", "ST", "222")]
    (root / "meta").mkdir(parents=True)
    lines = ["slide\ttech\tpmid\ttissue", *(f"{name}\t{tech}\t{study}\tbreast, left" for name, tech, study in slides)]
    (root / "meta" / "meta_all_gene.csv").write_text("\n".join(lines))
    for name, tech, _ in slides:
        for folder in ("coord", "gene_exp", "image"):
            (root / tech / folder).mkdir(parents=True, exist_ok=True)
        places = f",yaxis,xaxis,r\n{name}_1x1,10,20,{radius}\n{name}_1x2,10,220,{radius}\n"
        (root / tech / "coord" / f"{name}_coord.csv").write_text(places)
        (root / tech / "gene_exp" / f"{name}_count.csv").write_text(f",G1\n{name}_1x1,3\n{name}_1x2,4\n")
        (root / tech / "image" / f"{name}.png").write_bytes(b"\xff\xd8\xff")
    return root
