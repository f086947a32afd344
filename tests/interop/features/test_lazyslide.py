"""LazySlide's stores: what is read of zarr 2 and 3, their traps, and what is not opened."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raystp.errors import FormatError, StorageError
from raystp.interop.choice import FolderChoice
from raystp.interop.features.lazyslide import find, read
from raystp.interop.features.tiles import TileVectors
from raystp.storage import StoragePath
from tests.interop.features.lazyslide_maker import CORNERS, VECTORS, LazySlide

ANY = FolderChoice()


def _read(folder: Path, choice: FolderChoice = ANY, mpp: float | None = None) -> TileVectors:
    (files,) = find(StoragePath.of(folder), choice).slides
    return read(files, choice, mpp)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_rows_are_joined_to_tiles_by_their_id(tmp_path: Path, zarr_format: int) -> None:
    slide = _read(LazySlide(tmp_path, zarr_format=zarr_format).write())
    np.testing.assert_array_equal(slide.vectors, VECTORS)
    np.testing.assert_array_equal(slide.boxes[:, :2], CORNERS[[5, 0, 1, 2, 3, 4]])
    assert set(slide.boxes[:, 2]) == {512.0}
    assert (slide.mpp, slide.size, slide.tile_px, slide.encoder) == (0.25, (4000, 3000), 256, "uni2")
    assert slide.tissue is not None
    assert slide.tissue.area == 1536 * 1024
    assert "raw" not in slide.attributes["slide_properties"]


def test_a_side_is_the_width_of_a_box_but_for_the_rounding_of_its_corners(tmp_path: Path) -> None:
    slide = _read(LazySlide(tmp_path, width=482.7, height=482.7).write())
    assert len(set(slide.boxes[:, 2])) == 1
    assert slide.boxes[0, 2] == pytest.approx(482.7, abs=1e-9)


def test_a_store_or_a_folder_of_stores_is_read_and_the_store_is_the_slide(tmp_path: Path) -> None:
    for slide in ("S1", "S2"):
        LazySlide(tmp_path, slide=slide).write()
    LazySlide(tmp_path, slide="S3", model="conch").write()
    found = find(StoragePath.of(tmp_path), FolderChoice(encoder="uni2"))
    assert ([one.slide for one in found.slides], found.encoder) == (["S1", "S2"], "uni2")
    assert found.notes == ("'S3' have no table 'uni2_tiles': left out",)
    assert _read(tmp_path / "S1.zarr").slide == "S1"
    with pytest.raises(FormatError, match="'conch', 'uni2': choose one with --set encoder_name"):
        find(StoragePath.of(tmp_path), ANY)


def test_of_several_tile_keys_one_is_chosen_and_a_longer_key_is_not_a_shorter_one(tmp_path: Path) -> None:
    LazySlide(tmp_path).write()
    LazySlide(tmp_path, key="my_tiles", vectors=VECTORS + 1).write()
    with pytest.raises(FormatError, match="'my_tiles', 'tiles': choose one with --set grid"):
        _read(tmp_path)
    np.testing.assert_array_equal(_read(tmp_path, FolderChoice(grid="tiles")).vectors, VECTORS)
    np.testing.assert_array_equal(_read(tmp_path, FolderChoice(grid="my_tiles")).vectors, VECTORS + 1)


def test_without_um_per_px_there_is_none_and_tiles_without_vectors_are_counted(tmp_path: Path) -> None:
    maker = LazySlide(tmp_path, ids=np.array([12, 10]), vectors=VECTORS[:2])
    maker.properties["mpp"] = None
    slide = _read(maker.write())
    assert slide.mpp is None
    assert slide.boxes[:, :2].tolist() == CORNERS[[2, 0]].tolist()
    assert slide.notes == ("4 of 6 tiles have no vector: left out",)
    assert _read(tmp_path, mpp=0.5).mpp == 0.5


def _metadata(change: Callable[[dict[str, Any]], object]) -> Callable[[LazySlide], None]:
    """Return what changes the metadata of a store's vectors."""

    def changed(maker: LazySlide) -> None:
        file = maker.table / "X" / ("zarr.json" if maker.zarr_format == 3 else ".zarray")
        metadata = json.loads(file.read_text())
        change(metadata)
        file.write_text(json.dumps(metadata))

    return changed


def _link(maker: LazySlide) -> None:
    (maker.table / "X" / "stolen").symlink_to("/etc/passwd")


def _linked_table(maker: LazySlide) -> None:
    maker.table.rename(maker.folder / "elsewhere")
    maker.table.symlink_to(maker.folder / "elsewhere")


def _old_shapes(maker: LazySlide) -> None:
    (maker.store / "shapes" / "tiles" / "shapes.parquet").unlink()


