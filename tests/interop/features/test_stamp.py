"""STAMP's files and tables: what is read of each generation, their traps, and what is written."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from raystp.errors import FormatError
from raystp.interop.choice import FolderChoice
from raystp.interop.features.stamp import find, read, write, write_tables
from raystp.interop.features.tiles import TileVectors
from raystp.storage import StoragePath
from tests.interop.features.makers import CORNERS, VECTORS, Stamp, bomb, link

ANY = FolderChoice()
OLD_CORNERS = CORNERS // 512 * 224


def _read(folder: Path, choice: FolderChoice = ANY, mpp: float | None = 0.25) -> TileVectors:
    (files,) = find(StoragePath.of(folder), choice).slides
    return read(files, choice, mpp)


def test_um_become_level_0_px_by_the_um_per_px_of_the_slide(tmp_path: Path) -> None:
    slide = _read(Stamp(tmp_path).write())
    np.testing.assert_array_equal(slide.boxes, np.column_stack([CORNERS, np.full(6, 512)]))
    np.testing.assert_array_equal(slide.vectors, VECTORS)
    assert slide.vectors.dtype == np.float16
    assert (slide.encoder, slide.tile_px, slide.mpp) == ("uni2", 224, 0.25)
    assert _read(tmp_path, mpp=0.5).boxes[1].tolist() == [256, 0, 256]


def test_files_of_2_0_name_the_side_differently(tmp_path: Path) -> None:
    maker = Stamp(tmp_path)
    maker.attributes["tile_size"] = maker.attributes.pop("tile_size_um")
    assert _read(maker.write()).boxes[0, 2] == 512


def test_files_of_before_2_have_px_of_tiles_of_224_px_and_256_um(tmp_path: Path) -> None:
    slide = _read(Stamp(tmp_path, corners=OLD_CORNERS, attributes={}).write(), mpp=0.5)
    np.testing.assert_array_equal(slide.boxes, np.column_stack([CORNERS, np.full(6, 512)]))
    assert (slide.tile_px, slide.encoder) == (224, None)
    assert slide.notes == ("coordinates without unit were read as px of tiles of 224 px and 256 um (before STAMP 2)",)


@pytest.mark.parametrize("start", ["", "uni2-0123abcd"])
def test_slides_lie_in_folders_below_that_of_the_extractor(tmp_path: Path, start: str) -> None:
    Stamp(tmp_path / "uni2-0123abcd" / "site" / "deep").write()
    found = find(StoragePath.of(tmp_path / start), ANY)
    assert (found.encoder, [one.slide for one in found.slides]) == ("uni2", ["S1"])
    Stamp(tmp_path / "uni2-0123abcd" / "other").write()
    with pytest.raises(FormatError, match="are both of slide 'S1': slides need different names"):
        find(StoragePath.of(tmp_path / start), ANY)


def test_of_several_extractors_one_is_chosen(tmp_path: Path) -> None:
    for name in ("uni2", "virchow2-0123abcd"):
        Stamp(tmp_path / name).write()
    with pytest.raises(FormatError, match="'uni2', 'virchow2': choose one with --set encoder_name"):
        find(StoragePath.of(tmp_path), ANY)
    assert find(StoragePath.of(tmp_path), FolderChoice(encoder="virchow2")).encoder == "virchow2"
    with pytest.raises(FormatError, match=r"has no <slide>\.h5: give STAMP's folder of features"):
        find(StoragePath.of(tmp_path / "absent"), ANY)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vectors": VECTORS[:5]}, "has 5 rows of vectors and 6 of coordinates: incomplete"),
        ({"vectors": VECTORS * np.nan}, "NaN or infinity in 6 of 6 vectors, the first in row 0"),
        ({"attributes": {}}, "has coordinates without unit and tiles 128 apart: only the px of STAMP 1 are known, 224"),
        ({"attributes": {}, "corners": np.zeros((6, 2))}, "has coordinates without unit and no step between tiles"),
        ({"attributes": {"unit": "px", "tile_size_um": 128.0}}, "has unit 'px' and tile_size_um 128.0: expected"),
        ({"attributes": {"unit": "um"}}, "has unit 'um' and tile_size_um None: expected coordinates and side in um"),
        ({"attributes": {"unit": "um", "tile_size_um": "wide"}}, "'tile_size_um' is 'wide'; expected a number above 0"),
        (
            {"attributes": {"feat_type": "slide", "encoder": "titan"}, "vectors": VECTORS[:1], "corners": None},
            "has vectors of a whole slide (encoder 'titan'), not of tiles",
        ),
        ({"names": ("patch_embeddings", "coords"), "corners": None}, "has `patch_embeddings` and no `coords`"),
        ({"names": ("features", "coords")}, "has no dataset 'feats'; it has 'coords', 'features'"),
    ],
)
def test_each_trap_has_its_sentence(tmp_path: Path, change: Any, message: str) -> None:
    maker = replace(Stamp(tmp_path), **change)
    with pytest.raises(FormatError) as raised:
        _read(maker.write())
    assert message in str(raised.value)
    assert str(maker.file) in str(raised.value)


def test_um_per_px_is_never_guessed(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"STAMP features carry no um/px: give a slide table .*; missing for 'S1'"):
        _read(Stamp(tmp_path).write(), mpp=None)


def test_bombs_and_links_to_other_files_are_not_read(tmp_path: Path) -> None:
    maker = Stamp(tmp_path)
    maker.write()
    link(maker.file, "feats")
    with pytest.raises(FormatError, match="links to another file"):
        _read(tmp_path)
    bomb(maker.file, ("feats", "coords"))
    with pytest.raises(FormatError, match="declares"):
        _read(tmp_path)


@pytest.mark.parametrize("mpp", [0.25, 0.2277, 0.2651])
def test_what_is_written_is_read_back_and_equal_tiles_give_equal_bytes(tmp_path: Path, mpp: float) -> None:
    slide = _read(Stamp(tmp_path / "a").write())
    far = slide.boxes + np.array([90_001, 77_777, 0])
    slide = replace(slide, boxes=far, mpp=mpp, encoder="uni2", attributes={"artifact": "embed/x"})
    for name in "bc":
        assert write(slide, StoragePath.of(tmp_path / name)) == []
    again = _read(tmp_path / "b", mpp=mpp)
    np.testing.assert_array_equal(again.boxes, slide.boxes)
    np.testing.assert_array_equal(again.vectors, slide.vectors)
    file = Path("uni2") / "S1.h5"
    assert (tmp_path / "b" / file).read_bytes() == (tmp_path / "c" / file).read_bytes()


def test_what_is_written_is_what_the_description_says(tmp_path: Path) -> None:
    slide = replace(_read(Stamp(tmp_path / "a").write()), encoder="virchow2", attributes={"artifact": "embed/x"})
    write(slide, StoragePath.of(tmp_path))
    with h5py.File(tmp_path / "virchow2" / "S1.h5") as file:
        assert (file["feats"].dtype, file["coords"].dtype) == (np.float16, np.float32)
        np.testing.assert_array_equal(file["coords"], CORNERS * 0.25)
        found = dict(file.attrs)
    assert found.pop("raystp") == '{"artifact": "embed/x"}'
    assert found == {
        "stamp_version": "2.1.0",
        "extractor": "virchow2",
        "unit": "um",
        "tile_size_um": 128.0,
        "tile_size_px": 224,
        "code_hash": "00000000",
        "feat_type": "tile",
    }


def test_rounding_to_half_precision_is_said_and_larger_values_stay(tmp_path: Path) -> None:
    slide = _read(Stamp(tmp_path / "a").write())
    finer = (VECTORS + 0.001).astype(np.float32)
    (note,) = write(replace(slide, vectors=finer), StoragePath.of(tmp_path))
    assert note.startswith("vectors were rounded to float16, by at most 0.0")
    assert write(replace(slide, vectors=VECTORS * 10_000), StoragePath.of(tmp_path / "b")) == [
        "vectors up to 230000 are beyond float16: written as float32"
    ]
    np.testing.assert_array_equal(_read(tmp_path / "b").vectors, VECTORS * 10_000)
    with pytest.raises(FormatError, match="has no um/px, and coordinates of STAMP are in um"):
        write(replace(slide, mpp=None), StoragePath.of(tmp_path))
    with pytest.raises(FormatError, match=r"the encoder '\.\./x' names a folder"):
        write(replace(slide, encoder="../x"), StoragePath.of(tmp_path))


def test_the_tables_name_files_of_slides_and_labels_of_patients_and_keep_a_patient_together(tmp_path: Path) -> None:
    patients, out = {"S3": "P1", "S1": "P1", "S2": "P2", "S4": ""}, StoragePath.of(tmp_path)
    assert write_tables(patients, "uni2", out, {"P1": {"HER2": "yes"}}) == [
        "slide.csv names files of uni2/: give that folder as feature_dir"
    ]
    assert (tmp_path / "slide.csv").read_text() == "PATIENT,FILENAME\nP1,S1.h5\nP1,S3.h5\nP2,S2.h5\nS4,S4.h5\n"
    assert (tmp_path / "clini.csv").read_text() == "PATIENT,HER2\nP1,yes\nP2,\nS4,\n"
    assert write_tables(patients, "uni2", out)[1:] == ["clini.csv has no label: add a column"]
