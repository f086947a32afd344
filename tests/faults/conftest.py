"""One cluster of three nodes, one cohort and one undisturbed run of it, for the whole battery."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from raystp.artifacts import Artifact, resolve
from tests.faults import cohort
from tests.faults.cohort import EMBEDDING, SLIDES, TILING
from tests.faults.drivers import DONE, Drivers, preload
from tests.faults.nodes import Nodes, start_nodes
from tests.faults.traps import Plot, Trap

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@pytest.fixture(scope="session")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the slides."""
    folder = tmp_path_factory.mktemp("faults") / "slides"
    cohort.draw(folder)
    cohort.table(folder / "slides.csv", {slide: f"{slide}.svs" for slide in SLIDES})
    return folder


@pytest.fixture(scope="session")
def nodes() -> Iterator[Nodes]:
    nodes = start_nodes(ENVIRONMENT)
    preload()  # what is slow starts together
    yield nodes
    nodes.close()


@pytest.fixture(scope="session")
def drivers(nodes: Nodes, slides: Path) -> Drivers:
    return Drivers(nodes.address, slides.parent, ENVIRONMENT)


@pytest.fixture(scope="session")
def tiles(drivers: Drivers, slides: Path) -> Artifact:
    """The cohort's tiles, undisturbed."""
    store = str(slides.parent / "oracle")
    driver = drivers.run("tile", {"slides": str(slides / "slides.csv"), "run.store": store, **TILING})
    assert driver.process.exitcode == DONE, driver.said
    return resolve(store, "tile/default", "tile")


@pytest.fixture(scope="session")
def oracle(drivers: Drivers, tiles: Artifact, slides: Path) -> Artifact:
    """The cohort's embeddings, undisturbed."""
    store = str(slides.parent / "oracle")
    driver = drivers.run("embed", {"tiles": tiles.path.uri, "run.store": store, **EMBEDDING})
    assert driver.process.exitcode == DONE, driver.said
    return resolve(store, "embed/default", "embed")


@dataclass(frozen=True)
class Room:
    """What a test of `embed` needs: the cluster, the undisturbed run, and a store of its own."""

    drivers: Drivers
    nodes: Nodes
    tiles: Artifact
    oracle: Artifact
    store: Path

    def plot(self, *traps: Trap) -> Plot:
        """Return a plot of these traps, which counts in a folder of its own."""
        (self.store / "plot").mkdir()
        return Plot(traps, self.store / "plot")

    def config(self, **run: Any) -> dict[str, Any]:
        """Return the config of the run that is compared with the undisturbed one, into this test's own store."""
        where = {f"run.{key}": value for key, value in run.items()}
        return {"tiles": self.tiles.path.uri, "run.store": str(self.store), **EMBEDDING, **where}

    def found(self) -> Artifact:
        """Return what a run has left."""
        return resolve(str(self.store), "embed/default", "embed")


@pytest.fixture
def room(drivers: Drivers, nodes: Nodes, tiles: Artifact, oracle: Artifact, tmp_path: Path) -> Room:  # noqa: PLR0917 -- fixtures come by name
    return Room(drivers, nodes, tiles, oracle, tmp_path)
