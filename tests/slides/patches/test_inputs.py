"""Files of patches as input: a table, one file or a glob, but no folder; `slides` and `inspect` say what they are."""

from pathlib import Path

import numpy as np
import pytest

from raystp.errors import ConfigError
from raystp.slides.inputs.listing import find_slides
from raystp.slides.inputs.survey import read_one, to_csv
from raystp.slides.open import open_header, open_slide, read_tiles
from raystp.slides.read_cost import read_cost
from raystp.slides.table import SlideRow, read_slide_table
from raystp.steps.inspect.files import report_of_file
from raystp.storage import StoragePath
from raystp.units import TilePixels
from tests.slides.object_path import as_object
from tests.slides.patches.files import images, write_patches

BOXES = np.array([[376.0, 276.0, 448.0], [776.0, 276.0, 448.0]])


def _row(path: Path, mpp: float | None = None) -> SlideRow:
    return SlideRow("S1", StoragePath.of(path), "P", mpp, None, None, None, "S1", None)


def test_a_glob_takes_patches_where_it_matches_no_slide_and_a_folder_does_not(tmp_path: Path) -> None:
    for name in ("b.h5", "a.h5"):
        write_patches(tmp_path / name, images(1))
    assert find_slides(str(tmp_path / "*"), store="/none").names == ["a.h5", "b.h5"]
    with pytest.raises(ConfigError, match="the folder has no slide file"):
        find_slides(str(tmp_path), store="/none")
    (tmp_path / "c.svs").write_bytes(b"")
    assert find_slides(str(tmp_path / "*"), store="/none").names == ["c.svs"]
    (row,) = read_slide_table(str(tmp_path / "a.h5"), None, "/none")
    assert (row.slide, row.path.uri) == ("a", str(tmp_path / "a.h5"))


@pytest.mark.parametrize(
    ("attributes", "mpp", "printed"),
    [({"patch_size_src": 448, "pixel_size": 0.25}, None, 0.25), ({"patch_size_src": 448}, 0.5, 0.5), ({}, 0.5, 0.5)],
)
def test_the_printed_table_of_patches_opens_them_at_the_same_um_per_px(
    tmp_path: Path, attributes: dict[str, float], mpp: float | None, printed: float
) -> None:
    path = write_patches(tmp_path / "S1.h5", images(2), attributes=attributes)
    header = read_one(_row(path, mpp))
    assert (header.problem, header.vendor, header.mpp) == ("", "image-patches", printed)
    (tmp_path / "slides.csv").write_text(to_csv([header]))
    (again,) = read_slide_table(str(tmp_path / "slides.csv"), None, "/none")
    assert to_csv([read_one(again)]) == to_csv([header])


def test_inspect_names_patches_and_their_row_of_a_slide_table(tmp_path: Path) -> None:
    path = write_patches(tmp_path / "S1.h5", images(2))
    found = report_of_file(StoragePath.of(path))
    assert (found.kind, found.problem, found.facts["width"]) == ("image patches", "", "1224")
    assert found.row["path"] == str(path)
    write_patches(path, images(2), attributes={})
    assert "set the column `mpp` of the slide table" in report_of_file(StoragePath.of(path)).problem


def test_patches_in_an_object_store_are_downloaded_and_read_as_local_ones(tmp_path: Path) -> None:
    img = images(2)
    stored = as_object(write_patches(tmp_path / "S1.h5", img))
    assert open_header("S1", stored) is None
    with open_slide("S1", stored) as slide:
        np.testing.assert_array_equal(read_tiles(slide, BOXES, TilePixels(224)), img)


def test_a_plan_counts_the_whole_file(tmp_path: Path) -> None:
    path = StoragePath.of(write_patches(tmp_path / "S1.h5", images(2)))
    cost = read_cost("S1", path, BOXES, TilePixels(224), mpp=0.25, file_bytes=path.size())
    assert (cost.bytes, cost.overview_bytes) == (path.size(), path.size())
