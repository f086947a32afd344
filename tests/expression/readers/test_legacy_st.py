import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from raystp.errors import SectionError, StorageError
from raystp.expression.readers.options import SectionOptions
from raystp.expression.readers.registry import read
from raystp.expression.readers.source import SectionSource
from raystp.storage import StoragePath

OPTIONS = SectionOptions(min_counts=0.0, max_lost=0.5)
COUNTS = "\tA\tB\tC\n1x1\t1\t0\t2\n2x1\t0\t3\t0\n1x2\t4\t0\t0\n2x3\t0\t0\t5\n"
SELECTION = (
    "x\ty\tnew_x\tnew_y\tpixel_x\tpixel_y\tselected\n"
    "2\t3\t2\t3\t700\t2300\t1\n1\t1\t1\t1\t600\t2100\t1\n2.0\t1\t2\t1\t700\t2100\t1\n1\t2.0\t1\t2\t600\t2200\t1\n"
)


def _warnings(notes: dict[str, object]) -> list[str]:
    warnings = notes.get("warnings", [])
    assert isinstance(warnings, list)
    return warnings


@pytest.fixture
def source(tmp_path: Path) -> SectionSource:
    (tmp_path / "A1.tsv").write_text(COUNTS)
    (tmp_path / "A1_selection.tsv").write_text(SELECTION)
    counts, positions = StoragePath.of(tmp_path / "A1.tsv"), StoragePath.of(tmp_path / "A1_selection.tsv")
    return SectionSource("A1", "slideA1", "A", "legacy_st", counts, positions, options=OPTIONS)


def test_a_spot_has_the_position_of_its_array_coordinates(source: SectionSource) -> None:
    section, notes = read(source)
    assert section.obs_names.tolist() == ["1x1", "2x1", "1x2", "2x3"]
    assert section.obsm["spatial"].tolist() == [[600, 2100], [700, 2100], [600, 2200], [700, 2300]]
    assert section.obs["array_col"].tolist() == [1, 2, 1, 2]
    assert section.obs["array_row"].tolist() == [1, 1, 2, 3]
    assert section.X.toarray().tolist() == [[1, 0, 2], [0, 3, 0], [4, 0, 0], [0, 0, 5]]
    assert section.var_names.tolist() == ["A", "B", "C"]
    assert section.uns["raystp"] == {
        "schema_version": 1,
        "section": "A1",
        "patient": "A",
        "slide": "slideA1",
        "mpp": pytest.approx(2.0),
        "spot_diameter_um": 100.0,
        "pitch_um": 200.0,
        "layout": "legacy_st",
    }
    assert section.uns["spatial"]["A1"]["scalefactors"]["spot_diameter_fullres"] == pytest.approx(50)
    assert notes["mpp_from"] == "pitch"
    assert notes["mirrored"] is False


def test_compression_and_a_missing_corner_cell_change_nothing(source: SectionSource, tmp_path: Path) -> None:
    with gzip.open(tmp_path / "A1.tsv.gz", "wt") as file:
        file.write(COUNTS.removeprefix("\t"))
    zipped, _ = read(replace(source, counts=StoragePath.of(tmp_path / "A1.tsv.gz")))
    plain, _ = read(source)
    assert zipped.X.toarray().tolist() == plain.X.toarray().tolist()
    assert zipped.var_names.tolist() == plain.var_names.tolist()


def test_spots_in_one_file_only_are_dropped_and_noted(source: SectionSource, tmp_path: Path) -> None:
    (tmp_path / "A1.tsv").write_text(COUNTS + "9x9\t1\t1\t1\n3x1\t0\t0\t0\n3x2\t1\t0\t0\n")
    more = "8\t8\t8\t8\t1300\t2800\t1\n3\t1\t3\t1\t800\t2100\t1\n3\t2\t3\t2\t800\t2200\t0\n"
    (tmp_path / "A1_selection.tsv").write_text(SELECTION + more)
    section, notes = read(source)
    assert section.n_obs == 4
    assert (notes["dropped_no_place"], notes["dropped_no_place_first"]) == (1, ["9x9"])
    assert (notes["dropped_no_counts"], notes["dropped_no_counts_first"]) == (1, ["8x8"])
    assert (notes["dropped_empty"], notes["dropped_empty_first"]) == (1, ["3x1"])
    assert (notes["dropped_off_tissue"], notes["dropped_off_tissue_first"]) == (1, ["3x2"])


def test_a_given_mpp_or_pitch_wins_with_a_warning_where_the_array_contradicts_it(source: SectionSource) -> None:
    section, notes = read(replace(source, mpp=1.95))
    assert section.uns["raystp"]["mpp"] == 1.95
    assert notes["mpp_from"] == "given"
    assert notes["mpp_by_pitch"] == pytest.approx(2.0)
    assert "warnings" not in notes
    section, notes = read(replace(source, mpp=0.5))
    assert (section.uns["raystp"]["mpp"], section.uns["raystp"]["pitch_um"]) == (0.5, pytest.approx(50.0))
    assert any("mpp 0.5 was given, but the spots' pitch gives 2 um/px" in text for text in _warnings(notes))
    section, notes = read(replace(source, pitch_um=150.0))
    assert (section.uns["raystp"]["mpp"], section.uns["raystp"]["pitch_um"]) == (pytest.approx(1.5), 150.0)
    assert any("pitch_um 150 is given and used; the array looks like legacy ST" in text for text in _warnings(notes))
    with pytest.raises(SectionError, match="implausible nan um/px"):
        read(replace(source, mpp=float("nan")))


