"""The slides that the user gives: a table with one row per slide, or a folder, glob or prefix of slide files.

A table is CSV (commas, semicolons or tabs), .xlsx or parquet. Its columns are `path`, `slide` (by default the file's
name), `patient` (which measured sections need), and optionally `mpp` (um/px of the scan; empty for the slide's own).
For measured spots on this slide it also has `layout`, `counts`, `positions`, `section` and `spot_px` (for legacy ST
without positions: pixels per array step), `pitch_um` (distance of neighbouring spots, if not the technology's),
`library` (of a file with several), `image` (`hires` or `lowres`, where the slide is Space Ranger's picture),
`counts_layer` (of an h5ad), `bin_um` (of Visium HD) and `pool_um` (side of the squares of Visium HD and Xenium).
Relative paths start from `root`, by default the table's own folder. Columns `x_*` are covariates; other columns are not
read, and a warning names them. `inputs.schemes` has the columns of other tools that are read for these.
"""

import difflib
import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from raystp.artifacts import resolve
from raystp.errors import ConfigError, quoted, some
from raystp.slides.inputs.ids import barcode_patient, slide_ids
from raystp.slides.inputs.listing import FoundSlides, find_slides, is_patch_name, is_pattern, is_slide_name
from raystp.slides.inputs.qupath import is_project, read_project
from raystp.slides.inputs.schemes import adopt
from raystp.slides.inputs.sheets import read_sheet
from raystp.storage import StoragePath, is_safe_name
from raystp.storage.text_files import TextTable, parse_number

logger = logging.getLogger("raystp")

REQUIRED = ("path",)
NAMES = ("slide", "patient")
OPTIONAL = (
    "mpp",
    "layout",
    "counts",
    "positions",
    "section",
    "spot_px",
    "pitch_um",
    "library",
    "image",
    "counts_layer",
    "bin_um",
    "pool_um",
)
ALL_COLUMNS = ("slide", "path", "patient", *OPTIONAL)
FACTS = ("width", "height", "vendor", "problem")
"""Columns that `raystp slides` writes about each file; no step reads them."""

COVARIATE = "x_"
"""Start of the name of a column with a covariate."""

NOT_AVAILABLE = frozenset({"na", "n/a", "none", "null"})
"""How R, pandas and databases write an empty cell."""

_LIKE = 0.75
"""From this similarity on (difflib's ratio), an unknown column is taken for a misspelt one."""

_UNITS = {
    "mpp": r"(um|µm|μm|micron|microns|mpp)(/(px|pixel))?",
    "spot_px": "(px|pixels?)",
    "pitch_um": r"(um|µm|μm|micron|microns)",
    "bin_um": r"(um|µm|μm|micron|microns)",
    "pool_um": r"(um|µm|μm|micron|microns)",
}
_MPP_RANGE = (0.01, 100.0)


