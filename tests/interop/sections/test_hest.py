import json
import re
from pathlib import Path

import pytest

from raystp.errors import FormatError
from raystp.interop.choice import TableChoice
from raystp.interop.sections import hest
from raystp.interop.sections.tables import TableFiles
from raystp.slides.table import SlideRow, read_slide_table
from raystp.storage import StoragePath
from tests.interop.sections.foreign import HEST_ROWS, hest_folder


def _read(root: Path, **choice: object) -> TableFiles:
    return hest.table_files(StoragePath.of(root), TableChoice(**choice))  # type: ignore[arg-type]


def _rows(tmp_path: Path, found: TableFiles) -> dict[str, SlideRow]:
    (tmp_path / "out").mkdir(exist_ok=True)
    (tmp_path / "out" / "slides.csv").write_bytes(found.files["slides.csv"])
    rows = read_slide_table(str(tmp_path / "out" / "slides.csv"), None, "unused")
    return {row.slide: row for row in rows}


def test_the_slide_table_names_slide_spots_patient_and_scale_of_each_sample(tmp_path: Path) -> None:
    root = hest_folder(tmp_path / "hest", mpp=0.25)
    found = _read(root)
    rows = _rows(tmp_path, found)
    assert list(rows) == ["A1", "A2", "B1"]
    first = rows["A1"]
    assert (first.path, first.counts) == tuple(StoragePath.of(root / at) for at in ("wsis/A1.tif", "st/A1.h5ad"))
    assert (first.patient, first.mpp, first.layout, first.section) == ("A study, of two/1", 0.25, "hest", "A1")
    assert first.covariates == {
        "x_dataset_title": "A study, of two",
        "x_patient": "1",
        "x_organ": "Breast",
        "x_species": "Homo sapiens",
    }
    assert found.notes == ()


def test_patient_1_of_two_data_sets_is_two_patients(tmp_path: Path) -> None:
    rows = _rows(tmp_path, _read(hest_folder(tmp_path / "hest")))
    assert rows["A1"].patient != rows["B1"].patient


@pytest.mark.parametrize("empty", ["", "NaN", "None"])
def test_a_sample_without_a_patient_counts_as_one_and_is_named(tmp_path: Path, empty: str) -> None:
    found = _read(hest_folder(tmp_path / "hest", [{**HEST_ROWS[0], "patient": empty}, HEST_ROWS[1]]))
    assert _rows(tmp_path, found)["A1"].patient == "A study, of two/A1"
    assert found.notes == ("no patient is given for 'A1': each counts as one, so sections of one may be split",)


def test_ids_and_values_of_columns_choose_samples(tmp_path: Path) -> None:
    root = hest_folder(tmp_path / "hest")
    assert list(_rows(tmp_path, _read(root, ids=("B1", "A1")))) == ["A1", "B1"]
    assert list(_rows(tmp_path, _read(root, only={"organ": ("breast",), "patient": ("2",)}))) == ["A2"]
    assert list(_rows(tmp_path, _read(root, only={"organ": ("Bowel", "Breast")}))) == ["A1", "A2", "B1"]


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"ids": ("A9",)}, "ids: .* has no 'A9'; it has 'A1', 'A2', 'B1'"),
        ({"only": {"organs": ("Breast",)}}, "only: .* no column 'organs'; it has 'dataset_title', .*'organ'"),
        ({"only": {"organ": ("Skin",)}}, "only: no sample of .* has organ 'Skin'; the values are 'Bowel', 'Breast'"),
    ],
)
def test_a_choice_of_nothing_is_an_error_that_names_what_there_is(
    tmp_path: Path, choice: dict[str, object], message: str
) -> None:
    root = hest_folder(tmp_path / "hest")
    with pytest.raises(FormatError, match=message):
        _read(root, **choice)


