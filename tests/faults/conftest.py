"""A cluster of three nodes, a cohort and a run without faults, shared by all fault tests."""

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
from tests.faults.traps import FaultPlan, Trap

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
    preload()  # start both slow processes at once
    yield nodes
    nodes.close()


@pytest.fixture(scope="session")
def drivers(nodes: Nodes, slides: Path) -> Drivers:
    return Drivers(nodes.address, slides.parent, ENVIRONMENT)


@pytest.fixture(scope="session")
def tiles(drivers: Drivers, slides: Path) -> Artifact:
    """The cohort's tiles, from a run without faults."""
    store = str(slides.parent / "oracle")
    driver = drivers.run("tile", {"slides": str(slides / "slides.csv"), "run.store": store, **TILING})
    assert driver.process.exitcode == DONE, driver.output
    return resolve(store, "tile/default", "tile")


@pytest.fixture(scope="session")
def oracle(drivers: Drivers, tiles: Artifact, slides: Path) -> Artifact:
    """The cohort's embeddings, from a run without faults."""
    store = str(slides.parent / "oracle")
    driver = drivers.run("embed", {"tiles": tiles.path.uri, "run.store": store, **EMBEDDING})
    assert driver.process.exitcode == DONE, driver.output
    return resolve(store, "embed/default", "embed")


@dataclass(frozen=True)
class EmbedCase:
    """Inputs of a test of `embed`: the cluster, the run without faults, and the test's store."""

    drivers: Drivers
    nodes: Nodes
    tiles: Artifact
    oracle: Artifact
    store: Path

    def plan(self, *traps: Trap) -> FaultPlan:
        """Return a plan of these traps, with its own folder for counts."""
        (self.store / "plan").mkdir()
        return FaultPlan(traps, self.store / "plan")

    def config(self, **run: Any) -> dict[str, Any]:
        """Return the config of `embed` with this test's store."""
        run_values = {f"run.{key}": value for key, value in run.items()}
        return {"tiles": self.tiles.path.uri, "run.store": str(self.store), **EMBEDDING, **run_values}

    def found(self) -> Artifact:
        """Return the artifact of the run."""
        return resolve(str(self.store), "embed/default", "embed")


@pytest.fixture
def case(drivers: Drivers, nodes: Nodes, tiles: Artifact, oracle: Artifact, tmp_path: Path) -> EmbedCase:  # noqa: PLR0917 -- pytest passes fixtures by name
    return EmbedCase(drivers, nodes, tiles, oracle, tmp_path)
