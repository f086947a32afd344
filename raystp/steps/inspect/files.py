"""What a file or folder is, from its first bytes, names and headers. No data of it is read."""

import json
from collections.abc import Callable
from typing import Any

import h5py
import pyarrow as pa
import pyarrow.parquet as pq

from raystp.errors import RaystpError, SectionError, failure_reason
from raystp.hdf5 import checked_hdf5
from raystp.slides.inputs.ids import barcode_patient, slide_ids
from raystp.slides.inputs.listing import find_slides, is_slide_name
from raystp.slides.inputs.schemes import adopt
from raystp.slides.inputs.sheets import read_sheet
from raystp.slides.inputs.survey import header_cells, read_one
from raystp.slides.table import ALL_COLUMNS, SlideRow, read_slide_table
from raystp.steps.inspect.features import report_of_feature_folder, report_of_features
from raystp.steps.inspect.others import report_of_other
from raystp.steps.inspect.report import Inspection
from raystp.steps.inspect.sections import (
    EXPERIMENT,
    layout_of_h5ad,
    report_of_matrix,
    report_of_section_folder,
    row_of,
)
from raystp.storage import StoragePath

MAX_JSON = 32 << 20
MAX_H5_NAMES = 24
MAX_COLUMNS = 200
"""A table with more columns has counts of genes, and is no slide table."""
_HDF5, _PARQUET = b"\x89HDF\r\n\x1a\n", b"PAR1"
_TABLES = (".csv", ".tsv", ".txt", ".xlsx", ".gz")


def report_of_file(path: StoragePath) -> Inspection:
    """Return what a file is; one that cannot be read has its problem."""
    with path.open() as file:
        head = bytes(file.read(8))
    kinds: list[tuple[bool, Callable[[StoragePath], Inspection]]] = [
        (head.startswith(_HDF5), _hdf5),
        (head.startswith(_PARQUET), _parquet),
        (is_slide_name(path.name), _slide),
        (path.name == "card.json", lambda path: _published(path.parent)),
        (path.name == EXPERIMENT, lambda path: report_of_folder(path.parent)),
        (path.name.endswith(".safetensors"), _tensors),
        (path.name.lower().endswith(_TABLES), _table),
    ]
    found = next((report for fits, report in kinds if fits), None)
    try:
        return found(path) if found is not None else report_of_other(path) or _slide(path)
    except RaystpError as error:
        return Inspection(str(path), "file that cannot be read", problem=failure_reason(error))


def report_of_folder(path: StoragePath) -> Inspection:
    """Return what a folder is that is no artifact."""
    names = set(path.names())
    if "card.json" in names:
        return _published(path)
    if "model.json" in names:
        return Inspection(str(path), "stored model without its manifest", "model of `predict`", facts=_model(path))
    if names & {"zarr.json", ".zgroup", ".zattrs", ".zarray"}:
        return report_of_feature_folder(path, names, report_of_file) or _zarr(path, names)
    if section := report_of_section_folder(path, names):
        return section
    if any(is_slide_name(name) for name in names):
        return _slides(path)
    return report_of_feature_folder(path, names, report_of_file) or _slides(path)


def _slides(path: StoragePath) -> Inspection:
    """Return what a folder of slides has; one without a slide has its problem."""
    try:
        found = find_slides(path.with_query(), store="/")
    except RaystpError as error:
        return Inspection(str(path), "folder", problem=str(error))
    facts: dict[str, Any] = {"slides": len(found.names), "first": found.ids()[:8]}
    facts |= {"notes": found.notes} if found.notes else {}
    return Inspection(str(path), "folder of slides", "`slides` of every step", facts=facts)


def _slide(path: StoragePath, kind: str = "slide") -> Inspection:
    (name,) = slide_ids([path.name])
    row = SlideRow(name, path, barcode_patient(name), None, None, None, None, name, None)
    header = read_one(row)
    cells = header_cells(header)
    facts = {key: cells[key] for key in ("width", "height", "mpp", "vendor") if cells[key]}
    if kind == "slide" and header.problem and not header.vendor and not is_slide_name(path.name):
        return Inspection(str(path), "file of an unknown kind", problem=header.problem)
    wanted = {key: cells[key] for key in ("slide", "path", "patient", "mpp")}
    return Inspection(str(path), kind, "`path` of a slide table", header.problem, facts, wanted)


def _table(path: StoragePath) -> Inspection:
    table = read_sheet(path, known=ALL_COLUMNS)
    facts: dict[str, Any] = {"columns": table.columns, "rows": len(table.rows)}
    if len(table.columns) > MAX_COLUMNS:
        row = row_of(path, "", layout="legacy_st", counts=path.with_query())
        return Inspection(str(path), "table of counts", "`counts` of a slide table", facts=facts, row=row)
    tool = adopt(table, path.parent).tool
    try:
        rows = read_slide_table(path.with_query(), None, "/none")
    except RaystpError as error:
        return Inspection(str(path), "table", problem=f"as a slide table: {error}", facts=facts)
    facts |= {"slides": len(rows), "measured sections": sum(row.layout is not None for row in rows)}
    facts |= {"patients": len({row.patient for row in rows if row.patient})}
    kind = "slide table" + (f" of {tool}" if tool else "")
    return Inspection(str(path), kind, "`slides` of every step", facts=facts)


