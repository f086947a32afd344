"""Foreign folders give the sections, tiles and pixels of raystp's own table; `test_chain` goes on to scores, on Ray."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raystp import tables
from raystp.artifacts import Artifact
from raystp.expression.schema import read_section
from raystp.slides.open import open_slide, read_tiles
from raystp.steps.spots import step as spots
from raystp.steps.tile import step as tile
from raystp.storage import StoragePath
from raystp.units import TilePixels
from tests.interop.sections.paired import GENES, MPP, PATCH, bench_root, cohort, hest_root, own_table, written

NAMES, ACROSS = ("A1", "C1"), 3


@dataclass(frozen=True)
class Tiled:
    """A section and its tiles, in the order of the names of spots."""

    names: list[str]
    counts: np.ndarray
    centres: np.ndarray
    boxes: np.ndarray
    pixels: np.ndarray


def _in_this_process(function: Callable[[Any], Any], items: Iterable[Any], **_: Any) -> Iterator[tuple[int, Any]]:
    return enumerate(map(function, items))


@pytest.fixture(scope="module")
def steps_without_ray() -> Iterator[None]:
    """Run tasks one after the other in this process."""
    with pytest.MonkeyPatch.context() as patch:
        for step in (spots, tile):
            patch.setattr(step, "map_tasks", _in_this_process)
            patch.setattr(step, "session", lambda _: contextlib.nullcontext())
        yield


def _tiled(table: Path, store: Path) -> dict[str, Tiled]:
    run = {"store": str(store)}
    measured = spots.run(spots.CONFIG.of({"slides": str(table), "run": run}))
    where = {"slides": str(table), "spots": "spots/default", "tile_um": PATCH * MPP, "focus_tiles": 0, "run": run}
    tiles = tile.run(tile.CONFIG.of(where))
    assert (measured.manifest.failures, tiles.manifest.failures) == (0, 0)
    return {name: _one(name, measured, tiles) for name in NAMES}


def _one(name: str, measured: Artifact, tiles: Artifact) -> Tiled:
    section = read_section(measured.path / "sections" / f"{name}.h5ad")
    section = section[sorted(section.obs_names)]
    table = tiles.table(f"tiles/{name}.parquet", tables.TILES).sort_by("spot")
    boxes = np.stack([table[column].to_numpy() for column in ("x", "y", "side")], axis=1)
    (row,) = [one for one in tiles.table("slides.parquet", tables.SLIDES).to_pylist() if one["slide"] == name]
    with open_slide(name, StoragePath(row["path"]), given_mpp=row["mpp"]) as slide:
        pixels = read_tiles(slide, boxes, TilePixels(PATCH))
    assert table["spot"].to_pylist() == list(section.obs_names)
    return Tiled(list(section.obs_names), section.X.toarray(), np.asarray(section.obsm["spatial"]), boxes, pixels)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, steps_without_ray: None) -> dict[str, Tiled]:  # noqa: ARG001 -- needed
    folder = tmp_path_factory.mktemp("own")
    return _tiled(own_table(folder / "cohort", cohort(NAMES, ACROSS)), folder / "store")


@pytest.mark.parametrize("data_set", ["hest", "hest-bench"])
def test_sections_tiles_and_pixels_are_those_of_the_own_table(
    own: dict[str, Tiled], tmp_path: Path, data_set: str
) -> None:
    sections = cohort(NAMES, ACROSS)
    root = hest_root(tmp_path, sections) if data_set == "hest" else bench_root(tmp_path, sections, "C1")
    found = _tiled(written(data_set, root, tmp_path / "imported"), tmp_path / "store")
    for name, expected in own.items():
        assert found[name].names == expected.names
        assert found[name].counts.shape == (ACROSS**2, GENES)
        np.testing.assert_array_equal(found[name].counts, expected.counts)
        np.testing.assert_array_equal(found[name].centres, expected.centres)
        np.testing.assert_array_equal(found[name].boxes, expected.boxes)
        np.testing.assert_array_equal(found[name].pixels, expected.pixels)
