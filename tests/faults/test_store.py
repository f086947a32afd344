"""A store on a bad day: what passes costs nothing, what does not is named with the object, and nothing half is seen."""

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
from tests.faults.s3 import Door
from tests.faults.traps import Plot, Trap

pytestmark = [pytest.mark.ray, pytest.mark.slow]
faults = pytest.mark.faults

WHOLE = UNITS * UNIT_TILES
"""Tiles of a slide, here one unit: less to wait for."""
PATIENCE_S = 3.0
SLOW_DOWN = 503
PAUSE_AT = 8
"""The tile before which the second batch is read."""

PASSING: dict[str, list[tuple[Any, ...]]] = {
    "twice500": [("status", 500, "GET", 2)],
    "slowdown": [("status", 503, "GET", 2)],
    "cut_once": [("cut", 1000, "GET", 1)],
    "reset_once": [("reset", 1000, "GET", 1)],
    "lost_write": [],
}
LASTING: dict[str, list[tuple[Any, ...]]] = {
    "storm": [("status", 503, "GET", 1000)],
    "gone": [],
    "forbidden": [("status", 403, "GET", 1000), ("status", 403, "HEAD", 1000)],
    "cut_always": [("cut", 1000, "GET", 1000)],
    "silent": [("silent", 0, "GET", 1000)],
    "drip": [("drip", 1000, "GET", 1000)],
    "unwritable": [],
}
"""Slide -> what happens to the requests for it: kind, at, method, times. Each is a copy of the same slide."""
FEW = ("twice500", "cut_once", "lost_write", "storm", "gone", "forbidden", "silent", "unwritable")
ALL = (*PASSING, *LASTING)
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
class Shop:
    """What a test of the store needs: the door to it, the cluster, the undisturbed run, and a folder of its own."""

    door: Door
    drivers: Drivers
    slides: Path
    oracle: Artifact
    folder: Path

    @property
    def store(self) -> str:
        """A store on the object store, of this test alone."""
        return self.door.place(self.folder.name).uri

    @property
    def plot(self) -> Plot:
        return Plot((), self.folder, PATIENCE_S)

    def object(self, name: str) -> StoragePath:
        """Return the object of a slide."""
        return self.door.place(f"{self.folder.name}/slides/{name}.svs")

    def upload(self, *names: str) -> str:
        """Put copies of one slide into the store, without a fault; return the path of their table."""
        self.door.clear()
        for name in names:
            self.object(name).write_bytes((self.slides / "A.svs").read_bytes())
        return cohort.table(self.folder / "slides.csv", {name: self.object(name).uri for name in names})

    def tile(self, *names: str) -> Artifact:
        """Tile these slides, without a fault, into the same store."""
        config = {"slides": self.upload(*names), "run.store": self.store, **TILING}
        driver = self.drivers.run("tile", config)
        assert driver.process.exitcode == DONE, driver.said
        return resolve(self.store, "tile/default", "tile")

    def embed(self, tiles: Artifact, **run: Any) -> Driver:
        """Embed them."""
        where = {f"run.{key}": value for key, value in run.items()}
        config = {"tiles": tiles.path.uri, "run.store": self.store, **EMBEDDING, "unit_tiles": WHOLE, **where}
        return self.drivers.run("embed", config, self.plot)

    def misbehave(self, *names: str) -> None:
        for name in names:
            for kind, at, method, times in (PASSING | LASTING)[name]:
                says = "SlowDown" if at == SLOW_DOWN else "Denied"
                self.door.add(kind, at, method=method, times=times, says=says, of=f"/{name}.svs")

    def check(self, driver: Driver, wanted: set[str], lacking: dict[str, str]) -> None:
        """The wanted slides have the rows of slide A in an undisturbed run; the others are named, and have none."""
        assert driver.process.exitcode == (INCOMPLETE if lacking else DONE), driver.said
        found = resolve(self.store, "embed/default", "embed")
        assert set(found.manifest.notes["units"]) == wanted
        folder = self.oracle.path / "embeddings" / "A"
        truth = pa.concat_tables((folder / f"A.{unit:05d}.parquet").read_table() for unit in range(UNITS))
        for slide in wanted:
            table = (found.path / "embeddings" / slide / f"{slide}.00000.parquet").read_table()
            assert table.drop_columns("slide").equals(truth.drop_columns("slide"))
            assert set(table["slide"].to_pylist()) == {slide}
        rows = found.failures().to_pylist()
        assert [(row["slide"], row["stage"]) for row in rows] == [(slide, "embed") for slide in sorted(lacking)]
        for row in rows:
            assert f"/{row['slide']}." in row["reason"]
            assert re.search(lacking[row["slide"]], row["reason"]), row["reason"]
        committed = {name.removesuffix(".00000.json") for name in (found.path / "commits").names()}
        assert committed == wanted


