"""slide2vec's files: what is read of them, and their traps."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raystp.errors import FormatError
from raystp.interop.choice import FolderChoice
from raystp.interop.features.slide2vec import find, read
from raystp.interop.features.tiles import TileVectors
from raystp.storage import StoragePath
from tests.interop.features.makers import CORNERS, VECTORS, Slide2vec

ANY = FolderChoice()


def _read(folder: Path, choice: FolderChoice = ANY, mpp: float | None = None) -> TileVectors:
    (files,) = find(StoragePath.of(folder), choice).slides
    return read(files, choice, mpp)


def test_side_and_um_per_px_are_those_of_the_file(tmp_path: Path) -> None:
    slide = _read(Slide2vec(tmp_path).write())
    np.testing.assert_array_equal(slide.boxes, np.column_stack([CORNERS, np.full(6, 512)]))
    np.testing.assert_array_equal(slide.vectors, VECTORS)
    assert (slide.mpp, slide.size, slide.tile_px) == (0.26, (4000, 3000), 256)
    assert (slide.encoder, slide.image) == ("uni2", "/another/machine/S1.svs")
    assert slide.notes == ("tiles were read at 0.52 um/px where 0.5 was asked for: their side is that of 0.52",)
    assert round(float(slide.boxes[0, 2]) * 0.26, 2) == 133.12  # and not 128


def test_the_um_per_px_of_the_slide_table_is_taken_and_a_difference_is_said(tmp_path: Path) -> None:
    slide = _read(Slide2vec(tmp_path).write(), mpp=0.25)
    assert slide.mpp == 0.25
    assert "slide 'S1' has 0.26 um/px in its file and 0.25 in the slide table, which is taken" in slide.notes


def test_row_i_of_an_archive_is_of_the_tile_that_it_names(tmp_path: Path) -> None:
    maker = Slide2vec(tmp_path, vectors=VECTORS[:3].astype(np.float16), index=np.array([5, 0, 2]))
    maker.described["num_tiles"] = 3
    slide = _read(maker.write())
    assert slide.boxes[:, :2].tolist() == CORNERS[[5, 0, 2]].tolist()
    assert slide.vectors.dtype == np.float16
    maker.numbers = np.array([7, 2, 1, 5, 9, 0])  # of the tiles, where it is not their order
    assert _read(maker.write()).boxes[:, :2].tolist() == CORNERS[[3, 5, 1]].tolist()


def test_a_class_of_tissue_has_its_own_folders(tmp_path: Path) -> None:
    Slide2vec(tmp_path, kind="tumour").write()
    assert len(_read(tmp_path).boxes) == 6
    Slide2vec(tmp_path, kind="stroma").write()
    with pytest.raises(FormatError, match="'stroma', 'tumour': choose one with --set grid"):
        _read(tmp_path)
    assert len(_read(tmp_path, FolderChoice(grid="tumour")).boxes) == 6


def test_null_values_and_a_missing_description_are_no_fault(tmp_path: Path) -> None:
    maker = Slide2vec(tmp_path, spacing=None, described=dict.fromkeys(["encoder_name", "num_tiles", "image_path"]))
    slide = _read(maker.write(), FolderChoice(encoder="uni2"), mpp=0.5)
    assert (slide.encoder, slide.mpp, slide.image) == ("uni2", 0.5, None)
    maker.vectors_file.with_name("S1.meta.json").unlink()
    assert _read(tmp_path).mpp is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vectors": torch.ones(5, 4)}, "has 5 rows of vectors and 6 of coordinates: incomplete"),
        ({"vectors": torch.full((6, 4), torch.nan)}, "NaN or infinity in 6 of 6 vectors, the first in row 0"),
        ({"vectors": torch.ones(6)}, "holds a tensor of shape (6,), expected tile x dim"),
        ({"vectors": VECTORS}, "S1.pt holds a pickled array or object, which raystp does not open"),
        ({"vectors": VECTORS, "index": np.arange(1, 7)}, "`tile_index` has tiles 1 to 6, and there are 6: of another"),
        ({"vectors": VECTORS, "index": np.zeros(6, int)}, "expected one tile for each of 6 vectors"),
        ({"described": {"encoder_level": "slide"}}, "has vectors of a whole slide, not of tiles"),
        ({"described": {"num_tiles": 9}}, "has 6 and its JSON says num_tiles 9: incomplete; embed the slide again"),
        ({"described": {"feature_dim": 8}}, "has 4 and its JSON says feature_dim 8"),
        ({"tiling": {}, "described": {}}, "has no `tile_size_lv0`, the side of a tile in level-0 px"),
        ({"tiling": [1]}, "'tiling' is '[1]', expected an object"),
        ({"spacing": -1.0}, "'base_spacing_um' is -1.0; expected a number above 0"),
        ({"corners": np.full((6, 2), np.nan)}, "coordinates that are no finite numbers"),
    ],
)
def test_each_trap_has_its_sentence(tmp_path: Path, change: Any, message: str) -> None:
    with pytest.raises(FormatError) as raised:
        _read(replace(Slide2vec(tmp_path), **change).write())
    assert message in str(raised.value)


def test_embeddings_of_whole_slides_alone_are_refused_and_beside_tiles_left_out(tmp_path: Path) -> None:
    (tmp_path / "slide_embeddings").mkdir()
    with pytest.raises(FormatError, match=r"no <slide>\.npz: give the output .* \('slide_embeddings' are no tiles\)"):
        find(StoragePath.of(tmp_path), ANY)
    Slide2vec(tmp_path).write()
    assert find(StoragePath.of(tmp_path), ANY).notes == ("slide_embeddings are not read: they are no tiles",)