def _parquet(path: StoragePath) -> Inspection:
    try:
        with path.open() as opened, pq.ParquetFile(opened) as file:
            names, rows = list(file.schema_arrow.names), file.metadata.num_rows
    except (OSError, pa.ArrowException) as error:
        return Inspection(str(path), "file that cannot be read", problem=f"as a parquet file: {error}")
    if "path" in names or {"wsi", "image_path"} & set(names):
        return _table(path)
    return Inspection(str(path), "parquet table", facts={"columns": names, "rows": rows})


def _hdf5(path: StoragePath) -> Inspection:
    """Return what an HDF5 file is by its groups; `checked_hdf5` refuses links and objects."""
    with checked_hdf5(path, SectionError) as local, h5py.File(local, "r") as file:
        names = set(file)
        shapes = {name: one for name in sorted(names)[:MAX_H5_NAMES] if (one := _shape(file[name]))}
        if {"obs", "var"} <= names:
            return _anndata(path, file)
        if "matrix" in names:
            return report_of_matrix(path, file, shapes)
        if {"img", "coords"} <= names:
            return _slide(path, "image patches")
        unknown = "it has none of the groups that raystp knows"
        of_tool = report_of_features(path, file, shapes)
        return of_tool or Inspection(str(path), "HDF5 file", facts=shapes, problem=unknown)


def _anndata(path: StoragePath, file: h5py.File) -> Inspection:
    own = _scalars(file.get("uns/raystp"))
    x = file.get("X")
    is_sparse = isinstance(x, h5py.Group) and "shape" in x.attrs
    shape = f"{[int(one) for one in x.attrs['shape']]} sparse" if is_sparse else _shape(x)
    obsm = list(file["obsm"]) if "obsm" in file else []
    layers = list(file["layers"]) if "layers" in file else []
    facts: dict[str, Any] = {"X": shape, "obsm": obsm, "layers": layers, **own}
    if "model" in own:
        return Inspection(str(path), "predicted expression of raystp (AnnData)", "any reader of AnnData", facts=facts)
    kind = "measured section of raystp (AnnData)" if "section" in own else "AnnData"
    spatial = "spatial" in obsm
    problem = "" if spatial else "it has no obsm['spatial'], so its spots have no positions"
    row = row_of(path, str(own.get("patient", "")), layout=layout_of_h5ad(path), counts=path.with_query())
    row["slide"] = str(own.get("slide", "")) or row["slide"]
    row["mpp"] = str(own.get("mpp", ""))
    return Inspection(str(path), kind, "`counts` of a slide table" if spatial else "", problem, facts, row)


def _scalars(group: object) -> dict[str, Any]:
    """Return the texts and numbers of a group of HDF5."""
    if not isinstance(group, h5py.Group):
        return {}
    found = {name: one[()] for name, one in group.items() if isinstance(one, h5py.Dataset) and one.shape == ()}
    return {name: one.decode(errors="replace") if isinstance(one, bytes) else one.item() for name, one in found.items()}


def _shape(item: object) -> str:
    return f"{list(item.shape)} {item.dtype}" if isinstance(item, h5py.Dataset) else ""


def _zarr(path: StoragePath, names: set[str]) -> Inspection:
    attributes: dict[str, Any] = {}
    for name in ("zarr.json", ".zattrs"):
        if name in names and (path / name).size() <= MAX_JSON:
            try:
                values = json.loads((path / name).read_bytes())
            except ValueError:
                continue
            attributes |= values.get("attributes", values) if isinstance(values, dict) else {}
    is_table = {"obs", "var"} <= names
    kinds = {"spatialdata_attrs": "SpatialData store", "ome": "OME-Zarr image", "multiscales": "OME-Zarr image"}
    kind = next((word for key, word in kinds.items() if key in attributes), "AnnData in zarr" if is_table else "zarr")
    problem = "zarr stores are not read as slides or sections; save the table as h5ad, or the image as tiled TIFF"
    return Inspection(str(path), kind, facts={"entries": sorted(names)[:MAX_H5_NAMES]}, problem=problem)


def _published(path: StoragePath) -> Inspection:
    from raystp.steps.publish.card import read_card  # noqa: PLC0415 -- imports torch

    card = read_card(path)
    blocks = [one.model_dump(mode="json") for one in card.features]
    facts = {"name": card.name, "method": card.kind, "source": card.source, "licence": card.licence}
    facts |= {"panel": card.panel, "protocol": card.protocol}
    more: dict[str, Any] = {"genes": len(card.genes), "features": blocks, "raystp": card.raystp}
    return Inspection(str(path), "published model", "`model` of `predict`", facts=facts | more)


def _model(path: StoragePath) -> dict[str, Any]:
    if (path / "model.json").size() > MAX_JSON:
        return {}
    try:
        values = json.loads((path / "model.json").read_bytes())
    except ValueError:
        return {"model.json": "damaged"}
    return {key: values[key] for key in ("kind", "protocol", "d_image", "test") if key in values}


def _tensors(path: StoragePath) -> Inspection:
    """Return the tensors of a safetensors file, from its header."""
    with path.open() as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= MAX_JSON:
            return Inspection(str(path), "safetensors file", problem=f"its header states {length} bytes: it is damaged")
        try:
            header = json.loads(file.read(length))
        except ValueError:
            return Inspection(str(path), "safetensors file", problem="its header is damaged")
    shapes = {name: f"{one['shape']} {one['dtype']}" for name, one in header.items() if name != "__metadata__"}
    return Inspection(str(path), "weights (safetensors)", "`weights` of an encoder", facts={"tensors": shapes})