@pytest.fixture(scope="module")
def door() -> Iterator[Door]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        with s3.running() as door:
            yield door


@pytest.fixture
def shop(door: Door, drivers: Drivers, slides: Path, oracle: Artifact, tmp_path: Path) -> Shop:  # noqa: PLR0917 -- fixtures come by name
    return Shop(door, drivers, slides, oracle, tmp_path)


def bad_day(shop: Shop, *names: str) -> Artifact:
    """Tile these slides; embed them while each has its own fault; what passed is there, what did not is named."""
    tiles = shop.tile(*names)
    shop.object("gone").remove()
    shop.misbehave(*names)
    for of, status in (("embeddings/lost_write/", 500), ("commits/lost_write", 503)):
        shop.door.add("lost", status, method="PUT", times=1, of=of)
    shop.door.add("status", SLOW_DOWN, method="PUT", says="SlowDown", of="commits/unwritable")
    lacking = {name: SAYS[name] for name in names if name in LASTING}
    shop.check(shop.embed(tiles), set(names) - lacking.keys(), lacking)
    return tiles


@pytest.mark.faults
def test_what_passes_is_embedded_and_what_does_not_is_named(shop: Shop) -> None:
    bad_day(shop, *FEW)


@faults
def test_what_was_named_is_there_once_the_store_is_well(shop: Shop) -> None:
    tiles = bad_day(shop, *ALL)
    shop.upload("gone")
    shop.check(shop.embed(tiles, retry_failed="true"), set(ALL), {})


@faults
def test_a_store_that_takes_nothing_ends_in_a_sentence_and_the_same_command_goes_on(shop: Shop) -> None:
    names = ("one", "two")
    tiles = shop.tile(*names)
    shop.door.add("status", SLOW_DOWN, method="PUT", says="SlowDown")
    driver = shop.embed(tiles)
    assert driver.process.exitcode == FAILED, driver.said
    assert driver.facts["error"] == "StorageError", driver.said
    shop.door.clear()
    shop.check(shop.embed(tiles), set(names), {})


@faults
def test_an_object_that_is_replaced_while_it_is_embedded_is_named(shop: Shop) -> None:
    tiles = shop.tile("one", "two")
    plot = Plot((Trap("slow", slide="two", start=PAUSE_AT, seconds=3.0),), shop.folder)
    config = {"tiles": tiles.path.uri, "run.store": shop.store, **EMBEDDING, "unit_tiles": WHOLE, "run.batch_tiles": 8}
    driver = shop.drivers.start("embed", config, plot)
    while not plot.sprung():
        assert driver.process.is_alive(), driver.said
        time.sleep(0.05)
    shop.object("two").write_bytes((shop.slides / "B.svs").read_bytes())
    driver.end()
    assert driver.process.exitcode == INCOMPLETE, driver.said
    (row,) = resolve(shop.store, "embed/default", "embed").failures().to_pylist()
    assert (row["slide"], row["stage"]) == ("two", "embed")
    assert "two.svs was replaced while it was read" in row["reason"]


@faults
def test_slides_that_cannot_be_had_are_named_by_tile_and_the_others_are_tiled(shop: Shop) -> None:
    names = ("twice500", "cut_once", "storm", "gone", "forbidden", "cut_always")
    listed = shop.upload(*names)
    shop.object("gone").remove()
    shop.misbehave(*names)
    driver = shop.drivers.run("tile", {"slides": listed, "run.store": str(shop.folder), **TILING}, shop.plot)
    assert driver.process.exitcode == INCOMPLETE, driver.said
    found = resolve(str(shop.folder), "tile/default", "tile")
    rows = found.failures().to_pylist()
    assert {row["slide"] for row in rows} == {"storm", "gone", "forbidden", "cut_always"}
    assert all(f"/{row['slide']}.svs" in row["reason"] for row in rows)
    assert set(found.manifest.notes["patients"]) == {"twice500", "cut_once"}