@dataclass(frozen=True)
class SlideRow:
    """One slide of the table."""

    slide: str
    path: StoragePath
    patient: str
    """Empty if it is unknown, which only a slide without measured spots may be."""
    mpp: float | None
    layout: str | None
    counts: StoragePath | None
    positions: StoragePath | None
    section: str
    spot_px: float | None
    covariates: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Cells of the columns `x_*`."""
    pitch_um: float | None = None
    library: str | None = None
    image: str | None = None
    counts_layer: str | None = None
    bin_um: float | None = None
    pool_um: float | None = None


def read_slide_table(table: str, root: str | None, store: str) -> list[SlideRow]:
    """Read the slides of a table, folder, glob or prefix; `demo/<name>` is the table of a demo cohort in the store.

    A folder has no measured spots, and patients only by TCGA barcodes. What was taken for what, and warnings, are
    logged. Raises ConfigError, with line and column, for an invalid table.
    """
    rows, where, notes, warnings = _read(table, root, store)
    for note in notes:
        logger.info(f"  {where}: {note}")
    for warning in warnings:
        logger.warning(f"  {where}: {warning}")
    return rows


def check_slide_table(table: str, root: str | None, store: str) -> list[SlideRow]:
    """Return the rows as `read_slide_table` does, without a message: the step that reads the slides logs them."""
    return _read(table, root, store)[0]


def _read(table: str, root: str | None, store: str) -> tuple[list[SlideRow], str, Sequence[str], Sequence[str]]:
    """Return the rows, where they are from, notes and warnings."""
    path = resolve(store, table, "demo").path / "slides.csv" if table.startswith("demo/") else StoragePath.of(table)
    if is_pattern(table) or path.is_folder():
        return _listed(find_slides(table, store=store), str(StoragePath.of(table)))
    if not path.exists():
        msg = (
            f"slides: no slide table at {path}; it is a CSV with the columns {', '.join(ALL_COLUMNS)}, a folder of "
            "slides, a glob, or a prefix of an object store"
        )
        raise ConfigError(msg)
    if is_slide_name(path.name) or is_patch_name(path.name):
        return _listed(FoundSlides(path.parent, [path.name], []), str(path))
    base = StoragePath.of(root) if root is not None else path.parent
    adopted = read_project(path, base) if is_project(path.name) else adopt(read_sheet(path, known=ALL_COLUMNS), base)
    name_of, warnings = _columns(adopted.table)
    cells = [{name_of[name]: cell for name, cell in row.cells.items() if name in name_of} for row in adopted.table.rows]
    named = _with_names(cells, has_ids="slide" in name_of.values())
    rows = [_row(f"{path}, line {row.line}", one, base) for row, one in zip(adopted.table.rows, named, strict=True)]
    _check_rows(path, rows)
    return rows, str(path), adopted.notes, warnings + _patient_warnings(rows)


def _listed(found: FoundSlides, where: str) -> tuple[list[SlideRow], str, Sequence[str], Sequence[str]]:
    """Return the rows of slide files that no table describes, and warnings."""
    ids, paths = found.ids(), found.paths()
    rows = [
        _row(where, {"slide": one, "path": path.uri, "patient": barcode_patient(one)}, found.base)
        for one, path in zip(ids, paths, strict=True)
    ]
    return rows, where, (), [*found.notes, *_patient_warnings(rows)]


def _with_names(rows: list[dict[str, str]], *, has_ids: bool) -> list[dict[str, str]]:
    """Return the rows' cells with ids and patients that their file names give, where the table has none."""
    if not has_ids:
        ids = slide_ids([row.get("path", "") for row in rows])
        rows = [{**row, "slide": one} for row, one in zip(rows, ids, strict=True)]
    return [{**row, "patient": row.get("patient") or barcode_patient(row["slide"])} for row in rows]


def _columns(table: TextTable) -> tuple[dict[str, str], list[str]]:
    """Return column of the file -> column of a slide table, and warnings; raise ConfigError for missing ones."""
    known = ALL_COLUMNS + FACTS
    name_of = {name: name.lower() if name.lower() in known else name for name in table.columns}
    other = [name for name in table.columns if name_of[name] not in known and not name.startswith(COVARIATE)]
    absent = [name for name in ALL_COLUMNS if name not in name_of.values()]
    faults = [f"lacks the column {some(missing)}"] if (missing := [n for n in REQUIRED if n in absent]) else []
    if repeated := [name for name, times in Counter(name_of.values()).items() if times > 1]:
        faults.append(f"has the column {some(repeated)} more than once")
    likes = {name: difflib.get_close_matches(name.lower(), absent, n=1, cutoff=_LIKE) for name in other}
    faults += [
        f"has an unknown column {name!r}, did you mean {like[0]!r}? (or name it {COVARIATE}{name})"
        for name, like in likes.items()
        if like
    ]
    if faults:
        allowed = f"a slide table has {', '.join(REQUIRED)} and may have {', '.join(NAMES + OPTIONAL)}"
        found = f"; this one has {some(table.columns, 10) or 'none'}" if missing else ""
        msg = f"{table.where} {' and '.join(faults)}; {allowed}{found}"
        raise ConfigError(msg)
    recased = [name for name in table.columns if name != name_of[name]]
    warnings = [f"the column {some(recased)} is read as {some([name_of[n] for n in recased])}"] if recased else []
    if other:
        warnings.append(f"the columns {some(other)} are not read; name a covariate {COVARIATE}<name>")
    if table.unnamed:
        warnings.append(f"column {', '.join(map(str, table.unnamed))} has no name and is not read")
    return {name: new for name, new in name_of.items() if name not in other}, warnings


