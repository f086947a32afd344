"""A faulty object store: short faults change nothing, lasting faults are reported by object, no partial output."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from raystp.artifacts import Artifact, resolve
from raystp.storage import StoragePath
from tests.faults import cohort, s3
from tests.faults.cohort import EMBEDDING, TILING, UNIT_TILES, UNITS
from tests.faults.conftest import ENVIRONMENT
from tests.faults.drivers import DONE, FAILED, INCOMPLETE, Driver, Drivers
from tests.faults.s3 import FaultyStore
from tests.faults.traps import FaultPlan, Trap

pytestmark = [pytest.mark.ray, pytest.mark.slow]
faults = pytest.mark.faults

SLIDE_TILES = UNITS * UNIT_TILES
"""Tiles of a slide, here a single unit, which is faster."""
PATIENCE_S = 3.0
SLOW_DOWN = 503
PAUSE_AT = 8
"""The tile before which the second batch is read."""

SHORT_FAULTS: dict[str, list[tuple[Any, ...]]] = {
    "twice500": [("status", 500, "GET", 2)],
    "slowdown": [("status", 503, "GET", 2)],
    "cut_once": [("cut", 1000, "GET", 1)],
    "reset_once": [("reset", 1000, "GET", 1)],
    "lost_write": [],
}
LASTING_FAULTS: dict[str, list[tuple[Any, ...]]] = {
    "storm": [("status", 503, "GET", 1000)],
    "gone": [],
    "forbidden": [("status", 403, "GET", 1000), ("status", 403, "HEAD", 1000)],
    "cut_always": [("cut", 1000, "GET", 1000)],
    "silent": [("silent", 0, "GET", 1000)],
    "drip": [("drip", 1000, "GET", 1000)],
    "unwritable": [],
}
"""Slide -> faults of its requests: kind, at, method, times. All are copies of the same slide."""
FEW = ("twice500", "cut_once", "lost_write", "storm", "gone", "forbidden", "silent", "unwritable")
ALL = (*SHORT_FAULTS, *LASTING_FAULTS)
SAYS = {
    "storm": "no byte for|503 SlowDown; gave up",
    "gone": r"not found \(404\)",
    "forbidden": r"the store refuses it \(403",
    "cut_always": "the connection broke or timed out .*; gave up after",
    "silent": "no byte for|without a byte",
    "drip": r"KB/s over \d",
    "unwritable": "cannot write s3://faults/.*/unwritable.00000.json",
}


@dataclass(frozen=True)
class StoreCase:
    """Inputs of a test of the store: the proxy, the cluster, the run without faults, and the test's folder."""

    faulty_store: FaultyStore
    drivers: Drivers
    slides: Path
    oracle: Artifact
    folder: Path

    @property
    def store(self) -> str:
        """The test's store in the bucket."""
        return self.faulty_store.path(self.folder.name).uri

    @property
    def plan(self) -> FaultPlan:
        return FaultPlan((), self.folder, PATIENCE_S)

    def object(self, name: str) -> StoragePath:
        """Return the object of a slide."""
        return self.faulty_store.path(f"{self.folder.name}/slides/{name}.svs")

    def upload(self, *names: str) -> str:
        """Upload copies of one slide, without faults; return the path of their table."""
        self.faulty_store.clear()
        for name in names:
            self.object(name).write_bytes((self.slides / "A.svs").read_bytes())
        return cohort.table(self.folder / "slides.csv", {name: self.object(name).uri for name in names})

    def tile(self, *names: str) -> Artifact:
        """Tile these slides, without faults, into the same store."""
        config = {"slides": self.upload(*names), "run.store": self.store, **TILING}
        driver = self.drivers.run("tile", config)
        assert driver.process.exitcode == DONE, driver.output
        return resolve(self.store, "tile/default", "tile")

    def embed(self, tiles: Artifact, **run: Any) -> Driver:
        """Embed the tiles."""
        run_values = {f"run.{key}": value for key, value in run.items()}
        config = {
            "tiles": tiles.path.uri,
            "run.store": self.store,
            **EMBEDDING,
            "unit_tiles": SLIDE_TILES,
            **run_values,
        }
        return self.drivers.run("embed", config, self.plan)

    def add_faults(self, *names: str) -> None:
        for name in names:
            for kind, at, method, times in (SHORT_FAULTS | LASTING_FAULTS)[name]:
                code = "SlowDown" if at == SLOW_DOWN else "Denied"
                self.faulty_store.add(kind, at, method=method, times=times, code=code, of=f"/{name}.svs")

    def check(self, driver: Driver, expected: set[str], missing: dict[str, str]) -> None:
        """Check that the expected slides have the rows of slide A, and the others are failures without rows."""
        assert driver.process.exitcode == (INCOMPLETE if missing else DONE), driver.output
        found = resolve(self.store, "embed/default", "embed")
        assert set(found.manifest.notes["units"]) == expected
        folder = self.oracle.path / "embeddings" / "A"
        truth = pa.concat_tables((folder / f"A.{unit:05d}.parquet").read_table() for unit in range(UNITS))
        for slide in expected:
            table = (found.path / "embeddings" / slide / f"{slide}.00000.parquet").read_table()
            assert table.drop_columns("slide").equals(truth.drop_columns("slide"))
            assert set(table["slide"].to_pylist()) == {slide}
        rows = found.failures().to_pylist()
        assert [(row["slide"], row["stage"]) for row in rows] == [(slide, "embed") for slide in sorted(missing)]
        for row in rows:
            assert f"/{row['slide']}." in row["reason"]
            assert re.search(missing[row["slide"]], row["reason"]), row["reason"]
        committed = {name.removesuffix(".00000.json") for name in (found.path / "commits").names()}
        assert committed == expected


