"""Measured sections and data sets of sections: the layout of a file or folder, or the command that imports it."""

import shlex
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from raystp.expression.readers.visium_hd.recognise import FOLDER, is_bin, is_cell
from raystp.interop.registry import TABLES
from raystp.slides.inputs.ids import stem_of
from raystp.steps.inspect.report import Inspection
from raystp.storage import StoragePath

EXPERIMENT = "experiment.xenium"
MAX_TASKS = 32
"""Folders that are looked into for the folds of hest-bench; the bench has ten tasks."""


def report_of_section_folder(path: StoragePath, names: set[str]) -> Inspection | None:
    """Return what an instrument's output folder or a data set is; None for another folder."""
    if EXPERIMENT in names:
        return _section(path, "output of Xenium", "xenium")
    if "binned_outputs" in names or FOLDER.match(path.name):
        return _section(path, "output of Space Ranger for Visium HD", "visium_hd")
    if "spatial" in names and any(name.endswith("feature_bc_matrix.h5") for name in names):
        return _section(path, "output of Space Ranger", "space_ranger")
    form = _data_set(path, names)
    if form is None:
        return None
    command = f"raystp import {form} {shlex.quote(path.with_query())} -o FOLDER"
    return Inspection(str(path), f"slides and spots of {TABLES[form].data_set}", command)


def report_of_matrix(path: StoragePath, file: h5py.File, facts: dict[str, Any]) -> Inspection:
    """Return what a 10x count matrix is, by the first of its barcodes and the files beside it."""
    if (path.parent / EXPERIMENT).exists():
        found = _section(path.parent, "count matrix of Xenium, a part of its output", "xenium")
        return Inspection(str(path), found.kind, found.read_as, facts=facts, row=found.row)
    barcode = _first_text(file.get("matrix/barcodes"))
    if is_cell(barcode):
        problem = "segmented cells of Visium HD are not read as spots: give outs, whose bins are pooled"
        return Inspection(str(path), "count matrix of cells of Visium HD", problem=problem, facts=facts)
    bins = is_bin(barcode)
    kind = "count matrix of Visium HD" if bins else "count matrix of Space Ranger"
    return _section(path, kind, "visium_hd" if bins else "space_ranger", facts)


def layout_of_h5ad(path: StoragePath) -> str:
    """Return `hest` for an h5ad with HEST's JSON about it in `metadata/`, `scverse` for any other."""
    sidecar = path.parent.parent / "metadata" / f"{path.name.removesuffix('.h5ad')}.json"
    return "hest" if sidecar.exists() else "scverse"


def row_of(path: StoragePath, patient: str, **cells: str) -> dict[str, str]:
    """Return a row of a slide table for a measured section; its slide has to be added."""
    name = stem_of(path.name) or Path(path.name).name
    return {"slide": name, "path": "", "patient": patient, "mpp": "", **cells}


def _section(path: StoragePath, kind: str, layout: str, facts: dict[str, Any] | None = None) -> Inspection:
    row = row_of(path, "", layout=layout, counts=path.with_query())
    return Inspection(str(path), kind, "`counts` of a slide table", facts=facts or {}, row=row)


def _data_set(path: StoragePath, names: set[str]) -> str | None:
    """Return the format of a data set's folder, as `raystp import` names it."""
    if any(name.startswith("HEST_v") and name.endswith(".csv") for name in names) and {"st", "patches"} & names:
        return "hest"
    if "meta" in names and any((path / tech / "gene_exp").names() for tech in ("Visium", "ST", "VisiumHD")):
        return "stimage"
    if "ST-imgs" in names or {"ST-imgs", "ST-cnts"} <= {*(path / "data").names()}:
        return "her2st"
    tasks = [path, *(path / name for name in sorted(names)[:MAX_TASKS] if "." not in name)]
    return "hest-bench" if any((task / "splits" / "train_0.csv").exists() for task in tasks) else None


def _first_text(barcodes: object) -> str:
    if not isinstance(barcodes, h5py.Dataset) or len(barcodes.shape) != 1 or not barcodes.shape[0]:
        return ""
    first = np.asarray(barcodes[:1]).tolist()[0]
    return first.decode(errors="replace") if isinstance(first, bytes) else str(first)
