"""Data sets of slides with spots: what `raystp import` writes for them, and the fields that it refuses."""

from pathlib import Path
from typing import Any

import pytest

from raystp.errors import ConfigError, StorageError
from raystp.slides.table import read_slide_table
from raystp.steps.imports.config import ImportConfig
from raystp.steps.imports.step import run
from tests.interop.sections.foreign import bench_folder, hest_folder


def _config(name: str, root: Path, out: Path, *overrides: str) -> ImportConfig:
    return ImportConfig.load(None, [f"format={name}", f"path={root}", f"out={out}", *overrides])


def _import(*words: Any) -> str:
    said = run(_config(*words))
    assert isinstance(said, str)
    return said


def test_a_slide_table_is_written_whose_files_are_found_from_anywhere(tmp_path: Path) -> None:
    root = hest_folder(tmp_path / "hest")
    said = _import("hest", root, tmp_path / "out", "only.organ=Breast", "ids=[A1, B1]")
    rows = read_slide_table(str(tmp_path / "out" / "slides.csv"), None, "unused")
    assert [row.slide for row in rows] == ["A1"]
    assert rows[0].path.exists()
    assert "1 slides in" in said
    assert said.endswith(f"next: raystp run {tmp_path}/out/slides.csv")


def test_a_task_of_hest_bench_has_its_panel_and_folds_beside_the_table(tmp_path: Path) -> None:
    said = _import("hest-bench", bench_folder(tmp_path / "bench", [(["S1"], ["S2"])]), tmp_path / "out", "task=IDC")
    assert sorted(path.name for path in (tmp_path / "out").rglob("*") if path.is_file()) == [
        "fold0.yaml",
        "panel.json",
        "slides.csv",
    ]
    assert "beside it: panel.json, splits/fold0.yaml" in said


def test_another_slide_table_is_not_replaced_and_the_same_one_may_be_written_again(tmp_path: Path) -> None:
    root = hest_folder(tmp_path / "hest")
    first = _import("hest", root, tmp_path / "out")
    assert _import("hest", root, tmp_path / "out") == first
    with pytest.raises(ConfigError, match="is another slide table: give another folder, or remove it"):
        _import("hest", root, tmp_path / "out", "ids=[A1]")


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"path: there is no folder .*absent; give the folder of HEST-1k"):
        _import("hest", tmp_path / "absent", tmp_path / "out")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"format": "hest", "path": "x"}, "out: must be given for hest: the folder to write slides.csv to"),
        (
            {"format": "hest", "path": "x", "out": "y", "spots": "spots/a"},
            "spots: not read by format hest, only by trident",
        ),
        (
            {"format": "trident", "path": "x", "task": "IDC"},
            "task: not read by format trident, only by hest, hest-bench",
        ),
    ],
)
def test_fields_of_the_other_kind_of_format_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ImportConfig.of(values)


def test_an_import_that_stops_half_way_leaves_no_slide_table_and_can_be_repeated(tmp_path: Path) -> None:
    root, out = bench_folder(tmp_path / "bench", [(["S1"], ["S2"])]), tmp_path / "out"
    out.mkdir()
    (out / "splits").write_text("a file where a folder is needed")
    with pytest.raises(StorageError, match="splits"):
        _import("hest-bench", root, out)
    assert not (out / "slides.csv").exists()
    (out / "splits").unlink()
    _import("hest-bench", root, out)
    _import("hest-bench", root, tmp_path / "undisturbed")
    for name in ("slides.csv", "panel.json", "splits/fold0.yaml"):
        assert (out / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()