def test_files_that_are_absent_are_named(tmp_path: Path) -> None:
    root = hest_folder(tmp_path / "hest")
    (root / "wsis" / "A1.tif").unlink()
    (root / "wsis" / "A2.tif").unlink()
    (root / "patches").mkdir()
    (root / "patches" / "A2.h5").write_bytes(b"")
    (root / "st" / "B1.h5ad").unlink()
    (root / "metadata" / "A2.json").unlink()
    found = _read(root)
    rows = _rows(tmp_path, found)
    assert list(rows) == ["A2", "B1"]
    assert (rows["A2"].path.name, rows["A2"].mpp, rows["B1"].layout) == ("A2.h5", None, None)
    assert found.notes == (
        "1 of 3 samples have no file in wsis/ or patches/: 'A1'",
        "the images in patches/ are taken, because wsis/ has no slide of 'A2'",
        "st/ has no spots of 'B1': they are slides without measured spots",
        "no um/px in metadata/ or the CSV for 'A2': add it to the column mpp where the spots need it",
    )


def test_um_per_px_are_those_of_the_spots_never_those_of_the_scan(tmp_path: Path) -> None:
    root = hest_folder(tmp_path / "hest", [{**HEST_ROWS[0], "pixel_size_um_estimated": "0.3"}], mpp=None)
    assert _rows(tmp_path, _read(root))["A1"].mpp == 0.3
    (root / "metadata" / "A1.json").write_text(json.dumps({"pixel_size_um_embedded": 0.9}))
    assert _rows(tmp_path, _read(root))["A1"].mpp == 0.3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"pixel_size_um_estimated": -1}', r"A1.json: pixel_size_um_estimated is -1; expected um/px"),
        ('{"pixel_size_um_estimated": "wide"}', r"A1.json: pixel_size_um_estimated is 'wide'; expected um/px"),
        ("[1]", r"A1.json holds a JSON list, expected an object"),
        (
            "{",
            r"A1.json is not readable JSON \(EOF while parsing an object at .*\): write, copy or download it again",
        ),
        (" " * (1 << 20) + "{}", r"A1.json has 1,048,578 bytes, and 1,048,576 are expected at most; it was not read"),
    ],
)
def test_a_damaged_sidecar_leaves_its_sample_without_um_per_px_and_is_named(
    tmp_path: Path, content: str, message: str
) -> None:
    root = hest_folder(tmp_path / "hest")
    whole = _rows(tmp_path, _read(root))
    (root / "metadata" / "A1.json").write_text(content)
    found = _read(root)
    assert re.search(message, found.notes[-1])
    rows = _rows(tmp_path, found)
    assert rows["A1"].mpp is None
    assert {name: row for name, row in rows.items() if name != "A1"} == {k: v for k, v in whole.items() if k != "A1"}


def test_samples_that_are_known_to_be_wrong_are_named(tmp_path: Path) -> None:
    names = ["TENX128", "TENX153", "TENX154", "TENX155"]
    found = _read(hest_folder(tmp_path / "hest", [{**HEST_ROWS[0], "id": name} for name in names]))
    assert found.notes == (
        "TENX128 and TENX155 are known to be one tissue: leave one out, or give both one patient",
        "TENX153, TENX154, TENX155 stand as one patient and are known to be of several",
    )
    assert _read(tmp_path / "hest", ids=("TENX128", "TENX154")).notes == ()


def test_a_folder_that_is_not_hests_is_refused_with_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"has no HEST_v1_\*.csv; give HEST's folder"):
        _read(tmp_path)
    (tmp_path / "HEST_v1_1_0.csv").write_text("id,organ\nA1,Breast\n")
    with pytest.raises(FormatError, match="has no column 'dataset_title'; it has 'id', 'organ'"):
        _read(tmp_path)
    root = hest_folder(tmp_path / "hest")
    for path in (root / "wsis").iterdir():
        path.unlink()
    with pytest.raises(FormatError, match=r"none of the 3 samples has a file in .*wsis or .*patches"):
        _read(root)


def test_a_cell_with_a_line_break_stays_one_cell(tmp_path: Path) -> None:
    found = _read(hest_folder(tmp_path / "hest", [{**HEST_ROWS[0], "organ": "Breast,\nleft"}]))
    assert _rows(tmp_path, found)["A1"].covariates["x_organ"] == "Breast, left"


def test_equal_folders_give_equal_bytes_and_the_last_version_is_read(tmp_path: Path) -> None:
    root = hest_folder(tmp_path / "hest")
    assert _read(root) == _read(root)
    (root / "HEST_v1_10_0.csv").write_text("dataset_title,id,patient\nNew,A1,7\n")
    assert _rows(tmp_path, _read(root))["A1"].patient == "New/7"
