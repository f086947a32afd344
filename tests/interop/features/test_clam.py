"""CLAM's files: what is read of them, their traps, and what is written."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from raystp.errors import FormatError
from raystp.interop.choice import FolderChoice
from raystp.interop.features.clam import find, read, write
from raystp.interop.features.tiles import TileVectors
from raystp.storage import StoragePath
from tests.interop.features.makers import CORNERS, VECTORS, Clam, bomb, link

ANY = FolderChoice()


def _read(folder: Path, choice: FolderChoice = ANY, mpp: float | None = 0.25) -> TileVectors:
    (files,) = find(StoragePath.of(folder), choice).slides
    return read(files, choice, mpp)


def test_the_side_of_a_tile_is_that_of_its_level_times_the_downsampling(tmp_path: Path) -> None:
    slide = _read(Clam(tmp_path).write(), FolderChoice(encoder="uni_v1"))
    np.testing.assert_array_equal(slide.boxes, np.column_stack([CORNERS, np.full(6, 512)]))
    np.testing.assert_array_equal(slide.vectors, VECTORS)
    assert (slide.encoder, slide.mpp, slide.size) == ("uni_v1", 0.25, None)  # level_dim is of level 1
    maker = Clam(tmp_path / "b")
    maker.attributes |= {"custom_downsample": 2, "patch_level": 0, "downsample": (1.0, 1.0), "level_dim": (4000, 3000)}
    slide = _read(maker.write())
    assert (slide.boxes[0, 2], slide.size) == (512, (4000, 3000))


@pytest.mark.parametrize("start", ["features", "features/h5_files"])
def test_patches_may_lie_beside_the_folder_of_features(tmp_path: Path, start: str) -> None:
    Clam(tmp_path / "features").write()
    (tmp_path / "features" / "patches").rename(tmp_path / "patches")
    assert _read(tmp_path / start).boxes[0, 2] == 512


def test_without_patches_the_side_is_the_one_that_is_given(tmp_path: Path) -> None:
    Clam(tmp_path, patches=None).write()
    assert _read(tmp_path, FolderChoice(side_px=300.0)).boxes[0, 2] == 300
    slide = _read(tmp_path, FolderChoice(side_um=100.0))
    assert slide.boxes[0, 2] == 400
    assert slide.notes == ("the side of 400 px is the one that was given",)
    with pytest.raises(FormatError, match=r"side_um=100 needs um/px"):
        _read(tmp_path, FolderChoice(side_um=100.0), mpp=None)
    with pytest.raises(FormatError, match=r"CLAM features carry no tile size: give patches/, side_px or side_um"):
        _read(tmp_path)


def test_a_tensor_is_read_with_the_coordinates_of_patches(tmp_path: Path) -> None:
    slide = _read(Clam(tmp_path, h5=False, pt=torch.from_numpy(VECTORS).half()).write())
    np.testing.assert_array_equal(slide.vectors, VECTORS.astype(np.float16))
    assert slide.vectors.dtype == np.float16
    np.testing.assert_array_equal(slide.boxes[:, :2], CORNERS)


def test_images_beside_the_coordinates_and_slides_without_tiles_are_no_fault(tmp_path: Path) -> None:
    Clam(tmp_path).write()
    with h5py.File(tmp_path / "patches" / "S1.h5", "a") as file:
        file["imgs"] = np.zeros((6, 8, 8, 3), np.uint8)
    assert len(_read(tmp_path).boxes) == 6
    none = np.empty((0, 2), np.int32)
    slide = _read(Clam(tmp_path / "b", corners=none, patches=none, vectors=np.empty((0, 4), np.float32)).write())
    assert slide.vectors.shape == (0, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vectors": VECTORS[:5]}, "has 5 rows of vectors and 6 of coordinates: incomplete"),
        ({"patches": CORNERS[:5]}, "has 6 rows of vectors and 5 of coordinates: incomplete"),
        ({"patches": CORNERS + 1}, "differ in the coordinates of 6 tiles, the first in row 0: they are of different"),
        ({"vectors": VECTORS * np.nan}, "NaN or infinity in 6 of 6 vectors, the first in row 0"),
        ({"corners": CORNERS[:, :1]}, "'/coords' has the shape (6, 1); expected a row per tile with 2 columns"),
        ({"attributes": {"patch_size": 256, "patch_level": 2}}, "`patch_size` is px of level 2, and `downsample` is"),
        ({"attributes": {"patch_size": "None"}}, "CLAM features carry no tile size"),
        ({"attributes": {"patch_size": -1}}, "'patch_size' is -1; expected a number above 0"),
        ({"h5": False, "pt": VECTORS}, "S1.pt holds a pickled array or object, which raystp does not open: save"),
        ({"h5": False, "pt": torch.ones(5, 4)}, "has 5 rows of vectors and 6 of coordinates"),
        ({"h5": False, "pt": torch.ones(6, 4), "patches": None}, "has vectors and no coordinates: give patches/S1.h5"),
        ({"h5": False, "pt": {"features": torch.ones(6, 4)}}, "S1.pt holds a dict, expected one dense tensor"),
    ],
)
def test_each_trap_has_its_sentence(tmp_path: Path, change: Any, message: str) -> None:
    with pytest.raises(FormatError) as raised:
        _read(replace(Clam(tmp_path), **change).write())
    assert message in str(raised.value)


def test_bombs_and_links_to_other_files_are_not_read(tmp_path: Path) -> None:
    maker = Clam(tmp_path)
    maker.write()
    link(maker.vectors_file, "features")
    with pytest.raises(FormatError, match="links to another file"):
        _read(tmp_path)
    bomb(maker.vectors_file, ("features", "coords"))
    with pytest.raises(FormatError, match="declares"):
        _read(tmp_path)


def test_a_folder_without_features_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"has no h5_files/<slide>\.h5 and no pt_files/<slide>\.pt"):
        _read(Clam(tmp_path, h5=False).write())


def test_what_is_written_is_read_back_and_equal_tiles_give_equal_bytes(tmp_path: Path) -> None:
    slide = replace(_read(Clam(tmp_path / "a").write()), size=(4000, 3000), attributes={"artifact": "embed/x"})
    for name in "bc":
        assert write(slide, StoragePath.of(tmp_path / name)) == []
    again = _read(tmp_path / "b")
    np.testing.assert_array_equal(again.boxes, slide.boxes)
    np.testing.assert_array_equal(again.vectors, slide.vectors)
    assert again.size == (4000, 3000)
    files = [sorted(one.relative_to(tmp_path / name) for one in (tmp_path / name).rglob("*.*")) for name in "bc"]
    assert [str(one) for one in files[0]] == ["h5_files/S1.h5", "patches/S1.h5", "pt_files/S1.pt"]
    assert files[0] == files[1]
    assert all((tmp_path / "b" / one).read_bytes() == (tmp_path / "c" / one).read_bytes() for one in files[0])


def test_what_is_written_is_what_the_description_says(tmp_path: Path) -> None:
    write(replace(_read(Clam(tmp_path / "a").write()), attributes={"x": 1}), StoragePath.of(tmp_path))
    with h5py.File(tmp_path / "h5_files" / "S1.h5") as file:
        assert (file["features"].dtype, file["coords"].dtype) == (np.float32, np.int32)
        assert dict(file["coords"].attrs) == dict(file["features"].attrs) == {}
    with h5py.File(tmp_path / "patches" / "S1.h5") as file:
        stored = file["coords"].attrs
        assert (stored["patch_size"], stored["patch_level"], list(stored["downsample"])) == (512, 0, [1.0, 1.0])
    tensor = torch.load(tmp_path / "pt_files" / "S1.pt", weights_only=True)
    assert (tensor.dtype, tuple(tensor.shape)) == (torch.float32, (6, 4))


def test_what_the_format_cannot_hold_is_said_or_refused(tmp_path: Path) -> None:
    slide = _read(Clam(tmp_path / "a").write())
    boxes = slide.boxes + np.array([0.5, 0, 0.25])
    assert write(replace(slide, boxes=boxes), StoragePath.of(tmp_path / "b")) == [
        "6 of 6 corners were not whole px; moved by at most 0.5 px",
        "the side of 512.25 px was written as 512 px: files of CLAM hold whole px",
    ]
    np.testing.assert_array_equal(_read(tmp_path / "b").boxes, slide.boxes)
    sides = slide.boxes.copy()
    sides[0, 2] = 600
    with pytest.raises(FormatError, match=r"has tiles of 2 sides, 512 to 600 px: CLAM holds one"):
        write(replace(slide, boxes=sides), StoragePath.of(tmp_path / "c"))
    with pytest.raises(FormatError, match="has a corner beyond 32 bits"):
        write(replace(slide, boxes=slide.boxes + np.array([3e9, 0, 0])), StoragePath.of(tmp_path / "c"))
