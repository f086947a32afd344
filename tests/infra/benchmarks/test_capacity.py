"""The page on capacity has the figures of the model, to the digits that it prints."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import bench_capacity
import pytest

from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "capacity.md").read_text(encoding="utf-8").partition("\n## 28,664 slides\n")[2]
UNITS = {"million": 1e6, "MB": 1e6, "GB": 1e9, "TB": 1e12}
ROWS: Mapping[str, Callable[[Mapping[str, Any]], tuple[float, ...]]] = {
    "encoders (actors)": lambda one: (one["encoders"],),
    "hours": lambda one: (one["hours"],),
    "driver: private memory, CPU": lambda one: (1e6 * one["driver_mb"], one["driver_share"]),
    "GCS: memory, tasks a second": lambda one: (1e6 * one["gcs_mb"], one["tasks_per_s"]),
    "writes and lists of the store": lambda one: (one["puts"], one["puts_per_s"]),
    "reads of the store": lambda one: (one["gets"],),
    "slides, bytes a second": lambda one: (one["read_bytes_per_s"],),
    "an index of 10^6 x 256, sent to nodes": lambda one: (one["index_bytes"],),
    "dollars, of which requests": lambda one: (one["dollars"],),
}


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    return bench_capacity._whole()


def cells(row: str) -> list[str]:
    """Return the cells of the row of that name."""
    (found,) = re.findall(rf"^\| {re.escape(row)} \| (.*) \|$", PAGE, re.MULTILINE)
    return [str(cell) for cell in found.split(" | ")]


def numbers(cell: str) -> list[tuple[float, float]]:
    """Return each number of a cell, and half of its last digit."""
    found = re.findall(r"(\d+(?:,\d{3})*(?:\.\d+)?|\.\d+) ?(million|MB|GB|TB)?", cell)
    return [
        (
            float(number.replace(",", "")) * UNITS.get(unit, 1.0),
            0.5 * 10.0 ** -len(number.partition(".")[2]) * UNITS.get(unit, 1.0),
        )
        for number, unit in found
    ]


@pytest.mark.parametrize("row", ROWS)
def test_the_page_has_the_models_figures_of_each_cluster(row: str, whole: dict[str, Any]) -> None:
    for cell, one in zip(cells(row), whole["nodes"], strict=True):
        for (printed, half), value in zip(numbers(cell), ROWS[row](one), strict="of which" not in row):
            assert abs(printed - value) <= half


@pytest.mark.parametrize(
    ("row", "names"),
    [
        ("vectors of 1,536 numbers", ["vectors"]),
        ("neighbours and weights (`output: neighbours`)", ["neighbours"]),
        ("dense float16, float32", ["dense float16", "dense float32"]),
    ],
)
def test_the_page_has_the_models_bytes_of_each_result(row: str, names: list[str], whole: dict[str, Any]) -> None:
    (cell,) = cells(row)
    for (printed, half), name in zip(numbers(cell), names, strict=True):
        assert abs(printed - whole["outputs"][name]) <= half