def _check_rows(path: StoragePath, rows: list[SlideRow]) -> None:
    if not rows:
        msg = f"{path} has no slide; add one row per slide"
        raise ConfigError(msg)
    for column, names in (("slide", [row.slide for row in rows]), ("section", [row.section for row in rows])):
        repeated = sorted(name for name, times in Counter(names).items() if times > 1)
        if repeated:
            msg = f"{path} has the {column} {some(repeated)} more than once; each needs its own id"
            raise ConfigError(msg)


def _patient_warnings(rows: list[SlideRow]) -> list[str]:
    """Return warnings about patients that may be one patient, or none: a split by patient depends on the names."""
    patients = list(dict.fromkeys(row.patient for row in rows if row.patient))
    spellings: dict[str, list[str]] = {}
    for patient in patients:
        spellings.setdefault(re.sub(r"[\s_.-]+", "", patient).casefold(), []).append(patient)
    same = [some(names) for names in spellings.values() if len(names) > 1]
    warnings = [f"the patients {names} count as different patients; is it one?" for names in same]
    empty = [patient for patient in patients if patient.casefold() in NOT_AVAILABLE]
    if unknown := sum(not row.patient for row in rows):
        warnings.append(f"{unknown} of {len(rows)} slides have no `patient`: no case is trained or scored on them")
    return warnings + [f"patient {name!r} is taken as one patient's name" for name in empty]


def _row(where: str, cells: Mapping[str, str], base: StoragePath) -> SlideRow:
    measured = ("patient",) if cells.get("layout", "").lower() not in {"", *NOT_AVAILABLE} else ()
    for name in ("slide", *REQUIRED, *measured):
        if not cells.get(name):
            why = "; a measured section needs its patient, which decides where it may be tested" * (name in measured)
            msg = f"{where}: the column {name!r} is empty{why}"
            raise ConfigError(msg)
    optional = {name: "" if cells.get(name, "").lower() in NOT_AVAILABLE else cells.get(name, "") for name in OPTIONAL}
    section = optional["section"] or cells["slide"]
    for name in (cells["slide"], section):
        if not is_safe_name(name):
            msg = f"{where}: {quoted(name)} is not a valid id; use up to 128 letters, digits, '.', '_' and '-'"
            raise ConfigError(msg)
    layout, counts = optional["layout"], optional["counts"]
    if bool(layout) != bool(counts):
        msg = f"{where}: set both `layout` and `counts`, or neither; got {quoted(layout)} and {quoted(counts)}"
        raise ConfigError(msg)
    return SlideRow(
        slide=cells["slide"],
        path=_path(cells["path"], base),
        patient=unicodedata.normalize("NFC", cells.get("patient", "")),
        mpp=_number(optional, "mpp", where),
        layout=layout or None,
        counts=_path(counts, base) if counts else None,
        positions=_path(optional["positions"], base) if optional["positions"] else None,
        section=section,
        spot_px=_number(optional, "spot_px", where),
        covariates={name: cell for name, cell in cells.items() if name.startswith(COVARIATE)},
        pitch_um=_number(optional, "pitch_um", where),
        library=optional["library"] or None,
        image=optional["image"] or None,
        counts_layer=optional["counts_layer"] or None,
        bin_um=_number(optional, "bin_um", where),
        pool_um=_number(optional, "pool_um", where),
    )


def _number(cells: Mapping[str, str], column: str, where: str) -> float | None:
    """Return a number above 0, with or without its unit; None for an empty cell."""
    text = cells[column]
    if not text:
        return None
    number = parse_number(re.sub(rf"\s*{_UNITS[column]}$", "", text, flags=re.IGNORECASE))
    if number is None or not 0 < number < float("inf"):
        unit = {"mpp": "um/px", "spot_px": "px"}.get(column, "um")
        msg = f"{where}: {column} is {quoted(text)}; expected a number above 0, such as 0.5, in {unit}"
        raise ConfigError(msg)
    if column == "mpp" and not _MPP_RANGE[0] <= number <= _MPP_RANGE[1]:
        msg = f"{where}: mpp is {quoted(text)}; expected um/px from {_MPP_RANGE[0]} to {_MPP_RANGE[1]:g}: are these nm?"
        raise ConfigError(msg)
    return number


def _path(text: str, base: StoragePath) -> StoragePath:
    is_absolute = "://" in text or text.startswith(("/", "~/"))
    return StoragePath.of(text) if is_absolute else base / text
