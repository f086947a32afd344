"""Slide lists of other tools, as rows of raystp's slide table.

| whose | its columns | read as |
|---|---|---|
| TRIDENT | `wsi`, `mpp` | path, mpp |
| slide2vec | `sample_id`, `image_path`, `spacing_at_level_0`, `patient_id` | slide, path, mpp, patient |
| STAMP | `PATIENT`, `FILENAME` | patient, path |
| HEST | `id`, `patient`, `dataset_title`, `pixel_size_um_estimated` | slide, patient, mpp; files by HEST's folders |

A table with a column `path` is raystp's own. A column that raystp knows keeps its meaning in a table of another tool.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from raystp.errors import ConfigError, some
from raystp.slides.inputs.ids import stem_of
from raystp.slides.inputs.listing import is_slide_name
from raystp.storage import StoragePath
from raystp.storage.text_files import TextRow, TextTable

Cells = dict[str, str]

NO_VALUE = frozenset({"", "nan", "none", "na", "n/a", "null"})
"""How pandas and others write a cell without a value, in lower case."""
MAX_SIDECAR = 1 << 20
"""Bytes of HEST's JSON about a slide at most; they have about 1 KB."""


@dataclass(frozen=True)
class Scheme:
    """The columns of one tool's table; the names of its columns are compared without regard to case."""

    tool: str
    keys: frozenset[str]
    """The columns by which it is recognised."""
    columns: Mapping[str, str]
    """Its column -> raystp's."""
    unread: Mapping[str, str] = field(default_factory=dict)
    """A column that is known and not read -> what to do instead."""
    complete: Callable[[TextTable, StoragePath], tuple[TextTable, list[str]]] | None = None
    """Adds what other files of the tool say; the folder is where relative paths start."""


@dataclass(frozen=True)
class Adopted:
    """A table in raystp's columns, and sentences on what was taken for what."""

    table: TextTable
    tool: str | None = None
    notes: tuple[str, ...] = ()


def adopt(table: TextTable, base: StoragePath) -> Adopted:
    """Return a table in raystp's columns; one of raystp's own is returned unchanged.

    Relative paths start from `base`. Raises ConfigError for files of a tool that do not fit its table.
    """
    lower = {name.lower() for name in table.columns}
    scheme = next((one for one in SCHEMES if one.keys <= lower and "path" not in lower), None)
    if scheme is None:
        return Adopted(table)
    new_name = {name: scheme.columns[name.lower()] for name in table.columns if name.lower() in scheme.columns}
    taken = {name: new for name, new in new_name.items() if name == new or new not in table.columns}
    rows = [TextRow(row.line, {taken.get(name, name): cell for name, cell in row.cells.items()}) for row in table.rows]
    unread = [name for name in table.columns if name.lower() in scheme.unread]
    columns = [taken.get(name, name) for name in table.columns if name not in unread]
    renamed = ", ".join(f"{old!r} as {new}" for old, new in taken.items() if old != new)
    notes = [f"columns of {scheme.tool}: {renamed} read" if renamed else f"columns of {scheme.tool}"]
    notes += [f"the column {name!r} is not read: {scheme.unread[name.lower()]}" for name in unread]
    found = replace(table, columns=columns, rows=rows)
    if scheme.complete is not None:
        found, more = scheme.complete(found, base)
        notes += more
    return Adopted(found, scheme.tool, tuple(notes))


def _features_to_slides(table: TextTable, base: StoragePath) -> tuple[TextTable, list[str]]:
    """Return STAMP's table with the slides whose features its files are (`<slide>.h5`), found below `base`."""
    wanted = {row.cells["path"] for row in table.rows if row.cells["path"].lower().endswith(".h5")}
    if not wanted:
        return table, []
    by_stem: dict[str, list[str]] = {}
    for name in base.files():
        if is_slide_name(name):
            by_stem.setdefault(stem_of(name), []).append(name)
    rows = []
    for row in table.rows:
        name = row.cells["path"]
        found = by_stem.get(stem_of(name), []) if name in wanted else [name]
        if len(found) != 1:
            slides = f"the slides {some(found)}" if found else "no slide"
            msg = (
                f"{table.where}, line {row.line}: {name!r} is a file of features, and {base} has {slides} named "
                f"{stem_of(name)}; set `root` to the folder of the slides"
            )
            raise ConfigError(msg)
        rows.append(TextRow(row.line, {**row.cells, "path": found[0]}))
    return replace(table, rows=rows), [f"{len(wanted)} names of feature files stand for the slides of these names"]


def _hest_files(table: TextTable, base: StoragePath) -> tuple[TextTable, list[str]]:
    """Return HEST's table with the files of each sample that is below `base`: slide, spots, um/px."""
    here = set((base / "wsis").names())
    rows, alone = [], 0
    for row in table.rows:
        name = row.cells["slide"]
        if f"{name}.tif" not in here:
            continue
        study, patient = (_value(row, column) for column in ("dataset_title", "patient"))
        alone += not patient
        cells = {"path": f"wsis/{name}.tif", "patient": f"{study}/{patient or name}".lstrip("/")}
        spots = {"layout": "hest", "counts": f"st/{name}.h5ad"}
        mpp = _value(row, "mpp") or _hest_mpp(base, name)
        rows.append(TextRow(row.line, {**row.cells, **spots, **cells, "mpp": mpp}))
    if not rows:
        has = f"{base / 'wsis'} has the slide of none; set `root` to HEST's folder"
        msg = f"{table.where} lists {len(table.rows)} samples of HEST, and {has}"
        raise ConfigError(msg)
    left = len(table.rows) - len(rows)
    notes = [f"{left} of {len(table.rows)} samples have no slide in {base / 'wsis'} and are left out"] if left else []
    notes += [f"{alone} samples have no patient: each counts as a patient of its own, so siblings may be split"] * bool(
        alone
    )
    own = ["slide", "path", "patient", "mpp", "layout", "counts"]
    others = [name for name in table.columns if name not in {*own, "dataset_title"} and name.startswith("x_")]
    return replace(table, columns=[*own, *others], rows=rows), notes


def _value(row: TextRow, column: str) -> str:
    """Return a cell; empty where it stands for no value."""
    cell = row.cells.get(column, "")
    return "" if cell.lower() in NO_VALUE else cell


def _hest_mpp(base: StoragePath, name: str) -> str:
    """Return the um/px that HEST estimated from the spots' distances; empty if its file does not say it."""
    file = base / "metadata" / f"{name}.json"
    if not file.exists() or file.size() > MAX_SIDECAR:
        return ""
    try:
        value = json.loads(file.read_bytes()).get("pixel_size_um_estimated")
    except (ValueError, AttributeError):
        return ""
    return f"{value}" if isinstance(value, int | float) else ""


SCHEMES = (
    Scheme("TRIDENT", frozenset({"wsi"}), {"wsi": "path", "mpp": "mpp"}),
    Scheme(
        "slide2vec",
        frozenset({"image_path"}),
        {"sample_id": "slide", "image_path": "path", "spacing_at_level_0": "mpp", "patient_id": "patient"},
        {"mask_path": "give masks as GeoJSON through `masks` of `raystp tile`"},
    ),
    Scheme(
        "STAMP",
        frozenset({"filename"}),
        {"patient": "patient", "filename": "path"},
        complete=_features_to_slides,
    ),
    Scheme(
        "HEST",
        frozenset({"id", "dataset_title"}),
        {"id": "slide", "patient": "patient", "pixel_size_um_estimated": "mpp"},
        complete=_hest_files,
    ),
)
"""The tables that are recognised, the first that fits."""
