"""Embeddings of hest-bench belong to spots by name, not by place or order."""

from pathlib import Path

import h5py
import numpy as np

from raystp import tables
from raystp.expression.schema import SectionInfo, SpotPositions, make_section, write_section
from raystp.interop.choice import SlideFiles
from raystp.slides.table import SlideRow
from raystp.steps.imports.config import ImportConfig
from raystp.steps.imports.sources import Source, content_of
from raystp.steps.imports.work import ImportedSlide, ImportTask, import_slide
from raystp.storage import StoragePath

NAMES = ["c", "a", "x", "b"]
CORNERS = np.array([[600, 0], [0, 0], [300, 0], [900, 0]])
VECTORS = np.arange(12, dtype=np.float32).reshape(4, 3)


def _imported(folder: Path, spots: list[str], *, shift: float = 0.0, section_mpp: float = 0.5) -> ImportedSlide | str:
    """Import a file with tiles named c, a, x, b for a section with these spots; return its result.

    The tiles are 224 px wide; spots a, b, ... are at the centres of their tiles, moved right by `shift` px.
    """
    with h5py.File(folder / "S1.h5", "w") as file:
        file["embeddings"], file["coords"] = VECTORS, CORNERS
        file.create_dataset("barcodes", data=np.array(NAMES, object)[:, None], dtype=h5py.string_dtype())
    count, corner_of = len(spots), dict(zip(NAMES, CORNERS.tolist(), strict=True))
    centres = np.array([corner_of.get(name, (0, 0)) for name in spots]) + np.array([112.0 + shift, 112.0])
    info = SectionInfo("S1", "P1", "S1", mpp=section_mpp, spot_diameter_um=55.0, pitch_um=100.0, layout="toy")
    places = SpotPositions(spots, centres, np.arange(float(count)), np.arange(float(count)))
    section = StoragePath.of(folder / "S1.h5ad")
    write_section(section, make_section(np.ones((count, 2)), ["A", "B"], places, info))
    row = SlideRow("S1", StoragePath.of(folder / "absent.tif"), "P1", 0.5, "toy", None, None, "S1", None)
    files = SlideFiles("S1", {"vectors": StoragePath.of(folder / "S1.h5")})
    source = Source("S1", files, row, content_of(files), section=section, section_mpp=section_mpp)
    values = {"format": "hest-embeddings", "path": str(folder), "slides": "slides.csv", "spots": "spots/x"}
    out = [StoragePath.of(folder / name) for name in ("tile", "embed")]
    return import_slide(ImportTask(source, ImportConfig.of({**values, "run": {}}), out[0], out[1]))


def test_a_tile_is_that_of_the_spot_of_its_name_and_others_are_left_out(tmp_path: Path) -> None:
    found = _imported(tmp_path, ["a", "b", "c", "d"])
    assert isinstance(found, dict), found
    assert found["notes"][-1:] == ["3 of 4 spots have a tile, by name; 1 tiles without a spot are left out"]
    table = tmp_path / "tile" / "tiles" / "S1.parquet"
    tiles = StoragePath.of(table).read_table()
    assert tiles["spot"].to_pylist() == ["c", "a", "b"]
    assert tiles["x"].to_pylist() == [600.0, 0.0, 900.0]
    (unit,) = StoragePath.of(tmp_path / "embed" / "embeddings" / "S1").names()
    vectors = StoragePath.of(tmp_path / "embed" / "embeddings" / "S1" / unit).read_table()
    np.testing.assert_array_equal(tables.matrix(vectors["vector"]), VECTORS[[0, 1, 3]])


def test_tiles_of_other_spots_are_refused_with_both_kinds_of_names(tmp_path: Path) -> None:
    reason = _imported(tmp_path, ["1x1", "1x2"])
    assert isinstance(reason, str)
    assert "none of the 4 tiles is named as a spot of" in reason
    assert "the tiles have 'c', 'a' and 2 more, the section '1x1', '1x2'; give the spots of this data set" in reason


def test_tiles_named_as_spots_that_lie_elsewhere_get_a_warning(tmp_path: Path) -> None:
    found = _imported(tmp_path, ["a", "b", "c"], shift=300.0)
    assert isinstance(found, dict), found
    assert "spots are 300.0 px (median) from the centres of the tiles of their names, which are 224 px" in str(found)


def test_um_per_px_that_contradicts_the_measured_section_gets_a_warning(tmp_path: Path) -> None:
    found = _imported(tmp_path, ["a", "b", "c"], section_mpp=0.25)
    assert isinstance(found, dict), found
    assert "0.5 um/px is used for slide 'S1', but its measured section has 0.25: correct the column" in str(found)
