from pathlib import Path

import pytest

from raystp.errors import FormatError
from raystp.expression.readers.source import SectionSource
from raystp.expression.readers.stimage.reader import parse_stimage
from raystp.interop.choice import TableChoice
from raystp.interop.sections import stimage
from raystp.interop.sections.tables import TableFiles
from raystp.slides.table import SlideRow, read_slide_table
from raystp.storage import StoragePath
from tests.interop.sections.foreign import stimage_folder


def _read(root: Path, **choice: object) -> TableFiles:
    return stimage.table_files(StoragePath.of(root), TableChoice(**choice))  # type: ignore[arg-type]


def _rows(tmp_path: Path, found: TableFiles) -> dict[str, SlideRow]:
    (tmp_path / "slides.csv").write_bytes(found.files["slides.csv"])
    return {row.slide: row for row in read_slide_table(str(tmp_path / "slides.csv"), None, "unused")}


def test_the_slide_table_names_image_counts_and_places_by_technology(tmp_path: Path) -> None:
    root = stimage_folder(tmp_path / "st")
    rows = _rows(tmp_path, _read(root))
    assert list(rows) == ["GSE1_a", "GSE1_b", "GSE2_a"]
    one = rows["GSE2_a"]
    names = ("image/GSE2_a.png", "gene_exp/GSE2_a_count.csv", "coord/GSE2_a_coord.csv")
    assert (one.path, one.counts, one.positions) == tuple(StoragePath.of(root / "ST" / name) for name in names)
    assert (one.layout, one.section, one.covariates["x_tissue"]) == ("stimage", "GSE2_a", "breast, left")


def test_um_per_px_is_left_to_the_layout_which_reads_the_radius(tmp_path: Path) -> None:
    row = _rows(tmp_path, _read(stimage_folder(tmp_path / "st", radius=50.0)))["GSE1_a"]
    assert row.mpp is None
    assert row.counts is not None
    section = SectionSource("GSE1_a", "P", "GSE1_a", "stimage", row.counts, row.positions)
    raw = parse_stimage(section, {})
    assert raw.facts.stored_mpp is not None
    assert raw.facts.stored_mpp[1] == 0.55


def test_slides_of_one_study_are_one_patient(tmp_path: Path) -> None:
    found = _read(stimage_folder(tmp_path / "st"))
    assert [row.patient for row in _rows(tmp_path, found).values()] == ["111", "111", "222"]
    assert found.notes[-1] == "patients are not named: slides of one pmid count as one patient"


def test_a_technology_without_round_spots_has_no_um_per_px(tmp_path: Path) -> None:
    root = stimage_folder(tmp_path / "st")
    (root / "ST").rename(root / "VisiumHD")
    table = root / "meta" / "meta_all_gene.csv"
    table.write_text(table.read_text().replace("\tST\t", "\tVisiumHD\t"))
    found = _read(root, ids=("GSE2_a",))
    assert found.notes[0] == "no um/px is known of 'GSE2_a', which have no round spots: add a column mpp"


def test_slides_without_their_files_are_named(tmp_path: Path) -> None:
    root = stimage_folder(tmp_path / "st")
    (root / "Visium" / "coord" / "GSE1_a_coord.csv").unlink()
    found = _read(root)
    assert list(_rows(tmp_path, found)) == ["GSE1_b", "GSE2_a"]
    assert found.notes[0] == "1 of 3 slides lack an image, coord or gene_exp file: 'GSE1_a'"
    with pytest.raises(FormatError, match="image, coord and gene_exp of none of the 1 slides"):
        _read(root, ids=("GSE1_a",))


def test_the_table_is_separated_by_tabs_and_the_largest_release_is_read(tmp_path: Path) -> None:
    root = stimage_folder(tmp_path / "st")
    table = root / "meta" / "meta_all_gene.csv"
    later = root / "meta" / "meta_all_gene02122025.csv"
    later.write_text(table.read_text().replace("111", "333") + "\nGSE3_a\tST\t4\tskin")
    assert [row.patient for row in _rows(tmp_path, _read(root)).values()] == ["333", "333", "222"]
    later.unlink()
    table.write_text(table.read_text().replace("\t", ";"))
    with pytest.raises(
        FormatError, match=r"has no column 'slide'; it has 'slide;tech;pmid;tissue': .* separated by tabs"
    ):
        _read(root)
    table.unlink()
    with pytest.raises(FormatError, match=r"has no meta/meta_all_gene\*.csv; give the folder of STimage-1K4M"):
        _read(root)
