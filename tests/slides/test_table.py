"""The slide table: the one file a user writes, so each mistake is reported with its line and its column."""

from pathlib import Path

import pytest

from raystp.errors import ArtifactError, ConfigError, StorageError
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


def test_a_demos_table_is_read_from_its_store(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no artifact 'demo/smoke' .*run `raystp demo` first"):
        read_slide_table("demo/smoke", None, str(tmp_path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slide,path\nA,a\n", " lacks the column 'patient'; a slide table has slide, path, patient and may have mpp"),
        ("slide,path,patient,mmp\nA,a,P,1\n", " has an unknown column 'mmp'; a slide table has"),
        (
            "slide;path;patient\nA;a;P\n",
            " lacks the column 'slide', 'path', 'patient' and has an unknown column 'slide;path",
        ),
        ("slide,path,patient,path\nA,a,P,b\n", " has the column 'path' more than once"),
        ("", " lacks the column 'slide', 'path', 'patient'"),
        ("slide,path,patient\n", " has no slide; add one row per slide"),
        ("slide,path,patient\nA,a,P\n\nB,b,\n", ", line 4: the column 'patient' is empty"),
        ("slide,path,patient\nA,a.svs\n", ", line 2: the column 'patient' is empty"),
        ("slide,path,patient\nA,a,b.svs,P\n", ", line 2: there are more cells than columns, 'P' too many; quote"),
        ("slide,path,patient\nA/1,a,P\n", ", line 2: 'A/1' is not a valid id; use up to 128 letters"),
        ("slide,path,patient,section\nA,a,P,..\n", ", line 2: '..' is not a valid id"),
        ("slide,path,patient\nA,a,P\nA,b,P\n", " has the slide 'A' more than once; each needs its own id"),
        ("slide,path,patient,section\nA,a,P,x\nB,b,P,x\n", " has the section 'x' more than once"),
        ("slide,path,patient,mpp\nA,a,P,half\n", ", line 2: mpp is 'half'; expected a number above 0, such as 0.5"),
        ("slide,path,patient,mpp\nA,a,P,nan\n", ", line 2: mpp is 'nan'; expected a number above 0"),
        ("slide,path,patient,mpp\nA,a,P,-1\n", ", line 2: mpp is '-1'; expected a number above 0"),
        ("slide,path,patient,mpp\nA,a,P,inf\n", ", line 2: mpp is 'inf'; expected a number above 0"),
        ('slide,path,patient,mpp\nA,a,P,"0,5"\n', ", line 2: mpp is '0,5'; expected a number above 0"),
        (
            "slide,path,patient,layout\nA,a,P,scverse\n",
            ", line 2: set both `layout` and `counts`, or neither; got 'scverse'",
        ),
    ],
)
def test_a_mistake_is_reported_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    assert _refused(tmp_path, text).startswith(message)


@pytest.mark.parametrize("content", ["slide,path,patient\nÄ,a,P".encode("latin-1"), "slide".encode("utf-16")])
def test_a_table_in_another_encoding_is_refused(tmp_path: Path, content: bytes) -> None:
    table = tmp_path / "slides.csv"
    table.write_bytes(content)
    with pytest.raises(ConfigError, match=r"slides.csv is not a CSV in UTF-8 \(.*\): save it as one"):
        read_slide_table(str(table), None, "store")


def test_a_cell_that_never_ends_is_refused(tmp_path: Path) -> None:
    assert "is not a CSV in UTF-8 (field larger than" in _refused(tmp_path, 'slide,path,patient\nA,"' + "x" * 200_000)


def test_a_table_that_is_absent_or_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no slide table at \S+/none.csv; it is a CSV with the columns slide, path"):
        read_slide_table(str(tmp_path / "none.csv"), None, "store")
    with pytest.raises(StorageError, match=f"cannot read {tmp_path}"):
        read_slide_table(str(tmp_path), None, "store")
