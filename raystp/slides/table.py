"""The slide table: a CSV that the user writes, one row per slide.

Its columns are `slide`, `path`, `patient`, and optionally `mpp` (um/px of the scan; empty for the slide's own). For
measured spots on this slide it also has `layout`, `counts`, `positions`, `section` and `spot_px` (for legacy ST without
positions: pixels per array step). Relative paths start from `root`, by default the table's own folder.
"""

import csv
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from raystp.artifacts import resolve
from raystp.errors import ConfigError, some
from raystp.storage import StoragePath, is_safe_name

REQUIRED = ("slide", "path", "patient")
OPTIONAL = ("mpp", "layout", "counts", "positions", "section", "spot_px")


@dataclass(frozen=True)
class SlideRow:
    """One slide of the table."""

    slide: str
    path: StoragePath
    patient: str
    mpp: float | None
    layout: str | None
    counts: StoragePath | None
    positions: StoragePath | None
    section: str
    spot_px: float | None


def read_slide_table(table: str, root: str | None, store: str) -> list[SlideRow]:
    """Read the table; `demo/<name>` is the table of a demo cohort in the store.

    Raises:
        ConfigError: the table is invalid; the message has the row and the column.
    """
    path = resolve(store, table, "demo").path / "slides.csv" if table.startswith("demo/") else StoragePath.of(table)
    base = StoragePath.of(root) if root is not None else path.parent
    if not path.exists():
        msg = f"slides: no slide table at {path}; it is a CSV with the columns {', '.join(REQUIRED + OPTIONAL)}"
        raise ConfigError(msg)
    try:
        reader = csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8-sig")), restval="")
        _check_columns(path, reader.fieldnames or [])
        rows = [_row(f"{path}, line {reader.line_num}", row, base) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        msg = f"{path} is not a CSV in UTF-8 ({error}): save it as one"
        raise ConfigError(msg) from None
    _check_rows(path, rows)
    return rows


def _check_columns(path: StoragePath, columns: Sequence[str]) -> None:
    missing = [name for name in REQUIRED if name not in columns]
    unknown = [name for name in columns if name not in REQUIRED + OPTIONAL]
    repeated = [name for name, times in Counter(columns).items() if times > 1]
    if missing or unknown or repeated:
        faults = [f"lacks the column {some(missing)}"] if missing else []
        faults += [f"has an unknown column {some(unknown)}"] if unknown else []
        faults += [f"has the column {some(repeated)} more than once"] if repeated else []
        msg = (
            f"{path} {' and '.join(faults)}; a slide table has {', '.join(REQUIRED)} and may have {', '.join(OPTIONAL)}"
        )
        raise ConfigError(msg)


def _check_rows(path: StoragePath, rows: list[SlideRow]) -> None:
    if not rows:
        msg = f"{path} has no slide; add one row per slide"
        raise ConfigError(msg)
    for column, names in (("slide", [row.slide for row in rows]), ("section", [row.section for row in rows])):
        repeated = sorted(name for name, times in Counter(names).items() if times > 1)
        if repeated:
            msg = f"{path} has the {column} {some(repeated)} more than once; each needs its own id"
            raise ConfigError(msg)


def _row(where: str, cells: Mapping[str | None, str | list[str]], base: StoragePath) -> SlideRow:
    surplus = cells.get(None)
    if isinstance(surplus, list):
        msg = f"{where}: there are more cells than columns, {some(surplus)} too many; quote a cell that has a comma"
        raise ConfigError(msg)
    values = {str(column): cell.strip() for column, cell in cells.items() if isinstance(cell, str)}
    for name in REQUIRED:
        if not values.get(name):
            msg = f"{where}: the column {name!r} is empty"
            raise ConfigError(msg)
    section = values.get("section") or values["slide"]
    for name in (values["slide"], section):
        if not is_safe_name(name):
            msg = f"{where}: {name!r} is not a valid id; use up to 128 letters, digits, '.', '_' and '-'"
            raise ConfigError(msg)
    layout, counts = values.get("layout", ""), values.get("counts", "")
    if bool(layout) != bool(counts):
        msg = f"{where}: set both `layout` and `counts`, or neither; got {layout!r} and {counts!r}"
        raise ConfigError(msg)
    return SlideRow(
        slide=values["slide"],
        path=_path(values["path"], base),
        patient=values["patient"],
        mpp=_number(values, "mpp", where),
        layout=layout or None,
        counts=_path(counts, base) if counts else None,
        positions=_path(values["positions"], base) if values.get("positions") else None,
        section=section,
        spot_px=_number(values, "spot_px", where),
    )


def _number(values: Mapping[str, str], column: str, where: str) -> float | None:
    text = values.get(column, "")
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        msg = f"{where}: {column} is {text!r}; expected a number above 0, such as 0.5"
        raise ConfigError(msg)
    return number


def _path(text: str, base: StoragePath) -> StoragePath:
    is_absolute = "://" in text or text.startswith(("/", "~"))
    return StoragePath.of(text) if is_absolute else base / text
