"""The slide table: the one file a user writes, so each mistake is reported with its line and its column."""

import csv
import logging
from pathlib import Path

import pytest

from raystp.errors import ArtifactError, ConfigError
from raystp.slides.table import SlideRow, read_slide_table
from raystp.storage import StoragePath


def _read(tmp_path: Path, text: str, root: str | None = None) -> list[SlideRow]:
    table = tmp_path / "slides.csv"
    table.write_text(text, encoding="utf-8")
    return read_slide_table(str(table), root, str(tmp_path / "store"))


def _refused(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        _read(tmp_path, text)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'slides.csv'}")
    return message.removeprefix(f"{tmp_path / 'slides.csv'}")


def test_a_row_has_all_columns_of_a_slide(tmp_path: Path) -> None:
    header = "slide,path,patient,mpp,layout,counts,positions,section,spot_px"
    full, bare = _read(
        tmp_path, f"{header}\nA, a.svs ,P1,0.5,legacy_st,c.tsv,/p.tsv,first,100\nB,s3://b/b.svs,P2,,,,,,\n"
    )
    folder = StoragePath.of(tmp_path)
    assert full == SlideRow(
        "A", folder / "a.svs", "P1", 0.5, "legacy_st", folder / "c.tsv", StoragePath.of("/p.tsv"), "first", 100.0
    )
    assert bare == SlideRow("B", StoragePath.of("s3://b/b.svs"), "P2", None, None, None, None, "B", None)


def test_three_columns_are_enough_in_any_order_with_a_byte_order_mark_and_empty_lines(tmp_path: Path) -> None:
    one, two = _read(tmp_path, '\ufeffpatient,slide,path\r\n\r\nP1,A,"a,b.svs"\r\n\r\nP2,B,b.svs\r\n')
    assert (one.slide, one.path.name, two.patient) == ("A", "a,b.svs", "P2")


def test_relative_paths_start_from_the_root_where_one_is_given(tmp_path: Path) -> None:
    (row,) = _read(tmp_path, "slide,path,patient\nA,a/b.svs,P\n", root="s3://bucket/data?region=x")
    assert row.path == StoragePath.of("s3://bucket/data/a/b.svs?region=x")


PATHS = [
    "a b.tif",
    "#1.tif",
    "100%41.tif",
    "a?b.tif",
    "Ä ö.tif",
    "'q\".tif",
    "[a].tif",
    "x;y, z.tif",
    "~x.tif",
    "$x.tif",
]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_path_is_the_text_of_its_cell(tmp_path: Path, separator: str) -> None:
    with (tmp_path / "slides.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=separator)
        writer.writerows([["slide", "path", "patient"], *([f"S{n}", path, "P"] for n, path in enumerate(PATHS))])
    rows = read_slide_table(str(tmp_path / "slides.csv"), None, "store")
    assert [row.path.local_path for row in rows] == [tmp_path / path for path in PATHS]


def test_a_demos_table_is_read_from_its_store(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no artifact 'demo/smoke' .*run `raystp demo` first"):
        read_slide_table("demo/smoke", None, str(tmp_path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slide,patient\nA,P\n", " lacks the column 'path'; a slide table has path and may have slide, patient, mpp"),
        (
            "slide,path,patient,mppp\nA,a,P,1\n",
            " has an unknown column 'mppp', did you mean 'mpp'? (or name it x_mppp); a slide table has",
        ),
        (
            "slide,path,patients\nA,a,P\n",
            " has an unknown column 'patients', did you mean 'patient'?",
        ),
        ("slide,path,patient,Path\nA,a,P,b\n", " has the column 'path' more than once"),
        ("slide,path,patient,path\nA,a,P,b\n", " has the column 'path' more than once"),
        ("", " lacks the column 'path'"),
        ("slide,path,patient\n", " has no slide; add one row per slide"),
        ("slide,path,patient\nA,a,P\n\n,b,\n", ", line 4: the column 'slide' is empty"),
        ("slide,path,patient\nA\n", ", line 2: the column 'path' is empty"),
        (
            "slide,path,patient,layout,counts\nA,a,,scverse,b\n",
            ", line 2: the column 'patient' is empty; a measured section needs its patient",
        ),
        (
            "slide,path,patient\nA,a,b.svs,P\n",
            ", line 2: there are more cells than columns, 'P' too many; the cells are separated",
        ),
        ("slide,path,patient\nA/1,a,P\n", ", line 2: 'A/1' is not a valid id; use up to 128 letters"),
        ("slide,path,patient,section\nA,a,P,..\n", ", line 2: '..' is not a valid id"),
        ("slide,path,patient\nA,a,P\nA,b,P\n", " has the slide 'A' more than once; each needs its own id"),
        ("slide,path,patient,section\nA,a,P,x\nB,b,P,x\n", " has the section 'x' more than once"),
        ("slide,path,patient,mpp\nA,a,P,half\n", ", line 2: mpp is 'half'; expected a number above 0, such as 0.5"),
        ("slide,path,patient,mpp\nA,a,P,nan\n", ", line 2: mpp is 'nan'; expected a number above 0"),
        ("slide,path,patient,mpp\nA,a,P,-1\n", ", line 2: mpp is '-1'; expected a number above 0"),
        ("slide,path,patient,mpp\nA,a,P,inf\n", ", line 2: mpp is 'inf'; expected a number above 0"),
        ("slide,path,patient,mpp\nA,a,P,1_0\n", ", line 2: mpp is '1_0'; expected a number above 0"),
        ('slide,path,patient,mpp\nA,a,P,"1,234"\n', ", line 2: mpp is '1,234'; expected a number above 0"),
        ("slide,path,patient,mpp\nA,a,P,250 nm\n", ", line 2: mpp is '250 nm'; expected a number above 0, such as 0.5"),
        (
            "slide,path,patient,mpp\nA,a,P,250\n",
            ", line 2: mpp is '250'; expected um/px from 0.01 to 100: are these nm?",
        ),
        (
            "slide,path,patient,layout\nA,a,P,scverse\n",
            ", line 2: set both `layout` and `counts`, or neither; got 'scverse'",
        ),
    ],
)
def test_a_mistake_is_reported_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    assert _refused(tmp_path, text).startswith(message)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("slide,path,patient,diagnosis,x_age", "the columns 'diagnosis' are not read; name a covariate x_<name>"),
        (" Slide ,PATH,patient,x_a,x_age", "the column 'Slide', 'PATH' is read as 'slide', 'path'"),
        ("slide,path,patient,patient_id,x_age", "the columns 'patient_id' are not read"),
        ("slide,path,patient,,x_age", "column 4 has no name and is not read"),
    ],
)
def test_a_column_that_is_not_read_is_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, header: str, message: str
) -> None:
    with caplog.at_level(logging.WARNING, "raystp"):
        first, second = _read(tmp_path, f"{header}\nA,a,P,D,60\nB,b,Q,D,61\n")
    assert (first.slide, first.path.name, second.covariates["x_age"]) == ("A", "a", "61")
    (record,) = caplog.records
    assert message in record.getMessage()


