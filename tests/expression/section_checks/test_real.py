"""Real sections raise no false alarm; each of them with a fault is caught, or gets a warning that names it."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from raystp.errors import SectionError
from raystp.expression.readers.registry import read
from raystp.expression.readers.source import SectionSource
from raystp.expression.section_checks.raw import warnings_of
from raystp.storage import StoragePath

HER2ST = ("B4", "C2", "C3", "C4")
Change = Callable[[pd.DataFrame], object]


def _her2st(data: Path, places: str, counts: str | None = None) -> SectionSource:
    table = data / "her2st" / "ST-cnts" / f"{counts or places}.tsv.gz"
    selection = data / "her2st" / "ST-spotfiles" / f"{places}_selection.tsv"
    return SectionSource(places, places, "P", "legacy_st", StoragePath.of(table), StoragePath.of(selection))


def _bulb(data: Path) -> SectionSource:
    counts = data / "mob_rep11" / "counts" / "Rep11_MOB_count_matrix-1.tsv.gz"
    return SectionSource("11", "11", "P", "legacy_st", StoragePath.of(counts), spot_px=72.56)


def _visium(data: Path) -> SectionSource:
    return SectionSource("V", "V", "P", "space_ranger", StoragePath.of(data / "visium" / "Vis5A_2dpi"))


@pytest.mark.parametrize("section", [*HER2ST, "11", "Vis5A"])
def test_a_real_section_has_no_warning(real_data: Path, section: str) -> None:
    sources = {"11": _bulb(real_data), "Vis5A": _visium(real_data)}
    _, notes = read(sources.get(section) or _her2st(real_data, section))
    assert warnings_of(notes) == []
    assert notes["pitch_um"] == pytest.approx(100 if section == "Vis5A" else 200)
    assert notes["mirrored"] is False


@pytest.mark.parametrize(("places", "counts"), [("C3", "C4"), ("C2", "B4")])
def test_counts_of_another_section_are_refused(real_data: Path, places: str, counts: str) -> None:
    with pytest.raises(SectionError, match=r"spots with counts have no position in tissue .* of different sections"):
        read(_her2st(real_data, places, counts))


def _set(table: pd.DataFrame, columns: list[str], values: Any) -> None:
    table[columns] = values


LEGACY: dict[str, tuple[Change, str]] = {
    "flipped": (lambda t: _set(t, ["pixel_x"], 9270 - t[["pixel_x"]]), r"mirrored .*\(array columns run along x\)"),
    "swapped": (lambda t: _set(t, ["pixel_x", "pixel_y"], t[["pixel_y", "pixel_x"]].to_numpy()), "columns run along y"),
    "twice as large": (
        lambda t: _set(t, ["pixel_x", "pixel_y"], 2 * t[["pixel_x", "pixel_y"]]),
        "would be 400 um apart",
    ),
}


@pytest.mark.parametrize("fault", LEGACY)
def test_a_faulty_section_of_legacy_st_has_a_warning(real_data: Path, tmp_path: Path, fault: str) -> None:
    source = _her2st(real_data, "C2")
    assert source.positions is not None
    change, message = LEGACY[fault]
    table = pd.read_csv(source.positions.local_path, sep="\t")
    change(table)
    table.to_csv(tmp_path / "places.tsv", sep="\t", index=False)
    _, notes = read(replace(source, positions=StoragePath.of(tmp_path / "places.tsv"), mpp=0.689))
    assert any(re.search(message, warning) for warning in warnings_of(notes))


def _roll(column: int, by: int) -> Change:
    return lambda t: _set(t, [str(column)], np.roll(t[str(column)].to_numpy(), by).reshape(-1, 1))


VISIUM: dict[str, tuple[Change, str]] = {
    "flipped": (lambda t: _set(t, ["5"], 25000 - t[["5"]]), r"mirrored .*\(array columns run along x\)"),
    "swapped": (lambda t: _set(t, ["4", "5"], t[["5", "4"]].to_numpy()), r"mirrored .*\(array columns run along y\)"),
    "array swapped": (lambda t: _set(t, ["2", "3"], t[["3", "2"]].to_numpy()), "do not follow their array coordinates"),
    "twice as large": (
        lambda t: _set(t, ["4", "5"], 2 * t[["4", "5"]]),
        "a spot of the scale factors is 32.4 um across",
    ),
    "another tissue": (_roll(1, 400), "positions? in tissue .* different sections"),
}


@pytest.mark.parametrize("fault", VISIUM)
def test_a_faulty_section_of_visium_is_refused(real_data: Path, tmp_path: Path, fault: str) -> None:
    folder = real_data / "visium" / "Vis5A_2dpi"
    change, message = VISIUM[fault]
    table = pd.read_csv(folder / "spatial" / "tissue_positions_list.csv", header=None)
    table.columns = [str(column) for column in table.columns]
    change(table)
    table.to_csv(tmp_path / "tissue_positions_list.csv", header=False, index=False)
    factors = (folder / "spatial" / "scalefactors_json.json").read_bytes()
    (tmp_path / "scalefactors_json.json").write_bytes(factors)
    with pytest.raises(SectionError, match=message):
        read(replace(_visium(real_data), positions=StoragePath.of(tmp_path)))


def test_the_hires_picture_has_its_own_um_per_pixel(real_data: Path) -> None:
    section, notes = read(replace(_visium(real_data), image="hires"))
    assert section.uns["raystp"]["mpp"] == pytest.approx(0.35973 / 0.090057634, rel=1e-4)
    assert section.obsm["spatial"].max() < 2000
    assert warnings_of(notes) == []
