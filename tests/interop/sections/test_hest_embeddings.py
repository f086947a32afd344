from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from raystp.errors import FormatError
from raystp.interop.choice import FolderChoice
from raystp.interop.features.tiles import TileVectors
from raystp.interop.registry import feature_format
from raystp.storage import StoragePath

HEST = feature_format("hest-embeddings")
CORNERS, NAMES = np.array([[4, 8], [60, 8], [4, 64]]), ["b", "c", "a"]
VECTORS = np.arange(12, dtype=np.float32).reshape(3, 4)


def hest_embeddings(folder: Path, **changes: Any) -> Path:
    """Write a file as the page of the format describes it."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {"embeddings": VECTORS, "coords": CORNERS, "barcodes": np.array(NAMES, object)[:, None], **changes}
    with h5py.File(folder / "S1.h5", "w") as file:
        for name, value in values.items():
            text = h5py.string_dtype() if value is not None and value.dtype == object else None
            if value is not None:
                file.create_dataset(name, data=value, dtype=text)
    return folder


def _read(folder: Path, choice: FolderChoice = FolderChoice(), mpp: float | None = 0.5) -> TileVectors:  # noqa: B008 -- frozen
    (files,) = HEST.find(StoragePath.of(folder), choice).slides
    return HEST.read(files, choice, mpp)


def test_a_file_of_the_bench_gives_vectors_corners_and_spots_and_a_side_of_112_um(tmp_path: Path) -> None:
    found = _read(hest_embeddings(tmp_path / "uni_v1"))
    np.testing.assert_array_equal(found.vectors, VECTORS)
    assert found.boxes.tolist() == [[x, y, 224.0] for x, y in CORNERS.tolist()]
    assert found.spots == ("b", "c", "a")
    assert found.notes == ("tiles are 112 um wide, as HEST's patches; side_um=... states another width",)


def test_another_side_is_stated_in_px_or_um(tmp_path: Path) -> None:
    folder = hest_embeddings(tmp_path / "uni_v1")
    assert set(_read(folder, FolderChoice(side_px=300.0), None).boxes[:, 2]) == {300.0}
    assert set(_read(folder, FolderChoice(side_um=56.0)).boxes[:, 2]) == {112.0}
    with pytest.raises(FormatError, match=r"carry no um/px: give the slide table .*; missing for 'S1'"):
        _read(folder, mpp=None)


def test_the_encoder_is_the_name_of_the_folder(tmp_path: Path) -> None:
    hest_embeddings(tmp_path / "uni_v1")
    assert HEST.find(StoragePath.of(tmp_path), FolderChoice()).encoder == "uni_v1"
    assert HEST.find(StoragePath.of(tmp_path / "uni_v1"), FolderChoice()).encoder == "uni_v1"
    hest_embeddings(tmp_path / "conch")
    with pytest.raises(FormatError, match="has embeddings of 'conch', 'uni_v1': choose one with encoder_name="):
        HEST.find(StoragePath.of(tmp_path), FolderChoice())
    assert HEST.find(StoragePath.of(tmp_path), FolderChoice(encoder="conch")).encoder == "conch"
    with pytest.raises(FormatError, match=r"has none; expected <encoder>/<id>.h5"):
        HEST.find(StoragePath.of(tmp_path / "absent"), FolderChoice())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"barcodes": None}, "has no dataset 'barcodes'; it has 'coords', 'embeddings'"),
        ({"barcodes": np.array(["a"], object)}, r"has 3 embeddings, and 'barcodes' has the shape \(1,\)"),
        ({"barcodes": np.arange(3)}, r"'barcodes' has the shape \(3,\) of int64: expected texts"),
        ({"barcodes": np.array(["a", "b", "a"], object)}, "'barcodes' has 'a' more than once"),
        ({"barcodes": np.array(["a", "", "b"], object)}, "'barcodes' has 0 characters in row 1; allowed are 1 to 256"),
        ({"coords": CORNERS[:2]}, "has 3 rows of vectors and 2 of coordinates"),
        (
            {"embeddings": np.where(VECTORS == 5, np.nan, VECTORS)},
            "has NaN or infinity in 1 of 3 vectors, the first in row 1",
        ),
    ],
)
def test_a_file_that_is_incomplete_is_refused_with_what_is_wrong(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(FormatError, match=message):
        _read(hest_embeddings(tmp_path / "uni_v1", **changes))


def test_a_written_file_reads_back_and_has_equal_bytes(tmp_path: Path) -> None:
    tiles = replace(_read(hest_embeddings(tmp_path / "uni_v1")), encoder="tiny", attributes={"artifact": "embed/x"})
    out = [StoragePath.of(tmp_path / name) for name in ("first", "second")]
    assert [list(HEST.write(tiles, folder)) for folder in out] == [[], []]
    first, second = (tmp_path / name / "tiny" / "S1.h5" for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()
    back = _read(tmp_path / "first" / "tiny")
    np.testing.assert_array_equal(back.vectors, tiles.vectors)
    np.testing.assert_array_equal(back.boxes, tiles.boxes)
    assert back.spots == tiles.spots
    with h5py.File(first, "r") as file:
        assert {name: file[name].shape for name in file} == {"barcodes": (3, 1), "coords": (3, 2), "embeddings": (3, 4)}
        assert file.attrs["raystp"] == '{"artifact": "embed/x"}'


def test_tiles_without_spots_cannot_be_joined_and_are_not_written(tmp_path: Path) -> None:
    tiles = replace(_read(hest_embeddings(tmp_path / "uni_v1")), spots=None)
    with pytest.raises(FormatError, match="has 3 tiles and 0 spots: hest-bench joins by name"):
        HEST.write(tiles, StoragePath.of(tmp_path / "out"))
