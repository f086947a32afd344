"""Tile features of other tools: TRIDENT's folders, and HDF5 files of features and coordinates.

Their layout is that of TRIDENT 0.3, CLAM and STAMP 2: `features` or `feats` of tile x dim, `coords` of tile x 2, with
the tile's side among the attributes of `coords`.
"""

import re
from collections.abc import Callable
from typing import Any

import h5py

from raystp.steps.inspect.report import Inspection
from raystp.storage import StoragePath

NOT_READ = "features of another tool are not read: give the slides to `raystp run`, or to `raystp tile` and `embed`"
MAX_TEXT = 120
MAX_ATTRIBUTES = 32
_GRID = re.compile(r"^\d+(\.\d+)?x_\d+px_\d+px_overlap$")
_H5 = (".h5", ".hdf5")


def report_of_features(path: StoragePath, file: h5py.File, facts: dict[str, Any]) -> Inspection:
    """Return what a file of features is: rows, dimension, encoder and tile side, as far as it states them."""
    name = "features" if "features" in file else "feats"
    features, coords = file[name], file["coords"]
    rows = [one.shape[0] if isinstance(one, h5py.Dataset) and one.shape else 0 for one in (features, coords)]
    found = {**facts, **_attributes(file), **_attributes(features), **_attributes(coords)}
    problem = NOT_READ
    if rows[0] != rows[1] and len(getattr(features, "shape", ())) == 2:  # noqa: PLR2004 -- tile x dim
        problem = f"{name} has {rows[0]} rows and coords {rows[1]}: damaged. {NOT_READ}"
    return Inspection(str(path), "tile features of another tool", problem=problem, facts=found)


def report_of_feature_folder(
    path: StoragePath, names: set[str], report: Callable[[StoragePath], Inspection]
) -> Inspection | None:
    """Return what a job folder of TRIDENT, one of its grids, or a folder of HDF5 files is; None for another folder."""
    if grids := sorted(name for name in names if _GRID.match(name)):
        found: dict[str, Any] = {grid: _counts(path / grid) for grid in grids}
        return Inspection(str(path), "job folder of TRIDENT", problem=NOT_READ, facts=found)
    if _GRID.match(path.name):
        return Inspection(str(path), "grid of tiles of TRIDENT", problem=NOT_READ, facts=_counts(path))
    files = sorted(name for name in names if name.endswith(_H5))
    name = next((name for name in files if not (path / name).is_folder()), None)
    if name is None:
        return None
    first = report(path / name)
    facts = {"files": len(files), "first": name, **first.facts}
    return Inspection(str(path), f"folder of HDF5 files, the first a {first.kind}", problem=first.problem, facts=facts)


def _counts(grid: StoragePath) -> dict[str, int]:
    """Return the number of files in each folder of a grid."""
    return {name: len((grid / name).names()) for name in grid.names() if (grid / name).is_folder()}


def _attributes(item: object) -> dict[str, str]:
    """Return the attributes of an HDF5 object that are one text or number, as short text."""
    if not isinstance(item, h5py.Dataset | h5py.File):
        return {}
    found = {}
    for name in list(item.attrs)[:MAX_ATTRIBUTES]:
        if item.attrs.get_id(name).shape != ():
            continue
        value = item.attrs[name]
        text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
        found[name] = text[:MAX_TEXT]
    return found
