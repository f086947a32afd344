"""Damaged, unusual, huge, crashing or badly named slides in `tile`: each is reported by name, none stops the step."""

import itertools
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile

from raystp.artifacts import Artifact, resolve
from tests.faults import cohort
from tests.faults.cohort import SLIDES, TILE_PX, TILING, names
from tests.faults.drivers import DONE, FAILED, INCOMPLETE, Drivers, alive
from tests.faults.traps import FaultPlan, Trap
from tests.slides.tiled.test_altered import ALTERED, READ_BY_ALL, Copy
from tests.slides.tiled.tiled_files import sample_image, write

pytestmark = [pytest.mark.ray, pytest.mark.slow]
faults = pytest.mark.faults

HUGE_PX = 100_000
"""Width and height of a slide that does not fit in memory."""
MAX_MB = 1500
"""Memory limit of a process that reads it; half of it is for imports."""
SKIPPED = "crashed every worker that opened it, or exceeded the"


def tile_config(store: Path, paths: dict[str, str], **more: Any) -> dict[str, Any]:
    slide_table = cohort.table(store / "slides.csv", paths)
    return {"slides": slide_table, "run.store": str(store), **TILING, **more}


def reasons(store: Path) -> dict[str, str]:
    """Return the failure reason of each slide."""
    rows = resolve(str(store), "tile/default", "tile").failures().to_pylist()
    assert all(row["stage"] == "tile" for row in rows)
    return {row["slide"]: row["reason"] for row in rows}


def tiled(store: Path) -> dict[str, list[tuple[float, float]]]:
    """Return the tile corners of each tiled slide."""
    found = resolve(str(store), "tile/default", "tile")
    tables = {name.removesuffix(".parquet"): found.path / "tiles" / name for name in (found.path / "tiles").names()}
    read = {slide: table.read_table(["x", "y"]).to_pydict() for slide, table in tables.items()}
    return {slide: list(zip(corners["x"], corners["y"], strict=True)) for slide, corners in read.items()}


def altered(folder: Path) -> dict[str, str]:
    """Write altered copies of a slide; return name -> path, with the intact slide as `good`."""
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


