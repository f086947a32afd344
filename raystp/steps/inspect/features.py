"""Tiles and vectors of other tools: what a folder or file is, and the command that imports it."""

import shlex
from collections.abc import Callable
from typing import Any

import h5py

from raystp.errors import RaystpError, failure_reason
from raystp.interop.choice import FolderChoice
from raystp.interop.features.encoders import match_card
from raystp.interop.features.trident import GRID
from raystp.interop.recognise import format_of_folder, format_of_hdf5
from raystp.interop.registry import FEATURES, FeatureFormat
from raystp.steps.inspect.report import Inspection
from raystp.storage import StoragePath

MAX_TEXT = 120
MAX_ATTRIBUTES = 32
MAX_SLIDES = 8
_H5 = (".h5", ".hdf5")


def report_of_features(path: StoragePath, file: h5py.File, facts: dict[str, Any]) -> Inspection | None:
    """Return what a file of features is: rows, dimension, encoder and tile side, as far as it states them.

    None for a file without vectors.
    """
    name = format_of_hdf5(file, path)
    if name is None:
        return _tiles_alone(path, file, facts)
    form = FEATURES[name]
    features = file.get("features", file.get("feats"))
    blocks = dict(features.items()) if isinstance(features, h5py.Group) else {"": features}
    found = {**facts, **_attributes(file), **_attributes(features), **_attributes(file.get("coords"))}
    if isinstance(features, h5py.Group):
        found["encoders"] = sorted(blocks)
    for encoder, block in blocks.items():
        found |= _card(name, encoder or found.get("encoder") or found.get("extractor"), block)
    read_as = _command(form, path.parent, "" if len(blocks) < 2 else sorted(blocks)[0])  # noqa: PLR2004 -- several
    problem = _problem(file, blocks)
    return Inspection(str(path), f"tile features, as of {form.tool}", read_as, problem, found)


def _tiles_alone(path: StoragePath, file: h5py.File, facts: dict[str, Any]) -> Inspection | None:
    """Return what a file of coordinates without vectors is, by the folder above its own; None in another folder."""
    folder = path.parent.parent
    name = format_of_folder(folder, set(folder.names())) if set(file) == {"coords"} else None
    if name is None:
        return None
    form, found = FEATURES[name], {**facts, **_attributes(file["coords"])}
    return Inspection(str(path), f"places of tiles, as of {form.tool}", _command(form, folder), facts=found)


def _problem(file: h5py.File, blocks: dict[str, Any]) -> str:
    """Return why vectors would not be read: no coordinates, or another number of them."""
    coords = file.get("coords")
    if not isinstance(coords, h5py.Dataset) or not coords.shape:
        return "it has vectors and no coordinates: the places of its tiles are not known"
    for name, block in blocks.items():
        rows = block.shape[0] if isinstance(block, h5py.Dataset) and block.shape else 0
        if rows != coords.shape[0]:
            return f"{name or 'features'} has {rows} rows and coords {coords.shape[0]}: damaged, or not of tiles"
    return ""


def _card(form: str, encoder: Any, block: Any) -> dict[str, str]:
    """Return what the encoder of a block is in raystp."""
    if not isinstance(encoder, str) or len(getattr(block, "shape", None) or ()) != 2:  # noqa: PLR2004 -- tile x dim
        return {}
    return {f"encoder {encoder}": match_card(form, encoder, int(block.shape[1]))[1]}


def report_of_feature_folder(
    path: StoragePath, names: set[str], report: Callable[[StoragePath], Inspection]
) -> Inspection | None:
    """Return what a folder of tiles and vectors is, or a folder of HDF5 files; None for another folder."""
    name = format_of_folder(path, names)
    if name is not None:
        return _of_folder(FEATURES[name], path, names)
    files = sorted(name for name in names if name.endswith(_H5))
    first = next((name for name in files if not (path / name).is_folder()), None)
    if first is None:
        return None
    found = report(path / first)
    facts = {"files": len(files), "first": first, **found.facts}
    return Inspection(str(path), f"folder of HDF5 files, the first: {found.kind}", found.read_as, found.problem, facts)


def _of_folder(form: FeatureFormat, path: StoragePath, names: set[str]) -> Inspection:
    """Return the slides and the encoder of a tool's folder, as the import finds them, or why it finds none."""
    grids = [path / name for name in sorted(names) if GRID.match(name)]
    grids += [path] if GRID.match(path.name) else []
    facts: dict[str, Any] = {grid.name: _counts(grid) for grid in grids}
    kind = f"tiles and vectors of {form.tool}"
    try:
        found = form.find(path, FolderChoice())
    except RaystpError as error:
        return Inspection(str(path), kind, _command(form, path), failure_reason(error), facts)
    slides = [one.slide for one in found.slides]
    facts |= {"slides": len(slides), "first": slides[:MAX_SLIDES], "encoder": found.encoder or "not named"}
    facts |= {"notes": list(found.notes)} if found.notes else {}
    missing = "" if found.encoder else "NAME"
    return Inspection(str(path), kind, _command(form, path, missing), facts=facts)


def _command(form: FeatureFormat, folder: StoragePath, encoder: str = "") -> str:
    """Return the command that imports a folder; TABLE and NAME are to be filled in."""
    command = f"raystp import {form.name} {shlex.quote(folder.with_query())}"
    command += "" if form.carries_mpp else " --slides TABLE"
    return command + (f" --encoder-name {encoder}" if encoder else "")


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
