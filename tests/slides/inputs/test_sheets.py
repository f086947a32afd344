"""Tables in other formats and of other tools give the rows of the CSV that raystp has for the same slides."""

import importlib.util
import json
import logging
import sys
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raystp.errors import ConfigError, StorageError
from raystp.slides.inputs import sheets
from raystp.slides.table import SlideRow, read_slide_table
from raystp.storage import StoragePath

ROWS = pd.DataFrame(
    {
        "slide": ["A", "B"],
        "path": ["a, b.svs", "b.svs"],
        "patient": ["007", "P2"],
        "mpp": [0.25, None],
        "x_age": [60, 7],
    }
)


def _rows(path: Path, root: Path | None = None) -> list[SlideRow]:
    return read_slide_table(str(path), None if root is None else str(root), "/none")


def _csv(folder: Path) -> list[SlideRow]:
    ROWS.to_csv(folder / "same.csv", index=False)
    return _rows(folder / "same.csv")


@pytest.mark.parametrize("separator", [";", "\t"])
def test_a_table_with_a_mark_semicolons_or_tabs_and_windows_line_ends_is_the_csv(
    tmp_path: Path, separator: str
) -> None:
    text = ROWS.to_csv(index=False, sep=separator, lineterminator="\r\n")
    (tmp_path / "a.tsv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert _rows(tmp_path / "a.tsv") == _csv(tmp_path)


def test_a_parquet_file_is_the_csv(tmp_path: Path) -> None:
    ROWS.set_index(pd.Index([5, 9])).to_parquet(tmp_path / "a.parquet")
    assert _rows(tmp_path / "a.parquet") == _csv(tmp_path)


def test_a_parquet_column_of_lists_is_refused_where_it_is_needed(tmp_path: Path) -> None:
    pq.write_table(pa.table({"path": [["a.svs"]], "slide": ["A"]}), tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match="the column 'path' has lists, structs or bytes"):
        _rows(tmp_path / "a.parquet")


def test_a_large_or_damaged_table_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ROWS.to_parquet(tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-9])
    with pytest.raises(ConfigError, match=r"b\.parquet cannot be read as parquet file"):
        _rows(tmp_path / "b.parquet")
    monkeypatch.setattr(sheets, "MAX_BYTES", 10)
    with pytest.raises(ConfigError, match=r"unpacks to \d+ MiB, a table of slides has up to"):
        _rows(tmp_path / "a.parquet")


def test_a_workbook_without_openpyxl_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.xlsx").write_bytes(b"PK\x03\x04")
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(ConfigError, match=r"pip install 'raystp\[xlsx\]', or save the sheet as CSV UTF-8"):
        _rows(tmp_path / "a.xlsx")


@pytest.mark.skipif(importlib.util.find_spec("openpyxl") is None, reason="openpyxl is not installed")
def test_a_workbook_is_the_csv(tmp_path: Path) -> None:
    with pd.ExcelWriter(tmp_path / "a.xlsx") as writer:
        pd.DataFrame().to_excel(writer, sheet_name="empty", index=False)
        ROWS.to_excel(writer, sheet_name="slides", index=False, startrow=2)
    assert _rows(tmp_path / "a.xlsx") == _csv(tmp_path)
    (tmp_path / "b.xlsx").write_bytes((tmp_path / "a.xlsx").read_bytes()[:200])
    with pytest.raises(ConfigError, match=r"b\.xlsx cannot be read as Excel workbook"):
        _rows(tmp_path / "b.xlsx")


