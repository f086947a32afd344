"""Slides that are damaged, odd, huge, deadly or badly named, through the `tile` step: each is named, none stops it."""

import itertools
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile

from raystp.artifacts import Artifact, resolve
from tests.faults import cohort
from tests.faults.cohort import SIDE, SLIDES, TILING, names
from tests.faults.drivers import DONE, FAILED, INCOMPLETE, Drivers, alive
from tests.faults.traps import Plot, Trap
from tests.slides.tiled.test_altered import ALTERED, READ_BY_ALL, Copy
from tests.slides.tiled.tiled_files import sample_image, write

pytestmark = [pytest.mark.ray, pytest.mark.slow]
faults = pytest.mark.faults

VAST = 100_000
"""Pixels a side of a slide that no memory holds."""
MOST_MB = 1500
"""Of memory, for a process that meets it; what it imports is half of that."""
LEFT_OUT = "crashed every worker that opened it, or exceeded the"


def tile_config(store: Path, paths: dict[str, str], **more: Any) -> dict[str, Any]:
    listed = cohort.table(store / "slides.csv", paths)
    return {"slides": listed, "run.store": str(store), **TILING, **more}


def reasons(store: Path) -> dict[str, str]:
    """Return why each slide failed."""
    rows = resolve(str(store), "tile/default", "tile").failures().to_pylist()
    assert all(row["stage"] == "tile" for row in rows)
    return {row["slide"]: row["reason"] for row in rows}


def tiled(store: Path) -> dict[str, list[tuple[float, float]]]:
    """Return the places of each slide that was tiled."""
    found = resolve(str(store), "tile/default", "tile")
    tables = {name.removesuffix(".parquet"): found.path / "tiles" / name for name in (found.path / "tiles").names()}
    read = {slide: table.read_table(["x", "y"]).to_pydict() for slide, table in tables.items()}
    return {slide: list(zip(places["x"], places["y"], strict=True)) for slide, places in read.items()}


def altered(folder: Path) -> dict[str, str]:
    """Write the altered copies of a slide; return name -> path, and the whole one as `good`."""
    base = write(folder / "base.svs", sample_image(700, 532), "aperio_rgb", side=80, levels=1)
    paths = {"good": str(base)}
    for kind, alter in ALTERED.items():
        with tifffile.TiffFile(base) as tiff:
            copy = Copy(bytearray(base.read_bytes()), tiff.pages.first)
            alter(copy)
        name = "".join(letter if letter.isalnum() else "-" for letter in kind)
        (folder / f"{name}.svs").write_bytes(copy.content)
        paths[name] = str(folder / f"{name}.svs")
    return paths


