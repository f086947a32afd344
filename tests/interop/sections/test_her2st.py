"""The folder of HER2ST as its repository has it: image, counts and spots of each section, found by its name."""

from pathlib import Path

import pytest

from raystp.errors import FormatError
from raystp.interop.choice import TableChoice
from raystp.interop.sections import her2st
from raystp.interop.sections.tables import TableFiles
from raystp.slides.table import SlideRow, read_slide_table
from raystp.storage import StoragePath

COUNTS = {"A": 6, "B": 6, "C": 6, "D": 6, "E": 3, "F": 3, "G": 3, "H": 3}
SECTIONS = [f"{patient}{number}" for patient, count in COUNTS.items() for number in range(1, count + 1)]


def her2st_folder(root: Path, sections: list[str] = SECTIONS) -> Path:
    """Write empty files under the names of a clone of the repository."""
    files = [f"ST-cnts/{one}.tsv.gz" for one in sections]
    files += [f"ST-spotfiles/{one}_selection.tsv" for one in sections]
    files += [f"ST-imgs/{one[0]}/{one}/23_HE_BT_{one}.jpg" for one in sections]
    for name in [*files, "ST-imgs/A/A1/Thumbs.db", "ST-pat/lbl/A1_labeled_coordinates.tsv"]:
        (root / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "data" / name).write_bytes(b"")
    return root


def _read(root: Path, **choice: object) -> TableFiles:
    return her2st.table_files(StoragePath.of(root), TableChoice(**choice))  # type: ignore[arg-type]


def _rows(folder: Path, found: TableFiles) -> list[SlideRow]:
    (folder / "slides.csv").write_bytes(found.files["slides.csv"])
    return read_slide_table(str(folder / "slides.csv"), None, "unused")


def test_a_sections_letter_is_its_patient_and_its_three_files_are_found(tmp_path: Path) -> None:
    root = her2st_folder(tmp_path / "her2st")
    found = _read(root)
    rows = _rows(tmp_path, found)
    assert [row.section for row in rows] == SECTIONS
    assert [row.patient for row in rows] == [name[0] for name in SECTIONS]
    data = StoragePath.of(root / "data")
    last = rows[-1]
    assert last.path == data / "ST-imgs/H/H3/23_HE_BT_H3.jpg"
    assert (last.counts, last.positions) == (data / "ST-cnts/H3.tsv.gz", data / "ST-spotfiles/H3_selection.tsv")
    assert (last.layout, last.mpp) == ("legacy_st", None)
    assert _read(root / "data") == found
    assert len(found.notes) == 1


def test_sections_that_lack_a_file_are_left_out_by_name(tmp_path: Path) -> None:
    root = her2st_folder(tmp_path / "her2st", ["A1", "A2", "B1", "B2"])
    (root / "data/ST-spotfiles/A2_selection.tsv").unlink()
    (root / "data/ST-imgs/B/B1/23_HE_BT_B1.jpg").unlink()
    (root / "data/ST-cnts/A1.tsv").write_bytes(b"")  # unpacked beside the packed one
    found = _read(root)
    assert [row.section for row in _rows(tmp_path, found)] == ["A1", "B2"]
    assert found.notes[1:] == (
        "2 of 4 sections lack an image or a selection file: 'A2', 'B1'",
        "the published data set has 36 sections, this table 2",
    )
    assert [row.section for row in _rows(tmp_path, _read(root, ids=("B2",)))] == ["B2"]
    with pytest.raises(FormatError, match=r"has image and selection\.tsv of none of the sections 'A2', 'B1'"):
        _read(root, ids=("A2", "B1"))


def test_another_folder_and_several_images_of_a_section_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="has no ST-imgs, ST-cnts and ST-spotfiles; give the folder of almaan/her2st"):
        _read(tmp_path)
    root = her2st_folder(tmp_path / "her2st", ["A1"])
    (root / "data/ST-imgs/A/A1/other.tif").write_bytes(b"")
    with pytest.raises(FormatError, match=r"A1 has several images, '23_HE_BT_A1.jpg', 'other.tif': leave one"):
        _read(root)