@pytest.fixture(scope="module")
def faulty_store() -> Iterator[FaultyStore]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        with s3.running() as faulty_store:
            yield faulty_store


@pytest.fixture
def case(faulty_store: FaultyStore, drivers: Drivers, slides: Path, oracle: Artifact, tmp_path: Path) -> StoreCase:  # noqa: PLR0917 -- pytest passes fixtures by name
    return StoreCase(faulty_store, drivers, slides, oracle, tmp_path)


def embed_with_faults(case: StoreCase, *names: str) -> Artifact:
    """Tile these slides; embed them, each with its fault; check rows and failures."""
    tiles = case.tile(*names)
    case.object("gone").remove()
    case.add_faults(*names)
    for of, status in (("embeddings/lost_write/", 500), ("commits/lost_write", 503)):
        case.faulty_store.add("lost", status, method="PUT", times=1, of=of)
    case.faulty_store.add("status", SLOW_DOWN, method="PUT", code="SlowDown", of="commits/unwritable")
    missing = {name: SAYS[name] for name in names if name in LASTING_FAULTS}
    case.check(case.embed(tiles), set(names) - missing.keys(), missing)
    return tiles


@pytest.mark.faults
def test_slides_with_short_faults_are_embedded_and_those_with_lasting_faults_are_reported(case: StoreCase) -> None:
    embed_with_faults(case, *FEW)


@faults
def test_a_retry_embeds_the_failed_slides_once_the_store_works(case: StoreCase) -> None:
    tiles = embed_with_faults(case, *ALL)
    case.upload("gone")
    case.check(case.embed(tiles, retry_failed="true"), set(ALL), {})


@faults
def test_a_store_that_refuses_all_writes_ends_with_an_error_and_the_same_command_resumes(case: StoreCase) -> None:
    names = ("one", "two")
    tiles = case.tile(*names)
    case.faulty_store.add("status", SLOW_DOWN, method="PUT", code="SlowDown")
    driver = case.embed(tiles)
    assert driver.process.exitcode == FAILED, driver.output
    assert driver.summary["error"] == "StorageError", driver.output
    case.faulty_store.clear()
    case.check(case.embed(tiles), set(names), {})


@faults
def test_an_object_replaced_while_it_is_embedded_is_reported(case: StoreCase) -> None:
    tiles = case.tile("one", "two")
    plan = FaultPlan((Trap("slow", slide="two", start=PAUSE_AT, seconds=3.0),), case.folder, prefetch=False)
    config = {
        "tiles": tiles.path.uri,
        "run.store": case.store,
        **EMBEDDING,
        "unit_tiles": SLIDE_TILES,
        "run.batch_tiles": 8,
    }
    driver = case.drivers.start("embed", config, plan)
    while not plan.triggered():
        assert driver.process.is_alive(), driver.output
        time.sleep(0.05)
    case.object("two").write_bytes((case.slides / "B.svs").read_bytes())
    driver.wait()
    assert driver.process.exitcode == INCOMPLETE, driver.output
    (row,) = resolve(case.store, "embed/default", "embed").failures().to_pylist()
    assert (row["slide"], row["stage"]) == ("two", "embed")
    assert "two.svs was replaced while it was read" in row["reason"]


@faults
def test_slides_that_cannot_be_read_are_reported_by_tile_and_the_others_are_tiled(case: StoreCase) -> None:
    names = ("twice500", "cut_once", "storm", "gone", "forbidden", "cut_always")
    slide_table = case.upload(*names)
    case.object("gone").remove()
    case.add_faults(*names)
    driver = case.drivers.run("tile", {"slides": slide_table, "run.store": str(case.folder), **TILING}, case.plan)
    assert driver.process.exitcode == INCOMPLETE, driver.output
    found = resolve(str(case.folder), "tile/default", "tile")
    rows = found.failures().to_pylist()
    assert {row["slide"] for row in rows} == {"storm", "gone", "forbidden", "cut_always"}
    assert all(f"/{row['slide']}.svs" in row["reason"] for row in rows)
    assert set(found.manifest.notes["patients"]) == {"twice500", "cut_once"}
