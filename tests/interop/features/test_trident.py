"""TRIDENT's files: what is read of them, their traps, and what is written."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from raystp.errors import FormatError
from raystp.interop.choice import FolderChoice
from raystp.interop.features.tiles import TileVectors
from raystp.interop.features.trident import find, magnification, read, write
from raystp.storage import StoragePath
from tests.interop.features.trident_maker import Maker, tissue

ANY = FolderChoice()


def _read(job: Path, choice: FolderChoice = ANY, mpp: float | None = 0.25) -> TileVectors:
    (files,) = find(StoragePath.of(job), choice).slides
    return read(files, choice, mpp)


def test_a_slide_has_its_corners_its_side_in_level_0_px_and_its_vectors(tmp_path: Path) -> None:
    tissue(tmp_path)
    slide = _read(Maker(tmp_path).write())
    assert slide.boxes[:, :2].tolist() == Maker(tmp_path).corners.tolist()
    assert set(slide.boxes[:, 2]) == {512.0}
    np.testing.assert_array_equal(slide.vectors, Maker(tmp_path).vectors)
    assert (slide.tile_px, slide.size, slide.mpp, slide.encoder) == (256, (4000, 3000), 0.25, "uni_v1")
    assert slide.tissue is not None
    assert slide.tissue.area == 1536 * 1024 - 50
    assert "savetodir" not in slide.attributes  # the text 'None' is no value


def test_two_scanners_of_one_magnification_have_different_sides_in_um(tmp_path: Path) -> None:
    sides = [float(_read(Maker(tmp_path / str(mpp)).write(), mpp=mpp).boxes[0, 2] * mpp) for mpp in (0.25, 0.265)]
    assert np.round(sides, 1).tolist() == [128.0, 135.7]


@pytest.mark.parametrize("start", ["", "20x_256px_0px_overlap", "20x_256px_0px_overlap/features_uni_v1"])
def test_a_job_a_grid_or_a_folder_of_features_is_the_same(tmp_path: Path, start: str) -> None:
    Maker(tmp_path).write()
    assert len(_read(tmp_path / start).boxes) == 6


def test_old_files_take_their_encoder_and_side_from_what_they_have(tmp_path: Path) -> None:
    maker = Maker(tmp_path, own={}, prefix="patch_features_")
    del maker.attributes["patch_size_level0"]
    slide = _read(maker.write())
    assert find(StoragePath.of(tmp_path), ANY).encoder == "uni_v1"
    assert slide.boxes[0, 2] == 512
    assert "computed from magnifications" in slide.notes[0]


def test_the_size_of_tiles_is_that_of_the_file_of_coordinates_where_the_features_have_none(tmp_path: Path) -> None:
    maker = Maker(tmp_path)
    maker.write()
    with h5py.File(maker.features, "a") as file:
        for name in list(file["coords"].attrs):
            del file["coords"].attrs[name]
    assert _read(tmp_path).boxes[0, 2] == 512


def test_a_side_may_be_a_float_and_half_precision_stays(tmp_path: Path) -> None:
    maker = Maker(tmp_path, vectors=np.ones((6, 4), np.float16))
    maker.attributes["patch_size_level0"] = 482.5
    slide = _read(maker.write())
    assert slide.boxes[0, 2] == 482.5
    assert slide.vectors.dtype == np.float16


def test_a_slide_without_tissue_has_no_tile(tmp_path: Path) -> None:
    slide = _read(Maker(tmp_path, corners=np.empty((0, 2), np.int64), vectors=np.empty((0, 4), np.float32)).write())
    assert slide.boxes.shape == (0, 3)
    assert slide.vectors.shape == (0, 4)


def _bomb(maker: Maker) -> None:
    with h5py.File(maker.features, "w") as file:
        for name, columns, kind in (("features", 4, "f2"), ("coords", 2, "i1")):
            file.create_dataset(name, shape=(10**9, columns), dtype=kind, chunks=(4096, columns))


def _link(maker: Maker) -> None:
    with h5py.File(maker.features, "a") as file:
        del file["features"]
        file["features"] = h5py.ExternalLink("/etc/passwd", "/features")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vectors": np.ones((5, 4), np.float32)}, "has 5 rows of vectors and 6 of coordinates: incomplete"),
        ({"vectors": np.full((6, 4), np.nan, np.float32)}, "NaN or infinity in 6 of 6 vectors, the first in row 0"),
        ({"vectors": np.ones((6, 4, 2), np.float32)[..., 0].astype("S3")}, "values of type |S3; expected numbers"),
        ({"corners": np.ones((6, 3))}, "'/coords' has the shape (6, 3); expected a row per tile with 2 columns"),
        ({"corners": np.full((6, 2), np.nan)}, "coordinates that are no finite numbers, the first in row 0"),
        (
            {"attributes": {"patch_size": 256}, "patches": False},
            "has no `patch_size_level0`, and no 'level0_magnification'",
        ),
        ({"attributes": {"patch_size_level0": "big"}}, "'patch_size_level0' is 'big'; expected a number above 0"),
        ({"attributes": {"patch_size_level0": 0}}, "'patch_size_level0' is 0; expected a number above 0"),
        (_bomb, "declares"),
        (_link, "links"),
    ],
)
def test_each_trap_has_its_sentence(tmp_path: Path, change: Any, message: str) -> None:
    maker = Maker(tmp_path) if callable(change) else replace(Maker(tmp_path), **change)
    maker.write()
    if callable(change):
        change(maker)
    with pytest.raises(FormatError) as raised:
        _read(tmp_path)
    assert message in str(raised.value)
    assert str(maker.features) in str(raised.value)


def test_a_folder_that_has_nothing_or_several_things_says_so(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="has the grids: none; give a job folder of TRIDENT"):
        _read(tmp_path)
    Maker(tmp_path).write()
    Maker(tmp_path, encoder="virchow2").write()
    with pytest.raises(FormatError, match="'uni_v1', 'virchow2': choose one with --set encoder_name="):
        _read(tmp_path)
    with pytest.raises(FormatError, match="not 'conch': choose one"):
        _read(tmp_path, FolderChoice(encoder="conch"))
    assert len(_read(tmp_path, FolderChoice(encoder="virchow2")).boxes) == 6
    Maker(tmp_path, grid="10x_256px_0px_overlap").write()
    with pytest.raises(FormatError, match="choose one with --set grid="):
        _read(tmp_path, FolderChoice(encoder="virchow2"))
    features = tmp_path / "10x_256px_0px_overlap" / "features_uni_v1"
    (features / "S2.pt").touch()
    choice = FolderChoice(grid="10x_256px_0px_overlap")
    _, second = find(StoragePath.of(tmp_path), choice).slides  # a slide that fails, beside one that does not
    pickled = r"S2\.pt holds a pickled array, which raystp does not open: save features as h5"
    with pytest.raises(FormatError, match=pickled):
        read(second, choice, 0.25)
    (features / "S1.h5").unlink()
    with pytest.raises(FormatError, match=pickled):
        find(StoragePath.of(tmp_path), choice)


def test_what_is_written_is_read_back_and_equal_tiles_give_equal_bytes(tmp_path: Path) -> None:
    first = replace(_read(Maker(tmp_path / "a").write()), attributes={"artifact": "embed/x"})
    for name in "bc":
        assert write(first, StoragePath.of(tmp_path / name)) == []
    again = _read(tmp_path / "b")
    np.testing.assert_array_equal(again.boxes, first.boxes)
    np.testing.assert_array_equal(again.vectors, first.vectors)
    assert (again.tile_px, again.size, again.encoder) == (first.tile_px, first.size, first.encoder)
    files = [sorted(path.relative_to(tmp_path / name) for path in (tmp_path / name).rglob("*.h5")) for name in "bc"]
    assert files[0] == files[1]
    assert all((tmp_path / "b" / one).read_bytes() == (tmp_path / "c" / one).read_bytes() for one in files[0])
    with h5py.File(tmp_path / "b" / files[0][1]) as file:  # as TRIDENT reads it: int sides stay int
        stored = file["coords"].attrs
        assert (stored["patch_size_level0"], stored["target_magnification"], stored["overlap"]) == (512, 20.0, 0)
        assert isinstance(stored["patch_size_level0"], np.integer)


def test_half_px_are_rounded_down_and_it_is_noted(tmp_path: Path) -> None:
    slide = _read(Maker(tmp_path).write())
    boxes = slide.boxes.copy()
    boxes[0, :2] = (0.5, 1.75)
    assert write(replace(slide, boxes=boxes), StoragePath.of(tmp_path / "out")) == [
        "1 of 6 corners were not whole px; moved by at most 0.5 px"
    ]
    assert _read(tmp_path / "out").boxes[0, :2].tolist() == [0.0, 2.0]


def test_slides_of_two_scanners_are_written_to_one_grid(tmp_path: Path) -> None:
    slide = replace(_read(Maker(tmp_path / "in").write()), tile_px=224, tile_um=112.0)
    for name, mpp, side in (("a", 0.2738, 409.0), ("b", 0.2265, 494.0)):
        boxes = np.concatenate([slide.boxes[:, :2], np.full((6, 1), side)], axis=1)
        write(replace(slide, slide=name, mpp=mpp, boxes=boxes), StoragePath.of(tmp_path / "out"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["20x_224px_0px_overlap"]


def test_tiles_that_the_format_cannot_hold_are_refused(tmp_path: Path) -> None:
    slide = _read(Maker(tmp_path).write())
    for change in ({"mpp": None}, {"tile_px": 0}, {"boxes": slide.boxes * [1, 1, 0] + np.arange(1, 7)[:, None]}):
        with pytest.raises(FormatError, match="one side, and need px and um/px"):
            write(replace(slide, **change), StoragePath.of(tmp_path / "out"))
    assert [magnification(mpp) for mpp in (0.1, 0.16, 0.25, 0.5, 1.0, 2.0)] == [80, 60, 40, 20, 10, 5]
    with pytest.raises(FormatError, match=r"no magnification for a scan of 2\.4 um/px"):
        magnification(2.4)