def vast(path: Path, tiles: int | None = None) -> Path:
    """Write a slide of 100,000 x 100,000 px of glass, most of it not stored; or one that has only so many tiles."""
    side = 1024
    count = tiles or (-(-VAST // side)) ** 2
    glass = imagecodecs.zlib_encode(np.full((side, side, 3), 250, np.uint8).tobytes())
    streams = itertools.chain([bytes(glass)], itertools.repeat(b"", count - 1))
    shape = (VAST, VAST, 3) if tiles is None else (side * tiles, side, 3)
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(
            streams,
            shape=shape,
            dtype=np.uint8,
            tile=(side, side),
            compression="adobe_deflate",
            photometric="rgb",
            resolution=(20_000.0, 20_000.0),
            resolutionunit="centimeter",
            metadata=None,
        )
    if tiles is not None:
        with tifffile.TiffFile(path, mode="r+") as tiff:
            for name in ("ImageWidth", "ImageLength"):
                tiff.pages.first.tags[name].overwrite(VAST)
    return path


def bad_files(folder: Path) -> dict[str, str]:
    """Return what is no slide at all: a folder, a ring of links, nothing; and headers that promise too much."""
    (folder / "folder.svs").mkdir()
    (folder / "ring.svs").symlink_to(folder / "ring.svs")
    vast(folder / "promises.tiff", tiles=3)
    paths = {name: str(folder / f"{name}.svs") for name in ("folder", "ring", "none")}
    return {**paths, "promises": str(folder / "promises.tiff")}


def odd_files(folder: Path) -> dict[str, str]:
    """Return slides that are whole but odd: of one level, of one pixel, of glass alone, without um/px."""
    sizes = {"pixel": (1, 1), "thin": (SIDE, 3)}
    glass = np.full((512, 512, 3), 245, np.uint8)
    for name, (width, height) in sizes.items():
        write(folder / f"{name}.svs", sample_image(width, height), "aperio", side=64, levels=1)
    write(folder / "glass.svs", glass, "aperio", side=64)
    with tifffile.TiffWriter(folder / "unscaled.tiff") as tiff:
        tiff.write(sample_image(300, 300), tile=(64, 64), photometric="rgb", metadata=None)
    names = ("pixel", "thin", "glass")
    return {**{name: str(folder / f"{name}.svs") for name in names}, "unscaled": str(folder / "unscaled.tiff")}


def test_damaged_odd_and_deadly_slides_are_named_and_the_others_are_tiled(drivers: Drivers, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    paths = altered(tmp_path) | bad_files(tmp_path) | odd_files(tmp_path) | {"again": str(tmp_path / "base.svs")}
    paths["other"] = str(
        write(tmp_path / "other" / "base.svs", sample_image(532, 700), "aperio_rgb", side=80, levels=1)
    )
    (tmp_path / "plot").mkdir()
    plot = Plot((Trap("segfault", "tile", slide="garbage", times=100),), tmp_path / "plot")
    driver = drivers.run("tile", tile_config(tmp_path, paths), plot)
    assert driver.process.exitcode == INCOMPLETE, driver.said
    good = {"good", *("".join(letter if letter.isalnum() else "-" for letter in kind) for kind in READ_BY_ALL)}
    found, failed = tiled(tmp_path), reasons(tmp_path)
    assert good | {"again", "other"} <= set(found)
    assert found["again"] == found["good"] != found["other"]
    assert found.keys() | failed.keys() == paths.keys()
    assert not found.keys() & failed.keys()
    for slide, reason in failed.items():
        assert f"slide '{slide}'" in reason
        assert "\n" not in reason
    assert LEFT_OUT in failed["garbage"]
    assert len(plot.sprung()) == 3
    assert not alive(plot.noted("process"))


@faults
@pytest.mark.parametrize("how", ["kill", "exit", "abort", "hang", "hold"])
def test_a_slide_that_ends_or_holds_the_process_that_tiles_it_is_left_out_by_name(
    how: str, tiles: Artifact, drivers: Drivers, tmp_path: Path
) -> None:
    (tmp_path / "plot").mkdir()
    plot = Plot((Trap(how, "tile", slide="B", times=3),), tmp_path / "plot")
    paths = {slide: str(drivers.folder / "slides" / f"{slide}.svs") for slide in SLIDES}
    config = tile_config(tmp_path, paths, **{"run.deadline_s": 3})
    driver = drivers.run("tile", config, plot)
    assert driver.process.exitcode == INCOMPLETE, driver.said
    assert list(reasons(tmp_path)) == ["B"]
    assert LEFT_OUT in reasons(tmp_path)["B"]
    again = drivers.run("tile", {**config, "run.retry_failed": "true"}, plot)
    assert again.process.exitcode == DONE, again.said
    assert resolve(str(tmp_path), "tile/default", "tile").manifest.notes == tiles.manifest.notes
    assert not alive(plot.noted("process"))


@faults
@pytest.mark.parametrize("size", [(112, SIDE), (2000, 4096), (50_000, 4096)], ids=str)
def test_a_slide_or_a_tile_that_no_memory_holds_is_read_or_named_in_bounded_memory(
    size: tuple[int, int], drivers: Drivers, slides: Path, tmp_path: Path
) -> None:
    side, pixels = size
    (tmp_path / "plot").mkdir()
    plot = Plot((), tmp_path / "plot")
    paths = {"vast": str(vast(tmp_path / "vast.tiff")), "A": str(slides / "A.svs")}
    driver = drivers.run("tile", tile_config(tmp_path, paths, tile_um=side, tile_px=pixels, focus_tiles=1), plot)
    assert driver.process.exitcode in {DONE, INCOMPLETE}, driver.said
    assert reasons(tmp_path).keys() | tiled(tmp_path).keys() == paths.keys()
    assert plot.peak_mb() < MOST_MB


@faults
@pytest.mark.parametrize("mpp", ["nan", "0", "-1", "1e9", "0.01"])
def test_a_um_per_px_that_no_microscope_has_is_refused_by_name(
    mpp: str, drivers: Drivers, slides: Path, tmp_path: Path
) -> None:
    listed = cohort.table(tmp_path / "slides.csv", {"A": str(slides / "A.svs")}, mpp)
    driver = drivers.run("tile", {"slides": listed, "run.store": str(tmp_path), **TILING})
    assert driver.process.exitcode in {FAILED, INCOMPLETE}, driver.said
    assert mpp.replace("1e9", "1e+09") in driver.said
    assert ("line 2" in driver.said) != ("slide 'A'" in driver.said)


@pytest.mark.parametrize(
    "name", ["../../x", "a/b", "C:\\x", "\0", "x" * 300, "..", "ａ", "-rf *", ""], ids=lambda name: repr(name)[:12]
)
def test_a_name_that_is_no_name_is_refused_and_nothing_is_written(name: str, drivers: Drivers, tmp_path: Path) -> None:
    store = tmp_path / "deep" / "store"
    listed = cohort.table(tmp_path / "slides.csv", {name: "none.svs", "A": "none.svs"})
    driver = drivers.run("tile", {"slides": listed, "run.store": str(store), **TILING})
    assert driver.process.exitcode == FAILED, driver.said
    assert driver.facts["error"] == "ConfigError"
    assert names(tmp_path) == ["slides.csv"]
