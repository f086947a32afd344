"""Visium HD and Xenium from files to tiles: `spots` pools them, and `tile` cuts a tile around each square."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from jaxtyping import UInt8

from raystp import tables
from raystp.expression.schema import read_section
from raystp.slides.table import SlideRow
from raystp.steps.spots import step as spots
from raystp.steps.tile import step as tile
from raystp.storage import StoragePath
from tests.expression.readers.pooled import hd_files, xenium_files

HE = (1500, 1200)
TURNED = xenium_files.he_to_morphology(37.0, mirror=True)


def tissue(width: int, height: int) -> UInt8[np.ndarray, "row col 3"]:
    """Return a picture that is purple but for a frame of glass."""
    pixels = np.full((height, width, 3), 240, np.uint8)
    pixels[20:-20, 20:-20] = (150, 80, 160)
    return pixels


def write_ome(path: Path, pixels: UInt8[np.ndarray, "row col 3"]) -> None:
    """Write an OME-TIFF with SubIFD levels and separate planes, as converters of Xenium's H&E do."""
    with tifffile.TiffWriter(path, ome=True, bigtiff=True) as tiff:
        for factor in (1, 2, 4):
            planes = np.ascontiguousarray(np.moveaxis(pixels[::factor, ::factor], -1, 0))
            first: dict[str, Any] = {"subifds": 2, "metadata": {"axes": "CYX"}} if factor == 1 else {"subfiletype": 1}
            tiff.write(planes, photometric="rgb", planarconfig="separate", tile=(256, 256), compression="lzw", **first)


def write_cohort(folder: Path) -> Path:
    """Write a section of each, its slide, and the slide table."""
    hd_files.write_bins(folder / "outs", hd_files.Bins(corner=(300.0, 400.0)))
    tifffile.imwrite(folder / "hd.tif", tissue(1700, 1800), photometric="rgb")
    xenium_files.write_bundle(folder / "bundle", xenium_files.random_section(TURNED, HE))
    write_ome(folder / "xe.ome.tif", tissue(*HE))
    table = folder / "slides.csv"
    table.write_text(
        "slide,path,patient,mpp,layout,counts,positions,pool_um\n"
        f"hd,hd.tif,P1,{hd_files.MPP},visium_hd,outs,,40\n"
        f"xe,xe.ome.tif,P2,,xenium,bundle,bundle/toy_he_imagealignment.csv,50\n"
    )
    return table


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_each_square_on_the_slide_has_a_tile_around_its_centre(tmp_path: Path) -> None:
    given: dict[str, Any] = {"slides": str(write_cohort(tmp_path)), "run": {"store": str(tmp_path / "store")}}
    measured = spots.run(spots.CONFIG.of({**given, "square_counts": 1, "min_counts": 0}))
    assert measured.failures().num_rows == 0
    notes = {name: one["notes"] for name, one in measured.manifest.notes["sections"].items()}
    assert (notes["hd"]["technology"], notes["hd"]["pitch_um"]) == ("Visium HD, 8 um bins pooled to 40 um", 40.0)
    assert (notes["xe"]["technology"], notes["xe"]["pitch_um"]) == ("Xenium, pooled to 50 um", 50.0)
    assert notes["xe"]["dropped_outside_image"] > 0
    tiled = tile.run(tile.CONFIG.of({**given, "spots": "spots/default", "tile_um": 40.0, "tile_px": 64}))
    assert tiled.failures().num_rows == 0
    for slide, mpp in (("hd", hd_files.MPP), ("xe", xenium_files.HE_MPP)):
        section = read_section(measured.path / "sections" / f"{slide}.h5ad")
        rows = tiled.table(f"tiles/{slide}.parquet", tables.TILES).to_pylist()
        assert [row["spot"] for row in rows] == section.obs_names.tolist()
        centres = np.array([[row["x"] + row["side"] / 2, row["y"] + row["side"] / 2] for row in rows])
        assert centres == pytest.approx(section.obsm["spatial"], abs=0.01)
        assert rows[0]["side"] == pytest.approx(40.0 / mpp)


def test_a_section_is_read_again_when_a_file_or_a_choice_changes_that_it_is_read_from(tmp_path: Path) -> None:
    write_cohort(tmp_path)
    row = SlideRow("xe", StoragePath.of(tmp_path / "xe.ome.tif"), "P", None, "xenium", None, None, "xe", None)
    row = SlideRow(**{**vars(row), "counts": StoragePath.of(tmp_path / "bundle")})
    before = spots._identity(row)
    (tmp_path / "bundle" / "gene_panel.json").write_text("{}")  # is not read
    assert spots._identity(row) == before
    assert spots._identity(SlideRow(**{**vars(row), "pool_um": 20.0})) != before
    for name in ("bundle/experiment.xenium", "bundle/transcripts.parquet", "bundle/cells.parquet", "xe.ome.tif"):
        found = spots._identity(row)
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes() + b"\n")
        assert spots._identity(row) != found