def test_covariates_are_kept_without_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "raystp"):
        (row,) = _read(tmp_path, "slide,path,patient,x_age,x_stage\nA,a,P,60,II\n")
    assert (row.covariates, caplog.records) == ({"x_age": "60", "x_stage": "II"}, [])


@pytest.mark.parametrize("mpp", ["0.5", "0,5", ".5", "5e-1", "0.5 um", "0,5 µm/px", "0.5mpp", "0.5 Microns"])
def test_um_per_px_is_read_with_a_decimal_comma_or_its_unit(tmp_path: Path, mpp: str) -> None:
    (row,) = _read(tmp_path, f'slide,path,patient,mpp\nA,a,P,"{mpp}"\n')
    assert row.mpp == 0.5


@pytest.mark.parametrize("empty", ["", "NA", "n/a", "NULL", "None"])
def test_an_empty_cell_of_r_or_pandas_is_empty(tmp_path: Path, empty: str) -> None:
    (row,) = _read(tmp_path, f"slide,path,patient,mpp,layout,counts,section\nA,a,P,{empty},{empty},{empty},{empty}\n")
    assert (row.mpp, row.layout, row.counts, row.section) == (None, None, None, "A")


def test_patients_stay_as_written_and_look_alikes_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = ["007", "NO", "1e5", "null", "2020-01-01", "P 1", "p1", "M\u00fcller", "Mu\u0308ller"]
    text = "".join(f"S{number},a,\u00a0{name} \n" for number, name in enumerate(names))
    with caplog.at_level(logging.WARNING, "raystp"):
        rows = _read(tmp_path, f"slide,path,patient\n{text}")
    assert [row.patient for row in rows] == [*names[:8], "M\u00fcller"]  # two forms of one letter are one patient
    assert [record.getMessage().partition(": ")[2] for record in caplog.records] == [
        "the patients 'P 1', 'p1' count as different patients; is it one?",
        "patient 'null' is taken as one patient's name",
    ]


def test_a_table_that_is_absent_or_a_folder_without_slides_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no slide table at \S+/none.csv; it is a CSV with the columns slide, path"):
        read_slide_table(str(tmp_path / "none.csv"), None, "store")
    with pytest.raises(ConfigError, match=f"the folder has no slide file, {tmp_path}; slides are .svs"):
        read_slide_table(str(tmp_path), None, "store")
