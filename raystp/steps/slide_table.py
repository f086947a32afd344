"""The slide table: the one file a user writes, one row a slide.

A CSV with the columns `slide`, `path`, `patient`, and, where they apply, `mpp` (um/px of the scan; left empty, the
slide's own), `layout`, `counts`, `positions`, `section`, `spot_px` (measured spots on this slide: what they are laid
out as, where they are, and for legacy ST without positions the pixels per array step). Relative paths are taken from
`root`, by default the table's own folder.
"""

import csv
import io
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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
    """Read the table; `demo/<name>` is that of a cohort that the demo drew into the store.

    Raises ConfigError with the row and the column where something is amiss.
    """
    place = resolve(store, table, "demo").path / "slides.csv" if table.startswith("demo/") else StoragePath.of(table)
    base = StoragePath.of(root) if root is not None else place.parent
    if not place.exists():
        msg = f"slides: no slide table at {place}; it is a CSV with the columns {', '.join(REQUIRED + OPTIONAL)}"
        raise ConfigError(msg)
    try:
        reader = csv.DictReader(io.StringIO(place.read_bytes().decode("utf-8-sig")))
        _check_columns(place, reader.fieldnames or [])
        rows = [_row(f"{place}, line {reader.line_num}", row, base) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        msg = f"{place} is not a CSV in UTF-8 ({error}): save it as one"
        raise ConfigError(msg) from None
    _check_rows(place, rows)
    return rows


def _check_columns(place: StoragePath, columns: Sequence[str]) -> None:
    missing = [name for name in REQUIRED if name not in columns]
    unknown = [name for name in columns if name not in REQUIRED + OPTIONAL]
    twice = [name for name, times in Counter(columns).items() if times > 1]
    if missing or unknown or twice:
        said = [f"lacks the column {some(missing)}"] if missing else []
        said += [f"has a column {some(unknown)} that means nothing here"] if unknown else []
        said += [f"has the column {some(twice)} more than once"] if twice else []
        msg = (
            f"{place} {' and '.join(said)}; a slide table has {', '.join(REQUIRED)} and may have {', '.join(OPTIONAL)}"
        )
        raise ConfigError(msg)


def _check_rows(place: StoragePath, rows: list[SlideRow]) -> None:
    if not rows:
        msg = f"{place} names no slide"
        raise ConfigError(msg)
    for what in ("slide", "section"):
        names = [getattr(row, what) for row in rows]
        twice = sorted(name for name, times in Counter(names).items() if times > 1)
        if twice:
            msg = f"{place} names the {what} {some(twice)} more than once; each needs an id of its own"
            raise ConfigError(msg)


def _row(where: str, cells: dict[Any, Any], base: StoragePath) -> SlideRow:
    if None in cells:
        msg = f"{where}: there are more cells than columns, {some(cells[None])} too many; quote a cell that has a comma"
        raise ConfigError(msg)
    values = {column: (cell or "").strip() for column, cell in cells.items()}
    for name in REQUIRED:
        if not values.get(name):
            msg = f"{where}: the column {name!r} is empty"
            raise ConfigError(msg)
    section = values.get("section") or values["slide"]
    for name in (values["slide"], section):
        if not is_safe_name(name):
            msg = f"{where}: {name!r} cannot name a slide; letters, digits, '.', '_' and '-' do, 128 at most"
            raise ConfigError(msg)
    if bool(values.get("layout")) != bool(values.get("counts")):
        msg = (
            f"{where}: `layout` and `counts` belong together, got {values.get('layout')!r} and {values.get('counts')!r}"
        )
        raise ConfigError(msg)
    return SlideRow(
        slide=values["slide"],
        path=_place(values["path"], base),
        patient=values["patient"],
        mpp=_number(values, "mpp", where),
        layout=values.get("layout") or None,
        counts=_place(values["counts"], base) if values.get("counts") else None,
        positions=_place(values["positions"], base) if values.get("positions") else None,
        section=section,
        spot_px=_number(values, "spot_px", where),
    )


def _number(values: dict[str, str], column: str, where: str) -> float | None:
    text = values.get(column, "")
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        msg = f"{where}: {column} is {text!r}, a number above 0 was wanted, such as 0.5"
        raise ConfigError(msg)
    return number


def _place(text: str, base: StoragePath) -> StoragePath:
    absolute = "://" in text or text.startswith(("/", "~"))
    return StoragePath.of(text) if absolute else base / text
