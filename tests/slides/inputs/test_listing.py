"""Slides without a table: a folder or a glob lists each slide once, in sorted order, with an id that is safe."""

import errno
import glob
import os
import re
from pathlib import Path

import pytest

from raystp.errors import ConfigError
from raystp.slides.inputs.ids import barcode_patient, slide_ids, stem_of
from raystp.slides.inputs.listing import _expression, find_slides, is_pattern
from raystp.storage import is_safe_name


def _make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def _names(text: Path | str, store: Path | str = "/none") -> list[str]:
    return find_slides(str(text), store=str(store)).names


def test_a_folder_lists_slides_below_it_in_sorted_order_without_hidden_files(tmp_path: Path) -> None:
    _make(tmp_path, "b.svs", "a/z.NDPI", "a/y.tiff", ".cache/x.svs", "._b.svs", "__MACOSX/b.svs", "notes.txt")
    assert _names(tmp_path) == ["a/y.tiff", "a/z.NDPI", "b.svs"]


def test_a_slide_of_several_files_is_listed_once(tmp_path: Path) -> None:
    _make(tmp_path, "m.mrxs", "m/Data0001.tif", "m/Slidedat.ini", "v/x.vms", "v/x(0,1).jpg", "o.svs")
    assert _names(tmp_path) == ["m.mrxs", "o.svs", "v/x.vms"]


def test_files_of_one_dicom_series_are_one_slide_named_by_its_folder(tmp_path: Path) -> None:
    def dicom(series: bytes) -> bytes:
        return b"\0" * 128 + b"DICM" + b"\x20\x00\x0e\x00UI" + len(series).to_bytes(2, "little") + series

    _make(tmp_path, "A/1.dcm", "A/2.dcm", "B/1.dcm", "B/2.dcm")
    for name, series in {"A/1": b"1.2", "A/2": b"1.2", "B/1": b"1.3", "B/2": b"1.4"}.items():
        (tmp_path / f"{name}.dcm").write_bytes(dicom(series))
    found = find_slides(str(tmp_path), store="/none")
    assert dict(zip(found.names, found.ids(), strict=True)) == {"A/1.dcm": "A", "B/1.dcm": "1", "B/2.dcm": "2"}


def test_pictures_beside_scans_are_left_out_unless_a_glob_names_them(tmp_path: Path) -> None:
    _make(tmp_path, "a.svs", "a.png", "b.jpg")
    found = find_slides(str(tmp_path), store="/none")
    assert found.names == ["a.svs"]
    assert found.notes == ["2 PNG and JPEG files beside the 1 slides are left out; a glob can name them"]
    assert _names(tmp_path / "*.[jp]*g") == ["a.png", "b.jpg"]
    assert _names(_make(tmp_path / "only", "x.png")) == ["x.png"]


def test_results_of_raystp_below_a_folder_are_not_slides(tmp_path: Path) -> None:
    _make(tmp_path, "a.tif", "out/tile/t-1/manifest.json", "out/tile/t-1/thumbnails/a.tif", "store/tile/t-2/a.tif")
    assert _names(tmp_path, store=tmp_path / "store") == ["a.tif"]


def test_a_glob_lists_what_it_matches(tmp_path: Path) -> None:
    _make(tmp_path, "a/x.svs", "b/x.svs", "b/c/y.svs", "b/c/y.tif", "a/[1].svs")
    assert _names(tmp_path / "*" / "x.svs") == ["a/x.svs", "b/x.svs"]
    assert _names(tmp_path / "b" / "**" / "*.svs") == ["c/y.svs", "x.svs"]
    assert not is_pattern(str(tmp_path / "a" / "[1].svs"))  # a file of this very name


def test_a_link_to_a_folder_above_ends(tmp_path: Path) -> None:
    _make(tmp_path, "a/x.svs", "real/y.svs")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "b.svs").symlink_to(tmp_path / "a" / "x.svs")
    assert _names(tmp_path) == ["a/x.svs", "b.svs", "real/y.svs"]


def test_a_folder_that_cannot_be_listed_is_named_in_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _make(tmp_path, "a.svs", "closed/b.svs")
    listed = os.scandir

    def scan(folder: str) -> object:
        if str(folder).endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", folder)
        return listed(folder)

    monkeypatch.setattr(os, "scandir", scan)
    assert _names(tmp_path) == ["a.svs"]
    assert f"{tmp_path / 'closed'} cannot be listed (Permission denied): its files are left out" in caplog.text


@pytest.mark.parametrize(
    "pattern", ["*.svs", "*/*.svs", "**/*.svs", "a/**", "**", "a/**/y.svs", "[ab]/*", "[!a]/*", "a**.svs", "x**"]
)
def test_a_glob_in_an_object_store_is_that_of_this_machine(tmp_path: Path, pattern: str) -> None:
    names = ["x.svs", "axe.svs", "a/x.svs", "a/b/y.svs", "b/x.svs"]
    _make(tmp_path, *names)
    local = [path for path in glob.glob(pattern, root_dir=tmp_path, recursive=True) if (tmp_path / path).is_file()]  # noqa: PTH207 -- as the listing does
    remote = re.compile(_expression(pattern))
    assert sorted(name for name in names if remote.fullmatch(name)) == sorted(local)


def test_a_folder_without_slides_says_what_it_has(tmp_path: Path) -> None:
    _make(tmp_path, "a.txt", "b.h5")
    with pytest.raises(ConfigError, match=r"the folder has no slide file, \S+; its 2 files are .h5, .txt; slides are"):
        _names(tmp_path)
    with pytest.raises(ConfigError, match="the glob matches no slide file"):
        _names(tmp_path / "*.svs")


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (["a.svs", "x/b.ome.tif"], ["a", "b"]),
        (["1/s.svs", "2/s.svs", "t.svs"], ["1_s", "2_s", "t"]),
        (["s.svs", "s.tif"], ["s.svs", "s.tif"]),
        (["Müller (2).svs", "a b;c.svs"], ["Muller_2_", "a_b_c"]),
        (["../../etc/s.svs"], ["s"]),
        (["TCGA-A1-A0SB-01Z-00-DX1.B34C.svs"], ["TCGA-A1-A0SB-01Z-00-DX1.B34C"]),
    ],
)
def test_an_id_is_the_files_name_made_safe_and_unique(names: list[str], ids: list[str]) -> None:
    assert slide_ids(names) == ids


def test_any_names_give_different_safe_ids() -> None:
    names = [
        "甲.svs",
        "乙.svs",
        "...svs",
        "a/..svs",
        "x" * 300 + ".svs",
        "x" * 301 + ".svs",
        "a/b.svs",
        "a_b.svs",
        "b.svs",
    ]
    ids = slide_ids(names)
    assert len(set(ids)) == len(names)
    assert all(is_safe_name(one) for one in ids)
    assert slide_ids(names[::-1]) == ids[::-1]


def test_the_patient_of_a_barcode_is_its_first_three_fields() -> None:
    assert barcode_patient("TCGA-A1-A0SB-01Z-00-DX1.B34C") == "TCGA-A1-A0SB"
    assert barcode_patient("slide_TCGA-A1-A0SB") == "TCGA-A1-A0SB"
    assert [barcode_patient(name) for name in ("TCGA-A1", "xTCGA-A1-A0SB", "TCGA-A1-A0SBX", "A1")] == ["", "", "", ""]
    assert stem_of("a/b.c.svs") == "b.c"