def test_detected_array_coordinates_are_positions_with_spot_px(source: SectionSource, tmp_path: Path) -> None:
    (tmp_path / "mob.tsv").write_text("\tA\n16.92x9.015\t1\n17.0x10.0\t2\n3.5x4.25\t3\n")
    mob = replace(source, counts=StoragePath.of(tmp_path / "mob.tsv"), positions=None)
    section, notes = read(replace(mob, spot_px=80.0))
    assert section.obs_names.tolist() == ["16.92x9.015", "17.0x10.0", "3.5x4.25"]
    assert section.obsm["spatial"].tolist() == pytest.approx(np.array([[1273.6, 641.2], [1280, 720], [200, 260]]))
    assert section.obs["array_col"].tolist() == [16.92, 17.0, 3.5]
    assert section.uns["raystp"]["mpp"] == pytest.approx(2.5)
    assert notes["mpp_from"] == "pitch"
    with pytest.raises(SectionError, match=r"has no positions: give the selection file \(columns x, y, pixel_x"):
        read(mob)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (("\tA\nspot1\t1\n", SELECTION), r"named by array coordinates, such as 10x13.* 1 are named 'spot1'"),
        (("\tA\n1x1\tmany\n", SELECTION), r"not a tab-separated table of counts: could not convert string 'many'"),
        (("\tA\tB\n1x1\t1\t2\n2x1\t1\n", SELECTION), r"not a tab-separated table of counts: .*columns"),
        (("\tA\n1x1\t1\t2\n", SELECTION), r"its header has 1 columns, its rows have 2"),
        (("\tA\n", SELECTION), "it has no rows below its header"),
        (("", SELECTION), "it has no rows below its header"),
        (("\tA\n1x1\t1\n1.1x1\t1\n", SELECTION), r"lists 1 spots more than once in its counts: '1x1'"),
        (
            ("\tA\n50x1\t1\n", SELECTION),
            r"no spot has both counts and a position in tissue; counts have '50x1', positions have '2x3'",
        ),
        (("\tA\n1x1\t0.5\n2x1\t1\n1x2\t1\n", SELECTION), r"1 counts that are not whole numbers.*1x1/A = 0.5"),
        (("\tA\n1x1\tnan\n2x1\t1\n1x2\t1\n", SELECTION), r"1 counts that are not finite numbers.*1x1/A = nan"),
        (
            ("\tA\n1x1\t1\n2x1\t1\n", "x\ty\tpixel_x\tpixel_y\n1\t1\t600\t2100\n2\t1\t700\t2100\n"),
            r"um/px is unknown:.*too few spots.*give mpp",
        ),
        ((COUNTS, "x\ty\tpixel_x\n1\t1\t5\n"), r"no column 'pixel_y'; it has 'x', 'y', 'pixel_x'"),
        ((COUNTS, SELECTION.replace("600", "left")), "has values that are not numbers"),
        ((COUNTS, ""), "not a tab-separated table of positions"),
    ],
)
def test_malformed_files_are_refused(
    source: SectionSource, tmp_path: Path, files: tuple[str, str], message: str
) -> None:
    (tmp_path / "A1.tsv").write_text(files[0])
    (tmp_path / "A1_selection.tsv").write_text(files[1])
    with pytest.raises(SectionError, match=f"^section 'A1' .*({message})"):
        read(source)


def test_a_damaged_gzip_and_an_absent_file_are_reported(source: SectionSource, tmp_path: Path) -> None:
    whole = gzip.compress(COUNTS.encode() * 50)
    (tmp_path / "cut.tsv.gz").write_bytes(whole[:40])
    with pytest.raises(SectionError, match=r"cut.tsv.gz cannot be read as text .*the gzip file is damaged"):
        read(replace(source, counts=StoragePath.of(tmp_path / "cut.tsv.gz")))
    with pytest.raises(StorageError, match="no file at"):
        read(replace(source, counts=StoragePath.of(tmp_path / "absent.tsv")))


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("B4", (283, 1, 15289, 0.688, 648)),
        ("C2", (187, 0, 15706, 0.689, 8508)),
        ("C3", (180, 2, 15821, 0.686, 9549)),
        ("C4", (184, 3, 15842, 0.686, 10190)),
    ],
)
def test_her2st_reads_with_known_figures(real_data: Path, name: str, row: tuple[int, int, int, float, int]) -> None:
    spots, dropped, genes, mpp, median = row
    counts = StoragePath.of(real_data / "her2st" / "ST-cnts" / f"{name}.tsv.gz")
    positions = StoragePath.of(real_data / "her2st" / "ST-spotfiles" / f"{name}_selection.tsv")
    section, notes = read(
        SectionSource(name, name, name[0], "legacy_st", counts, positions, options=SectionOptions(min_counts=0.0))
    )
    assert section.shape == (spots, genes)
    assert notes["dropped_no_counts"] == dropped
    assert notes["dropped_no_place"] == 0
    assert notes["dropped_empty"] == 0
    assert notes["mirrored"] is False
    assert section.uns["raystp"]["mpp"] == pytest.approx(mpp, abs=0.001)
    assert np.median(np.asarray(section.X.sum(axis=1))) == pytest.approx(median, abs=0.5)


def test_the_spots_of_the_olfactory_bulb_are_inside_its_image(real_data: Path) -> None:
    counts = StoragePath.of(real_data / "mob_rep11" / "counts" / "Rep11_MOB_count_matrix-1.tsv.gz")
    section, _ = read(SectionSource("11", "11", "mouse", "legacy_st", counts, spot_px=72.56, options=OPTIONS))
    assert section.shape == (262, 16218)
    assert section.uns["raystp"]["mpp"] == pytest.approx(2.76, abs=0.005)
    assert (section.obsm["spatial"] > 0).all()
    assert (section.obsm["spatial"] < [2319, 2478]).all()
