from pathlib import Path

import h5py
import numpy as np
import pytest

from raystp.errors import FormatError
from raystp.interop.sections.patches import PatchBatch, PatchGeometry, write
from raystp.storage import StoragePath

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)


def _geometry(**changes: object) -> PatchGeometry:
    corners = np.array([[0.0, 0.0], [16.0, 0.0], [-3.0, 7.0], [10.5, 2.25], [40.0, 4.0]])
    usual = {"corners": corners, "side": 16.0, "names": ("a", "b", "c", "d", "e"), "source": {"artifact": "tile/x"}}
    return PatchGeometry(slide="S1", tile_px=8, mpp=0.25, **{**usual, **changes})  # type: ignore[arg-type]


def _write(folder: Path, rows: list[list[int]], **changes: object) -> tuple[Path, list[str]]:
    batches = [PatchBatch(np.array(part), IMAGES[part]) for part in rows]
    notes = write(_geometry(**changes), batches, StoragePath.of(folder))
    return folder / "patches" / "S1.h5", list(notes)


def test_a_reader_of_hests_page_finds_images_corners_names_and_um_per_px(tmp_path: Path) -> None:
    path, _ = _write(tmp_path, [[0, 1, 2], [3, 4]])
    with h5py.File(path, "r") as file:
        img, coords, barcode = file["img"], file["coords"], file["barcode"]
        assert (img.dtype, img.chunks, coords.dtype, barcode.shape) == (np.uint8, (1, 8, 8, 3), np.int64, (5, 1))
        assert np.array_equal(img[:], IMAGES)
        assert coords[:3].tolist() == [[0, 0], [16, 0], [-3, 7]]
        assert [name.decode() for name in barcode[:].ravel()] == ["a", "b", "c", "d", "e"]
        named = {
            key: img.attrs[key] for key in ("patch_size_src", "patch_size_target", "downsample", "pixel_size", "name")
        }
        expected = {"patch_size_src": 16, "patch_size_target": 8, "downsample": 2.0, "pixel_size": 0.25, "name": "S1"}
        assert named == expected
        assert isinstance(img.attrs["patch_size_src"], np.integer)
        assert file.attrs["raystp"] == '{"artifact": "tile/x"}'


def test_corners_between_px_are_rounded_half_down_and_counted(tmp_path: Path) -> None:
    path, notes = _write(tmp_path, [[0, 1, 2, 3, 4]])
    with h5py.File(path, "r") as file:
        assert file["coords"][3].tolist() == [10, 2]
    assert notes == ["1 of 5 corners were not whole px; moved by at most 0.5 px"]


def test_any_batches_give_equal_bytes(tmp_path: Path) -> None:
    first, _ = _write(tmp_path / "a", [[0, 1, 2, 3, 4]])
    second, _ = _write(tmp_path / "b", [[0], [1, 2, 3], [4]])
    assert first.read_bytes() == second.read_bytes()


def test_a_tile_that_cannot_be_read_has_no_image_and_the_others_keep_their_names(tmp_path: Path) -> None:
    path, notes = _write(tmp_path, [[0, 2], [4]])
    with h5py.File(path, "r") as file:
        assert np.array_equal(file["img"][:], IMAGES[[0, 2, 4]])
        assert [name.decode() for name in file["barcode"][:].ravel()] == ["a", "c", "e"]
        assert file["coords"][:].tolist() == [[0, 0], [-3, 7], [40, 4]]
    assert notes == ["2 of 5 tiles cannot be read and have no image"]


def test_a_side_between_px_is_kept(tmp_path: Path) -> None:
    path, _ = _write(tmp_path, [[0, 1]], side=18.4)
    with h5py.File(path, "r") as file:
        assert (file["img"].attrs["patch_size_src"], file["img"].attrs["downsample"]) == (18.4, 2.3)


def test_without_a_tile_or_with_one_name_twice_no_file_is_left(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="'S1' has no tile that can be read"):
        _write(tmp_path, [])
    with pytest.raises(FormatError, match="several tiles are named 'a'"):
        _write(tmp_path, [[0]], names=("a", "b", "a", "d", "e"))
    assert list(tmp_path.rglob("*.h5")) == []