def _no_outlines(maker: LazySlide) -> None:
    table = pa.table({"tile_id": range(6), "geometry": [b"no outline"] * 6})
    pq.write_table(table, maker.store / "shapes" / "tiles" / "shapes.parquet")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vectors": VECTORS[:5]}, "has 5 rows of vectors and 6 of coordinates: incomplete"),
        ({"vectors": VECTORS * np.nan}, "NaN or infinity in 6 of 6 vectors, the first in row 0"),
        ({"vectors": VECTORS[:, 0]}, "uni2_tiles/X has the shape (6,), expected tile x dim"),
        ({"ids": np.arange(11, 17)}, "1 of 6 rows are of tiles that are not there, the first of tile 16"),
        ({"ids": np.full(6, 10)}, "`tile_id` names a tile twice"),
        ({"tile_ids": [str(one) for one in range(6)]}, "`tile_id` of the tiles is of type object, expected whole"),
        ({"region": "cells"}, "is about the element 'cells' by 'tile_id', expected 'tiles'"),
        ({"height": 256.0}, "6 of 6 tiles are no upright squares, the first in row 0 of 512 x 256 px"),
        ({"sparse": True}, "has vectors that are no dense array: write them dense"),
        ({"properties": {"mpp": "fine"}}, "'mpp' is 'fine'; expected a number above 0"),
        ({"properties": "none"}, "the attribute 'slide_properties' is 'none', expected an object"),
        (_old_shapes, "has no shapes.parquet: it is of an older SpatialData; open and save it once with spatialdata"),
        (_no_outlines, "has outlines that are no WKB"),
        (_link, "has a link at X/stolen: links inside a store are not followed"),
        (_linked_table, "is a link: links inside a store are not followed"),
        (_metadata(lambda x: x.update(shape=[10**9, 4])), "declares 1,000,000,000 tiles, and a slide has at most"),
        (_metadata(lambda x: x.update(shape=[10**7, 1000])), "declares the shape [10000000, 1000] in chunks of"),
        (_metadata(lambda x: x.update(shape=[-1, 4])), "declares the shape [-1, 4]"),
        (_metadata(lambda x: x.update(shape="big")), "has metadata that are no array of numbers (ValueError"),
        (_metadata(lambda x: x.pop("shape")), "has metadata that are no array of numbers (KeyError: 'shape')"),
    ],
)
def test_each_trap_has_its_sentence(tmp_path: Path, change: Any, message: str) -> None:
    maker = LazySlide(tmp_path) if callable(change) else replace(LazySlide(tmp_path), **change)
    maker.write()
    if callable(change):
        change(maker)
    with pytest.raises(FormatError) as raised:
        _read(tmp_path)
    assert message in str(raised.value)
    assert str(maker.store) in str(raised.value)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_name_that_no_file_can_have_is_an_error(tmp_path: Path, zarr_format: int) -> None:
    maker = LazySlide(tmp_path, zarr_format=zarr_format)
    maker.write()
    file = maker.table / ("zarr.json" if zarr_format == 3 else ".zattrs")
    file.write_text(file.read_text().replace('"tile_id"', f'"{"ü" * 200}"'))
    with pytest.raises(StorageError, match="File name too long"):
        _read(tmp_path)


@pytest.mark.parametrize(
    ("zarr_format", "change", "message"),
    [
        (2, {"dtype": "|O", "filters": [{"id": "pickle"}]}, "has values of type object; expected numbers: nothing is"),
        (2, {"filters": [{"id": "pickle", "protocol": 5}]}, "is encoded with ['pickle']; known are"),
        (2, {"chunks": [10**7, 1000]}, "in chunks of 40000000000 bytes"),
        (3, {"data_type": "string"}, "has metadata that are no array of numbers"),
        (3, {"codecs": [{"name": "numcodecs.pickle"}]}, "is encoded with ['numcodecs.pickle']; known are"),
        (
            3,
            {"codecs": [{"name": "sharding_indexed", "configuration": {"codecs": [{"name": "numcodecs.pickle"}]}}]},
            "is encoded with ['numcodecs.pickle']",
        ),
        (
            3,
            {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [10**7, 1000]}}},
            "in chunks of 40000000000 bytes",
        ),
    ],
)
def test_chunks_that_unpickle_or_declare_any_size_are_not_opened(
    tmp_path: Path, zarr_format: int, change: dict[str, Any], message: str
) -> None:
    maker = LazySlide(tmp_path, zarr_format=zarr_format)
    maker.write()
    _metadata(lambda one: one.update(change))(maker)
    with pytest.raises(FormatError) as raised:
        _read(tmp_path)
    assert message in str(raised.value)


def test_a_folder_without_stores_or_without_vectors_says_so(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"is no zarr store and has no <slide>\.zarr"):
        _read(tmp_path)
    maker = LazySlide(tmp_path)
    maker.write()
    maker.table.rename(maker.store / "tables" / "uni2")
    with pytest.raises(FormatError, match=r"has no table `<model>_<tile key>` of tiles that `tile_spec` names"):
        _read(tmp_path)