@pytest.mark.skipif(importlib.util.find_spec("openpyxl") is None, reason="openpyxl is not installed")
def test_a_store_that_fails_is_no_damaged_workbook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.xlsx").write_bytes(b"PK\x03\x04")

    def local(_: StoragePath) -> None:
        msg = "cannot read s3://bucket/a.xlsx: the store answered 503"
        raise StorageError(msg)

    monkeypatch.setattr(StoragePath, "local", local)
    with pytest.raises(StorageError, match=r"^cannot read s3://bucket/a.xlsx: the store answered 503$"):
        sheets.read_sheet(StoragePath.of(tmp_path / "a.xlsx"))


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("wsi,mpp\nd/s.svs,0.5\n", "columns of TRIDENT: 'wsi' as path read"),
        (
            "sample_id,image_path,mask_path,spacing_at_level_0\ns,d/s.svs,m.tif,0.5\n",
            "columns of slide2vec: 'sample_id' as slide, 'image_path' as path, 'spacing_at_level_0' as mpp read",
        ),
        ("FILENAME,mpp\nd/s.svs,0.5\n", "columns of STAMP: 'FILENAME' as path read"),
        ("FILENAME,mpp\ns.h5,0.5\n", "1 names of feature files stand for the slides of these names"),
    ],
)
def test_a_table_of_another_tool_is_read_by_its_columns(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, note: str
) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "s.svs").touch()
    (tmp_path / "t.csv").write_text(text)
    with caplog.at_level(logging.INFO, "raystp"):
        (row,) = _rows(tmp_path / "t.csv")
    assert (row.slide, row.path.local_path, row.mpp, row.patient) == ("s", tmp_path / "d" / "s.svs", 0.5, "")
    assert note in caplog.text
    assert ("'mask_path' is not read: give masks as GeoJSON" in caplog.text) == ("mask_path" in text)


def test_patients_and_covariates_of_another_tool_are_kept(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("PATIENT;FILENAME;x_age\nP1;s.svs;60\n")
    (row,) = _rows(tmp_path / "t.csv")
    assert (row.slide, row.patient, dict(row.covariates)) == ("s", "P1", {"x_age": "60"})


def test_features_without_their_slide_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("PATIENT,FILENAME\nP1,s.h5\n")
    with pytest.raises(ConfigError, match=r"line 2: 's.h5' is a file of features, and \S+ has no slide named s"):
        _rows(tmp_path / "t.csv")


def test_features_of_two_slides_of_one_name_are_refused(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "s.svs").touch()
    (tmp_path / "t.csv").write_text("PATIENT,FILENAME\nP1,s.h5\n")
    with pytest.raises(ConfigError, match=r"has the slides 'a/s.svs', 'b/s.svs' named s; set `root`"):
        _rows(tmp_path / "t.csv")


def test_a_hest_table_gives_slide_spots_patient_and_scale_of_the_samples_that_are_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("wsis/A.tif", "wsis/B.tif", "wsis/D.tif", "wsis/E.tif", "st/A.h5ad"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata" / "B.json").write_text(json.dumps({"pixel_size_um_estimated": 0.75}))
    (tmp_path / "hest.csv").write_text(
        "id,dataset_title,patient,pixel_size_um_estimated,organ\n"
        "A,Study 1,P1,0.5,Skin\nB,Study 1,,,Skin\nC,S,P,1,Lung\nD,Study 2,P1,0.5,Skin\nE,Study 2,nan,nan,Skin\n",
        encoding="utf-8-sig",
    )
    with caplog.at_level(logging.INFO, "raystp"):
        first, second, other, unknown = _rows(tmp_path / "hest.csv")
    folder = StoragePath.of(tmp_path)
    assert first == SlideRow(
        "A", folder / "wsis/A.tif", "Study 1/P1", 0.5, "hest", folder / "st/A.h5ad", None, "A", None
    )
    assert (second.patient, second.mpp) == ("Study 1/B", 0.75)
    assert (other.patient, unknown.patient) == ("Study 2/P1", "Study 2/E")  # P1 of two studies is two patients
    assert unknown.mpp is None
    assert "1 of 5 samples have no slide" in caplog.text
    assert "2 samples have no patient: each counts as a patient of its own, so siblings may be split" in caplog.text


def test_a_table_with_paths_is_raystps_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "t.csv").write_text("path,wsi\na.svs,b.svs\n")
    (row,) = _rows(tmp_path / "t.csv")
    assert row.path.name == "a.svs"
    assert "'wsi' are not read" in caplog.text
