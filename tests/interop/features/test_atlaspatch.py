"""AtlasPatch's files: what is read of them, and their traps."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raystp.errors import FormatError
from raystp.interop.choice import FolderChoice
from raystp.interop.features.atlaspatch import find, read
from raystp.interop.features.tiles import TileVectors
from raystp.storage import StoragePath
from tests.interop.features.makers import CORNERS, VECTORS, AtlasPatch, bomb, link

UNI = FolderChoice(encoder="uni_v2")


def _read(folder: Path, choice: FolderChoice = UNI, mpp: float | None = None) -> TileVectors:
    (files,) = find(StoragePath.of(folder), choice).slides
    return read(files, choice, mpp)


@pytest.mark.parametrize("inner", ["", "patches"])
def test_a_slide_has_its_tiles_its_um_per_px_and_the_vectors_of_one_encoder(tmp_path: Path, inner: str) -> None:
    AtlasPatch(tmp_path / inner).write()
    slide = _read(tmp_path)
    np.testing.assert_array_equal(slide.boxes, np.column_stack([CORNERS, np.full(6, 512)]))
    np.testing.assert_array_equal(slide.vectors, VECTORS)
    assert (slide.mpp, slide.size, slide.tile_px, slide.image) == (0.25, (4000, 3000), 256, "S1.svs")
    assert "vendor" not in slide.attributes  # the text 'None' is no value


def test_each_encoder_of_a_file_is_an_import_of_its_own(tmp_path: Path) -> None:
    AtlasPatch(tmp_path).write()
    found = find(StoragePath.of(tmp_path), FolderChoice(encoder="resnet50"))
    assert (found.encoder, found.notes) == (
        "resnet50",
        ("features of 'uni_v2' were left out: each encoder is an import of its own",),
    )
    assert _read(tmp_path, FolderChoice(encoder="resnet50")).vectors.shape == (6, 3)
    with pytest.raises(FormatError, match="'resnet50', 'uni_v2': choose one with --set encoder_name"):
        _read(tmp_path, FolderChoice())
    assert _read(AtlasPatch(tmp_path / "b", vectors={"uni_v2": VECTORS}).write(), FolderChoice()).encoder == "uni_v2"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vectors": {"uni_v2": VECTORS[:5]}}, "has 5 rows of vectors and 6 of coordinates: incomplete"),
        ({"vectors": {"uni_v2": VECTORS * np.nan}}, "NaN or infinity in 6 of 6 vectors, the first in row 0"),
        ({"vectors": {}}, "has no group 'features'; it has 'coords': run AtlasPatch's features first"),
        ({"vectors": {"conch_v1": VECTORS}}, "has features of the encoders 'conch_v1', not 'uni_v2'"),
        ({"corners": CORNERS[:, :1]}, "'/coords' has the shape (6, 1); expected a row per tile with 2 to 5 columns"),
        ({"attributes": {"patch_size": 256}}, "has no attribute `patch_size_level0`"),
        ({"attributes": {"patch_size_level0": 512, "num_patches": 9}}, "has 6 and its attribute 'num_patches' is 9"),
        ({"attributes": {"patch_size_level0": 512, "mpp": "no"}}, "'mpp' is 'no'; expected a number above 0"),
    ],
)
def test_each_trap_has_its_sentence(tmp_path: Path, change: Any, message: str) -> None:
    maker = replace(AtlasPatch(tmp_path), **change)
    with pytest.raises(FormatError) as raised:
        _read(maker.write())
    assert message in str(raised.value)
    assert str(maker.file) in str(raised.value)


def test_bombs_and_links_to_other_files_are_not_read(tmp_path: Path) -> None:
    maker = AtlasPatch(tmp_path)
    maker.write()
    link(maker.file, "features/uni_v2")
    with pytest.raises(FormatError, match="links to another file"):
        _read(tmp_path)
    bomb(maker.file, ("features/uni_v2", "coords"))
    with pytest.raises(FormatError, match="declares"):
        _read(tmp_path)
    with pytest.raises(FormatError, match=r"has no <slide>\.h5: give AtlasPatch's folder"):
        _read(tmp_path / "absent")
