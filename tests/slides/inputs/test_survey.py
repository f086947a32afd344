"""`raystp slides`: a row per file, its problem in its own row, and a table that every step reads back."""

import csv
import io
from pathlib import Path

import pytest

from raystp import cli
from raystp.slides.table import read_slide_table
from tests.slides.conftest import Rgb, write_png, write_pyramid


def _run(text: Path | str, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[dict[str, str]], str]:
    capsys.readouterr()
    status = cli.main(["slides", str(text)])
    out = capsys.readouterr().out
    return status, list(csv.DictReader(io.StringIO(out))), out


def test_each_file_has_a_row_and_a_broken_one_its_problem(
    tmp_path: Path, numbers: Rgb, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pyramid(tmp_path / "TCGA-A1-A0SB-01Z.tif", numbers)
    (tmp_path / "b.svs").write_bytes(b"no slide")
    status, (first, second), out = _run(tmp_path, capsys)
    assert status == 3
    assert first == {
        "slide": "TCGA-A1-A0SB-01Z",
        "path": str(tmp_path / "TCGA-A1-A0SB-01Z.tif"),
        "patient": "TCGA-A1-A0SB",
        "mpp": first["mpp"],
        "width": "500",
        "height": "300",
        "vendor": "generic-tiff",
        "problem": "",
    }
    assert float(first["mpp"]) == pytest.approx(0.5, rel=1e-6)
    assert second["problem"].startswith(f"slide 'b' ({tmp_path / 'b.svs'}) is not a slide")
    assert (second["mpp"], second["width"]) == ("", "")
    for max_failed, expected in {"0.4": 3, "0.5": 0, "1": 0}.items():
        assert cli.main(["slides", str(tmp_path), "--run.max-failed", max_failed]) == expected
    (tmp_path / "slides.csv").write_text(out)
    rows = read_slide_table(str(tmp_path / "slides.csv"), None, "/none")
    assert [(row.slide, row.path.uri) for row in rows] == [(one["slide"], one["path"]) for one in (first, second)]


def test_the_printed_table_prints_itself(tmp_path: Path, numbers: Rgb, capsys: pytest.CaptureFixture[str]) -> None:
    write_pyramid(tmp_path / "a, b.tif", numbers)
    status, _, out = _run(tmp_path / "*.tif", capsys)
    (tmp_path / "slides.csv").write_text(out)
    assert (status, _run(tmp_path / "slides.csv", capsys)[2]) == (0, out)


def test_a_picture_without_um_per_px_has_its_size_and_measured_spots_excuse_it(
    tmp_path: Path, numbers: Rgb, capsys: pytest.CaptureFixture[str]
) -> None:
    write_png(tmp_path / "a.png", numbers)
    status, (row,), _ = _run(tmp_path, capsys)
    assert (status, row["width"], row["height"], row["vendor"], row["mpp"]) == (3, "500", "300", "png", "")
    assert "has no um/px of its own" in row["problem"]
    table = tmp_path / "slides.csv"
    table.write_text("slide,path,patient,layout,counts,x_age\nA,a.png,P,legacy_st,c.tsv,60\n")
    status, (row,), _ = _run(table, capsys)
    assert (status, row["problem"], row["mpp"], row["width"]) == (0, "", "", "500")
    assert (row["layout"], row["counts"], row["x_age"]) == ("legacy_st", str(tmp_path / "c.tsv"), "60")


def test_a_folder_that_is_absent_is_an_error_of_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["slides", str(tmp_path / "none")]) == 1
    assert f"no slide table at {tmp_path / 'none'}; it is a CSV with the columns" in capsys.readouterr().out
