"""A file of image patches as a slide: its pixels, its um/px, and the files that are refused before they are read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from raystp.errors import SlideError
from raystp.slides.open import Slide, open_slide, read_tiles, read_tiles_or_fail
from raystp.slides.patches.join import join_spots
from raystp.slides.patches.slide import PatchSlide
from raystp.storage import StoragePath
from raystp.units import TilePixels
from tests.slides.patches.files import HEST, SIDE, SOURCE_MPP, images, write_patches


def _open(path: Path, mpp: float | None = None) -> PatchSlide:
    slide = open_slide("S1", StoragePath.of(path), given_mpp=mpp)
    assert isinstance(slide, PatchSlide)
    assert isinstance(slide, Slide)
    return slide


def _boxes(slide: PatchSlide) -> np.ndarray:
    corners = slide.header.corners
    return np.concatenate([corners, np.full((len(corners), 1), float(slide.scale.side))], axis=1)


def test_a_patch_of_the_tiles_size_is_read_as_it_is_stored_in_any_order(tmp_path: Path) -> None:
    img = images(7)
    with _open(write_patches(tmp_path / "S1.h5", img)) as slide:
        order = np.array([3, 0, 6, 3, 5])
        np.testing.assert_array_equal(read_tiles(slide, _boxes(slide)[order], TilePixels(224), threads=3), img[order])
        assert (float(slide.mpp), slide.mpp_from, slide.own_mpp) == (SOURCE_MPP, "slide", SOURCE_MPP)
        assert float(slide.scale.side) == SIDE
        assert (slide.width, slide.height) == (376 + 4 * 400 + SIDE, 276 + 400 + SIDE)


@pytest.mark.parametrize("tile_px", [112, 256])
def test_a_patch_of_another_size_is_resampled_as_the_same_image_of_a_slide_is(tmp_path: Path, tile_px: int) -> None:
    img = images(1)
    Image.fromarray(img[0]).save(tmp_path / "flat.png")
    with open_slide("F", StoragePath.of(tmp_path / "flat.png"), given_mpp=0.5) as flat:
        expected = read_tiles(flat, np.array([[0.0, 0.0, 224.0]]), TilePixels(tile_px))[0]
    with _open(write_patches(tmp_path / "S1.h5", img)) as slide:
        found = read_tiles(slide, _boxes(slide), TilePixels(tile_px))[0]
    inner = slice(2, -2)  # a slide's filter also sees what is around the tile; of a patch nothing is stored
    np.testing.assert_array_equal(found[inner, inner], expected[inner, inner])


def test_only_a_files_own_patches_can_be_read(tmp_path: Path) -> None:
    with _open(write_patches(tmp_path / "S1.h5", images(2))) as slide:
        for box in ([0.0, 0.0, 448.0], [376.0, 276.0, 224.0]):
            with pytest.raises(SlideError, match=r"is a file of 2 image patches .* only its own patches can be read"):
                read_tiles(slide, np.array([box]), TilePixels(224))


def test_a_damaged_image_costs_that_tile_alone(tmp_path: Path) -> None:
    path = tmp_path / "S1.h5"
    with h5py.File(write_patches(path, images(3)), "r+") as file:
        data, attributes = file["img"][:], dict(file["img"].attrs)
        del file["img"]
        packed = file.create_dataset("img", data=data, chunks=(1, 224, 224, 3), compression="gzip", fletcher32=True)
        packed.attrs.update(attributes)
        at = packed.id.get_chunk_info(1).byte_offset
    content = bytearray(path.read_bytes())
    content[at + 50 : at + 80] = bytes(30)
    path.write_bytes(content)
    with _open(path) as slide:
        tiles, failed = read_tiles_or_fail(slide, _boxes(slide), TilePixels(224))
        assert list(failed) == [1]
        assert "row 1, cannot be read (OSError" in failed[1]
        assert (tiles[1] == 255).all()
        np.testing.assert_array_equal(tiles[[0, 2]], data[[0, 2]])
        assert slide.thumbnail(100).shape == (round(100 * slide.height / slide.width), 100, 3)


def test_the_mosaic_has_each_patch_at_its_place_and_white_between(tmp_path: Path) -> None:
    img = np.full((2, 224, 224, 3), 10, np.uint8)
    img[1] = 90
    coords = np.array([[0, 0], [896, 448]])
    with _open(write_patches(tmp_path / "S1.h5", img, coords=coords)) as slide:
        image = slide.thumbnail(300)
    expected = np.full((200, 300), 255, np.uint8)
    expected[:100, :100], expected[100:, 200:] = 10, 90
    np.testing.assert_array_equal(image[:, :, 0], expected)


WITHOUT: dict[str, Any] = {"name": "img"}


@pytest.mark.parametrize(
    ("attributes", "mpp", "expected"),
    [
        (HEST, None, (0.25, 448.0)),
        (HEST, 0.25, (0.25, 448.0)),
        (HEST, 0.5, (0.25, 448.0)),
        ({"patch_size_src": 448}, 0.5, (0.25, 448.0)),
        ({"downsample": 2}, 0.5, (0.25, 448.0)),
        ({"pixel_size": 0.25}, 0.5, (0.25, 448.0)),
        ({"pixel_size": "None", "patch_size_src": float("nan")}, 0.5, (0.5, 224.0)),
        (WITHOUT, 0.5, (0.5, 224.0)),
    ],
)
def test_the_um_per_px_is_the_files_or_that_of_the_patches_by_the_table(
    tmp_path: Path, attributes: dict[str, Any], mpp: float | None, expected: tuple[float, float]
) -> None:
    with _open(write_patches(tmp_path / "S1.h5", images(1), attributes=attributes), mpp) as slide:
        assert (slide.mpp, slide.scale.side) == pytest.approx(expected)
        assert slide.scale.patch_mpp(224) == pytest.approx(0.5)
        assert bool(slide.warnings) == (expected[1] == 224.0)


@pytest.mark.parametrize("attributes", [WITHOUT, {"pixel_size": 0.25}, {"patch_size_src": 448}])
def test_without_attributes_the_um_per_px_is_asked_for_and_never_guessed(
    tmp_path: Path, attributes: dict[str, Any]
) -> None:
    missing = " and no ".join(name for name in ("patch_size_src", "pixel_size") if name not in attributes)
    path = write_patches(tmp_path / "S1.h5", images(1), attributes=attributes)
    with pytest.raises(SlideError, match=f"no attribute {missing}, so their um/px is not known; set the column `mpp`"):
        _open(path)


def test_a_um_per_px_that_is_neither_the_files_nor_its_slides_is_refused(tmp_path: Path) -> None:
    path = write_patches(tmp_path / "S1.h5", images(1))
    with pytest.raises(SlideError, match=r"table gives 0.35 um/px, and the file has 0.5 um/px .* a slide of 0.25"):
        _open(path, 0.35)


def _rewrite(name: str, **options: Any) -> Callable[[h5py.File, Path], None]:
    def change(file: h5py.File, _: Path) -> None:
        attributes = dict(file[name].attrs)
        del file[name]
        file.create_dataset(name, **options).attrs.update(attributes)

    return change


def _remove(name: str) -> Callable[[h5py.File, Path], None]:
    def change(file: h5py.File, _: Path) -> None:
        del file[name]

    return change


def _link(file: h5py.File, folder: Path) -> None:
    write_patches(folder / "other.h5", images(3))
    del file["img"]
    file["img"] = h5py.ExternalLink(str(folder / "other.h5"), "/img")


def _virtual(file: h5py.File, folder: Path) -> None:
    write_patches(folder / "other.h5", images(3))
    layout = h5py.VirtualLayout(shape=(3, 224, 224, 3), dtype=np.uint8)
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "img", shape=(3, 224, 224, 3))
    del file["img"]
    file.create_virtual_dataset("img", layout)


def _resized(file: h5py.File, _: Path) -> None:
    file["img"].attrs["patch_size_target"] = 256


NAN = np.array([[0.0, 0.0], [np.nan, 1.0], [2.0, np.inf]])
TRAPS: dict[str, tuple[Callable[[h5py.File, Path], None], str]] = {
    "no images": (_remove("img"), r"without images 'img' \(it has 'barcode', 'coords'\)"),
    "no corners": (_remove("coords"), "has 3 patches, and 'coords' is missing"),
    "fewer corners": (_rewrite("coords", data=np.zeros((2, 2))), r"has 3 patches, and 'coords' has shape \(2, 2\)"),
    "fewer barcodes": (_rewrite("barcode", data=["a", "b"]), r"has 3 patches, and 'barcode' has shape \(2,\)"),
    "corners of no numbers": (_rewrite("coords", data=NAN), "'coords' of 2 of 3 patches are not numbers, .* row 1"),
    "a corner twice": (_rewrite("coords", data=np.ones((3, 2))), "2 patches have the corner of another one, .* x 1"),
    "a barcode twice": (_rewrite("barcode", data=["a", "b", "a"]), "1 of 2 barcodes have several patches: 'a'"),
    "an empty barcode": (_rewrite("barcode", data=["a", "", "c"]), "'barcode' of row 1 has 0 characters"),
    "numbers for barcodes": (_rewrite("barcode", data=np.arange(3)), "wanted is a text for each patch"),
    "floats": (_rewrite("img", data=np.zeros((3, 8, 8, 3))), r"shape \(3, 8, 8, 3\) of float64; patches are"),
    "grey": (_rewrite("img", data=np.zeros((3, 8, 8), np.uint8)), r"shape \(3, 8, 8\) of uint8; patches are"),
    "no square": (_rewrite("img", data=np.zeros((3, 8, 9, 3), np.uint8)), r"shape \(3, 8, 9, 3\) of uint8"),
    "no rows": (_rewrite("img", shape=(0, 8, 8, 3), dtype="u1"), "has 0 patches; allowed are 1 to"),
    "a billion rows": (
        _rewrite("img", shape=(10**9, 224, 224, 3), dtype="u1", chunks=(1, 224, 224, 3), compression="gzip"),
        r"declares 1505280000000\d\d bytes of data in a file of .* it was not read",
    ),
    "many small rows": (
        _rewrite("img", shape=(2 * 10**7, 2, 2, 3), dtype="u1", chunks=(4096, 2, 2, 3)),
        "has 20000000 patches; allowed are 1 to 10000000",
    ),
    "a huge chunk": (
        _rewrite("img", shape=(300, 1024, 1024, 3), dtype="u1", chunks=(300, 1024, 1024, 3)),
        r"chunks of \(300, 1024, 1024, 3\), more than 268435456 bytes",
    ),
    "another file by a link": (_link, r"links to another file at '/img' \(.*other.h5\)"),
    "another file by a virtual dataset": (_virtual, "stores '/img' in other files"),
    "another size than it says": (_resized, "its images have 224 px, and the attribute patch_size_target says 256"),
}


@pytest.mark.parametrize("trap", TRAPS)
def test_a_wrong_file_is_refused_before_an_image_is_read(tmp_path: Path, trap: str) -> None:
    change, sentence = TRAPS[trap]
    path = write_patches(tmp_path / "S1.h5", images(3))
    with h5py.File(path, "r+") as file:
        change(file, tmp_path)
    with pytest.raises(SlideError, match=sentence) as found:
        _open(path, 0.5)
    assert str(found.value).startswith("slide 'S1' (")


def test_a_file_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    path = write_patches(tmp_path / "S1.h5", images(3))
    path.write_bytes(path.read_bytes()[:200_000])
    with pytest.raises(SlideError, match=r"slide 'S1' \(.*S1.h5\) is not a readable HDF5 file"):
        _open(path)


def test_patches_are_joined_by_barcode_and_each_spot_and_patch_is_counted_once() -> None:
    joined = join_spots("S1", ["d", "b", "x", "a"], ["a", "b", "c", "d"])
    assert joined.names == ("d", "b", "a")
    assert (joined.rows.tolist(), joined.spots.tolist()) == ([0, 1, 3], [3, 1, 0])
    assert (joined.lost_spots, joined.lost_patches) == (("c",), ("x",))
    assert joined.warnings() == [
        "1 of 4 spots have no patch: 'c'",
        "1 of 4 patches have no spot and are left out: 'x'",
    ]


@pytest.mark.parametrize(
    ("barcodes", "sentence"),
    [(None, "S1 has no 'barcode'"), (["AAA-1"], "none of its 1 barcodes is one of the 1 spots .* 'AAA-1', .* 'AAA'")],
)
def test_patches_are_never_joined_by_position(barcodes: list[str] | None, sentence: str) -> None:
    with pytest.raises(SlideError, match=sentence):
        join_spots("S1", barcodes, ["AAA"])