def huge(path: Path, tiles: int | None = None) -> Path:
    """Write a slide of 100,000 x 100,000 px with few stored tiles; `tiles`: with a header too large for its tiles."""
    side = 1024
    count = tiles or (-(-HUGE_PX // side)) ** 2
    glass = imagecodecs.zlib_encode(np.full((side, side, 3), 250, np.uint8).tobytes())
    streams = itertools.chain([bytes(glass)], itertools.repeat(b"", count - 1))
    shape = (HUGE_PX, HUGE_PX, 3) if tiles is None else (side * tiles, side, 3)
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
                tiff.pages.first.tags[name].overwrite(HUGE_PX)
    return path


def bad_files(folder: Path) -> dict[str, str]:
    """Return paths that are not slides: a folder, a circular link, a missing file, a header larger than its tiles."""
    (folder / "folder.svs").mkdir()
    (folder / "circular.svs").symlink_to(folder / "circular.svs")
    huge(folder / "truncated.tiff", tiles=3)
    paths = {name: str(folder / f"{name}.svs") for name in ("folder", "circular", "none")}
    return {**paths, "truncated": str(folder / "truncated.tiff")}


def unusual_files(folder: Path) -> dict[str, str]:
    """Return valid but unusual slides: one level, one pixel, no tissue, no um/px."""
    sizes = {"pixel": (1, 1), "thin": (TILE_PX, 3)}
    glass = np.full((512, 512, 3), 245, np.uint8)
    for name, (width, height) in sizes.items():
        write(folder / f"{name}.svs", sample_image(width, height), "aperio", side=64, levels=1)
    write(folder / "glass.svs", glass, "aperio", side=64)
    with tifffile.TiffWriter(folder / "unscaled.tiff") as tiff:
        tiff.write(sample_image(300, 300), tile=(64, 64), photometric="rgb", metadata=None)
    names = ("pixel", "thin", "glass")
    return {**{name: str(folder / f"{name}.svs") for name in names}, "unscaled": str(folder / "unscaled.tiff")}


@pytest.mark.faults
def test_damaged_unusual_and_crashing_slides_are_reported_and_the_others_are_tiled(
    drivers: Drivers, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    paths = altered(tmp_path) | bad_files(tmp_path) | unusual_files(tmp_path) | {"again": str(tmp_path / "base.svs")}
    paths["other"] = str(
        write(tmp_path / "other" / "base.svs", sample_image(532, 700), "aperio_rgb", side=80, levels=1)
    )
    (tmp_path / "plan").mkdir()
    plan = FaultPlan((Trap("segfault", "tile", slide="garbage", times=100),), tmp_path / "plan")
    driver = drivers.run("tile", tile_config(tmp_path, paths), plan)
    assert driver.process.exitcode == INCOMPLETE, driver.output
    good = {"good", *("".join(letter if letter.isalnum() else "-" for letter in kind) for kind in READ_BY_ALL)}
    found, failed = tiled(tmp_path), reasons(tmp_path)
    assert good | {"again", "other"} <= set(found)
    assert found["again"] == found["good"] != found["other"]
    assert found.keys() | failed.keys() == paths.keys()
    assert not found.keys() & failed.keys()
    for slide, reason in failed.items():
        assert f"slide '{slide}'" in reason
        assert "\n" not in reason
    assert SKIPPED in failed["garbage"]
    assert len(plan.triggered()) == 3
    assert not alive(plan.logged("process"))


@faults
@pytest.mark.parametrize("how", ["kill", "exit", "abort", "hang", "hold"])
def test_a_slide_that_crashes_or_hangs_its_worker_is_skipped_by_name(
    how: str, tiles: Artifact, drivers: Drivers, tmp_path: Path
) -> None:
    (tmp_path / "plan").mkdir()
    plan = FaultPlan((Trap(how, "tile", slide="B", times=3),), tmp_path / "plan")
    paths = {slide: str(drivers.folder / "slides" / f"{slide}.svs") for slide in SLIDES}
    config = tile_config(tmp_path, paths, **{"run.deadline_s": 3})
    driver = drivers.run("tile", config, plan)
    assert driver.process.exitcode == INCOMPLETE, driver.output
    assert list(reasons(tmp_path)) == ["B"]
    assert SKIPPED in reasons(tmp_path)["B"]
    again = drivers.run("tile", {**config, "run.retry_failed": "true"}, plan)
    assert again.process.exitcode == DONE, again.output
    assert resolve(str(tmp_path), "tile/default", "tile").manifest.notes == tiles.manifest.notes
    assert not alive(plan.logged("process"))


@faults
@pytest.mark.parametrize("size", [(112, TILE_PX), (2000, 4096), (50_000, 4096)], ids=str)
def test_a_slide_or_tile_larger_than_memory_is_read_or_reported_within_a_memory_limit(
    size: tuple[int, int], drivers: Drivers, slides: Path, tmp_path: Path
) -> None:
    tile_um, tile_px = size
    (tmp_path / "plan").mkdir()
    plan = FaultPlan((), tmp_path / "plan")
    paths = {"huge": str(huge(tmp_path / "huge.tiff")), "A": str(slides / "A.svs")}
    driver = drivers.run("tile", tile_config(tmp_path, paths, tile_um=tile_um, tile_px=tile_px, focus_tiles=1), plan)
    assert driver.process.exitcode in {DONE, INCOMPLETE}, driver.output
    assert reasons(tmp_path).keys() | tiled(tmp_path).keys() == paths.keys()
    assert plan.peak_mb() < MAX_MB


@faults
@pytest.mark.parametrize("mpp", ["nan", "0", "-1", "1e9", "0.01"])
def test_an_impossible_mpp_is_refused_by_name(mpp: str, drivers: Drivers, slides: Path, tmp_path: Path) -> None:
    slide_table = cohort.table(tmp_path / "slides.csv", {"A": str(slides / "A.svs")}, mpp)
    driver = drivers.run("tile", {"slides": slide_table, "run.store": str(tmp_path), **TILING})
    assert driver.process.exitcode in {FAILED, INCOMPLETE}, driver.output
    assert f"mpp is '{mpp}'" in driver.output or f"{mpp} um/px" in driver.output
    assert ("line 2" in driver.output) != ("slide 'A'" in driver.output)


@pytest.mark.parametrize(
    "name", ["../../x", "a/b", "C:\\x", "\0", "x" * 300, "..", "ａ", "-rf *", ""], ids=lambda name: repr(name)[:12]
)
def test_an_invalid_name_is_refused_and_nothing_is_written(name: str, drivers: Drivers, tmp_path: Path) -> None:
    store = tmp_path / "deep" / "store"
    slide_table = cohort.table(tmp_path / "slides.csv", {name: "none.svs", "A": "none.svs"})
    driver = drivers.run("tile", {"slides": slide_table, "run.store": str(store), **TILING})
    assert driver.process.exitcode == FAILED, driver.output
    assert driver.summary["error"] == "ConfigError"
    assert names(tmp_path) == ["slides.csv"]
