"""Crashes and kills during `impute`: workers, actors that hold shards, nodes, the driver."""

import hashlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raystp import tables
from raystp.artifacts import Artifact, ArtifactWriter, resolve
from raystp.expression.sections import embeddings_of
from raystp.index.reference import ReferenceRows
from raystp.index.write import write_reference_index
from raystp.models.bleep.model import seeded_bleep
from raystp.models.bleep.options import BleepOptions
from raystp.models.store import save_model
from raystp.storage import StoragePath
from tests.faults.cohort import SLIDES
from tests.faults.conftest import EmbedCase
from tests.faults.drivers import DONE, DRIVER_TIMEOUT_S, INCOMPLETE, Driver, Drivers, alive
from tests.faults.traps import FaultPlan, Trap

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.faults]

GENES, ROWS, JOINT = [f"G{number}" for number in range(30)], 200, 16
SLOW = Trap("slow", "impute", times=1000, seconds=1.0)
"""Slows a slide to 1 s, which leaves time for kills."""


@pytest.fixture(scope="module")
def config(oracle: Artifact, drivers: Drivers) -> dict[str, Any]:
    """The config of a prediction of the cohort's slides, with an index of three shards held by two actors."""
    store = StoragePath.of(drivers.folder / "imputed")
    width = embeddings_of(oracle, SLIDES[0]).schema.field("vector").type.list_size
    heads = seeded_bleep(width, len(GENES), BleepOptions(dim=JOINT), seed=0)
    sizes = {"genes": GENES, "d_image": width, "options": {"dim": JOINT}}
    no_patients: dict[str, Any] = {
        "protocol": "patient",
        "panel": {"name": "all"},
        "train": [],
        "validation": [],
        "test": [],
        "patients": {},
        "slides": [],
    }
    model = _writer(store, "train")
    save_model(model.path, "bleep", dict(heads.state_dict()), {**sizes, **no_patients})
    trained = model.finish({}, [], {})
    rng = np.random.default_rng(0)
    others = ["other"] * ROWS
    reference = ReferenceRows(
        vectors=rng.standard_normal((ROWS, JOINT), dtype=np.float32),
        expression=rng.random((ROWS, len(GENES)), dtype=np.float32),
        genes=GENES,
        sections=others,
        spots=[f"s{row}" for row in range(ROWS)],
        patients=others,
    )
    index = _writer(store, "index")
    description = write_reference_index(index.path, reference, shards=3, metric="cosine")
    index.finish({}, [], {"bank": description, "model": trained.manifest.folder, "patients": ["other"], "slides": []})
    sources = {"embeddings": oracle.path.uri, "model": trained.path.uri, "index": index.path.uri, "k": 7}
    return {**sources, "run.processes": 2, "run.shard_actors": 2}


@pytest.fixture(scope="module")
def expected(config: dict[str, Any], drivers: Drivers) -> dict[str, np.ndarray]:
    """Each slide's expression."""
    store = str(drivers.folder / "imputed")
    driver = drivers.run("impute", {**config, "run.store": store})
    assert driver.process.exitcode == DONE, driver.output
    return _predicted(resolve(store, "impute/default", "impute"))


def _writer(store: StoragePath, step: str) -> ArtifactWriter:
    digest = hashlib.sha256(step.encode()).hexdigest()[:12]
    return ArtifactWriter(store / step / f"faults-{digest}", step, "faults", digest, {}, {})


def _predicted(artifact: Artifact) -> dict[str, np.ndarray]:
    schema = tables.predictions(len(GENES))
    slides = artifact.manifest.notes["slides"]
    return {one: tables.matrix(artifact.table(f"predictions/{one}.parquet", schema)["expression"]) for one in slides}


def _start(case: EmbedCase, config: dict[str, Any], *traps: Trap) -> tuple[Driver, FaultPlan]:
    plan = case.plan(*traps)
    return case.drivers.start("impute", {**config, "run.store": str(case.store)}, plan), plan


def _wait(driver: Driver, until: Callable[[], bool]) -> None:
    end = time.monotonic() + DRIVER_TIMEOUT_S
    while not until():
        assert driver.process.is_alive(), driver.output
        assert time.monotonic() < end, driver.output
        time.sleep(0.05)


def _commits(case: EmbedCase) -> dict[str, int]:
    return {path.stem: path.stat().st_mtime_ns for path in Path(case.store).glob("impute/*/commits/*.json")}


def _check_same(case: EmbedCase, plan: FaultPlan, expected: dict[str, np.ndarray]) -> None:
    found = _predicted(resolve(str(case.store), "impute/default", "impute"))
    assert list(found) == list(SLIDES)
    for slide, expression in found.items():
        np.testing.assert_array_equal(expression, expected[slide])
    assert not alive(plan.logged("process") + plan.logged("shard"))


def test_killing_an_actor_with_shards_changes_no_row(
    case: EmbedCase, config: dict[str, Any], expected: dict[str, np.ndarray]
) -> None:
    driver, plan = _start(case, config, SLOW)
    _wait(driver, lambda: len(_commits(case)) > 0)
    os.kill(plan.logged("shard")[0], signal.SIGKILL)
    assert driver.wait() == DONE, driver.output
    assert len(plan.logged("shard")) == 3
    _check_same(case, plan, expected)


def test_losing_a_node_changes_no_row(case: EmbedCase, config: dict[str, Any], expected: dict[str, np.ndarray]) -> None:
    driver, plan = _start(case, config, SLOW)
    _wait(driver, lambda: len(_commits(case)) > 0 and len(plan.logged("process")) > 1)
    case.nodes.kill(plan.logged("process") + plan.logged("shard"))
    case.nodes.add()
    assert driver.wait() == DONE, driver.output
    _check_same(case, plan, expected)


def test_a_killed_driver_resumes(case: EmbedCase, config: dict[str, Any], expected: dict[str, np.ndarray]) -> None:
    driver, plan = _start(case, config, SLOW)
    _wait(driver, lambda: len(_commits(case)) > 1)
    driver.send(signal.SIGKILL)
    driver.process.join()
    before = _commits(case)
    again = case.drivers.run("impute", {**config, "run.store": str(case.store)})
    assert again.process.exitcode == DONE, again.output
    assert {slide: mtime for slide, mtime in _commits(case).items() if slide in before} == before
    _check_same(case, plan, expected)


def test_a_slide_that_crashes_every_worker_is_skipped_by_name(case: EmbedCase, config: dict[str, Any]) -> None:
    driver, plan = _start(case, config, Trap("kill", "impute", slide="B", times=100))
    assert driver.wait() == INCOMPLETE, driver.output
    assert len(plan.triggered()) == 3
    artifact = resolve(str(case.store), "impute/default", "impute")
    (failure,) = artifact.failures().to_pylist()
    assert failure["slide"] == "B"
    assert failure["reason"].startswith("Slide 'B' crashed 3 workers")
    assert artifact.manifest.notes["slides"] == [slide for slide in SLIDES if slide != "B"]
