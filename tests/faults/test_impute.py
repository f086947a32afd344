"""Processes that end in the middle of `impute`: who predicts, who holds a bank's shards, whole nodes, the driver."""

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
from tests.faults.conftest import Room
from tests.faults.drivers import BUSY_S, DONE, INCOMPLETE, Driver, Drivers, alive
from tests.faults.traps import Plot, Trap

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.faults]

GENES, ROWS, JOINT = [f"G{number}" for number in range(30)], 200, 16
SLOW = Trap("slow", "impute", times=1000, seconds=1.0)
"""Leaves time for a fault from outside."""


@pytest.fixture(scope="module")
def bank(oracle: Artifact, drivers: Drivers) -> dict[str, Any]:
    """The config of a prediction of the cohort's slides from a bank of three shards, held by two actors."""
    store = StoragePath.of(drivers.folder / "imputed")
    width = embeddings_of(oracle, SLIDES[0]).schema.field("vector").type.list_size
    heads = seeded_bleep(width, len(GENES), BleepOptions(dim=JOINT), seed=0)
    what = {"genes": GENES, "d_image": width, "options": {"dim": JOINT}}
    nobody: dict[str, Any] = {
        "protocol": "patient",
        "panel": {"name": "all"},
        "train": [],
        "validation": [],
        "test": [],
        "patients": {},
        "slides": [],
    }
    model = _draft(store, "train")
    save_model(model.path, "bleep", dict(heads.state_dict()), {**what, **nobody})
    trained = model.finish({}, [], {})
    rng = np.random.default_rng(0)
    who = ["other"] * ROWS
    reference = ReferenceRows(
        vectors=rng.standard_normal((ROWS, JOINT), dtype=np.float32),
        expression=rng.random((ROWS, len(GENES)), dtype=np.float32),
        genes=GENES,
        sections=who,
        spots=[f"s{row}" for row in range(ROWS)],
        patients=who,
    )
    index = _draft(store, "index")
    described = write_reference_index(index.path, reference, shards=3, metric="cosine")
    index.finish({}, [], {"bank": described, "model": trained.manifest.folder, "patients": ["other"], "slides": []})
    sources = {"embeddings": oracle.path.uri, "model": trained.path.uri, "index": index.path.uri, "k": 7}
    return {**sources, "run.processes": 2, "run.shard_actors": 2}


@pytest.fixture(scope="module")
def undisturbed(bank: dict[str, Any], drivers: Drivers) -> dict[str, np.ndarray]:
    """Each slide's expression."""
    store = str(drivers.folder / "imputed")
    driver = drivers.run("impute", {**bank, "run.store": store})
    assert driver.process.exitcode == DONE, driver.said
    return _predicted(resolve(store, "impute/default", "impute"))


def _draft(store: StoragePath, step: str) -> ArtifactWriter:
    mark = hashlib.sha256(step.encode()).hexdigest()[:12]
    return ArtifactWriter(store / step / f"bank-{mark}", step, "bank", mark, {}, {})


def _predicted(artifact: Artifact) -> dict[str, np.ndarray]:
    schema = tables.predictions(len(GENES))
    slides = artifact.manifest.notes["slides"]
    return {one: tables.matrix(artifact.table(f"predictions/{one}.parquet", schema)["expression"]) for one in slides}


def _start(room: Room, bank: dict[str, Any], *traps: Trap) -> tuple[Driver, Plot]:
    plot = room.plot(*traps)
    return room.drivers.start("impute", {**bank, "run.store": str(room.store)}, plot), plot


def _wait(driver: Driver, until: Callable[[], bool]) -> None:
    end = time.monotonic() + BUSY_S
    while not until():
        assert driver.process.is_alive(), driver.said
        assert time.monotonic() < end, driver.said
        time.sleep(0.05)


def _commits(room: Room) -> dict[str, int]:
    return {path.stem: path.stat().st_mtime_ns for path in Path(room.store).glob("impute/*/commits/*.json")}


def _check_same(room: Room, plot: Plot, undisturbed: dict[str, np.ndarray]) -> None:
    found = _predicted(resolve(str(room.store), "impute/default", "impute"))
    assert list(found) == list(SLIDES)
    for slide, expression in found.items():
        np.testing.assert_array_equal(expression, undisturbed[slide])
    assert not alive(plot.noted("process") + plot.noted("shard"))


def test_an_actor_that_holds_shards_and_is_killed_between_questions_changes_no_row(
    room: Room, bank: dict[str, Any], undisturbed: dict[str, np.ndarray]
) -> None:
    driver, plot = _start(room, bank, SLOW)
    _wait(driver, lambda: len(_commits(room)) > 0)
    os.kill(plot.noted("shard")[0], signal.SIGKILL)
    assert driver.end() == DONE, driver.said
    assert len(plot.noted("shard")) == 3
    _check_same(room, plot, undisturbed)


def test_a_node_that_goes_in_the_middle_of_a_cohort_changes_no_row(
    room: Room, bank: dict[str, Any], undisturbed: dict[str, np.ndarray]
) -> None:
    driver, plot = _start(room, bank, SLOW)
    _wait(driver, lambda: len(_commits(room)) > 0 and len(plot.noted("process")) > 1)
    room.nodes.kill(plot.noted("process") + plot.noted("shard"))
    room.nodes.add()
    assert driver.end() == DONE, driver.said
    _check_same(room, plot, undisturbed)


def test_a_driver_that_is_killed_goes_on_where_it_was(
    room: Room, bank: dict[str, Any], undisturbed: dict[str, np.ndarray]
) -> None:
    driver, plot = _start(room, bank, SLOW)
    _wait(driver, lambda: len(_commits(room)) > 1)
    driver.send(signal.SIGKILL)
    driver.process.join()
    before = _commits(room)
    again = room.drivers.run("impute", {**bank, "run.store": str(room.store)})
    assert again.process.exitcode == DONE, again.said
    assert {slide: moment for slide, moment in _commits(room).items() if slide in before} == before
    _check_same(room, plot, undisturbed)


def test_a_slide_that_ends_every_process_is_left_out_by_name(room: Room, bank: dict[str, Any]) -> None:
    driver, plot = _start(room, bank, Trap("kill", "impute", slide="B", times=100))
    assert driver.end() == INCOMPLETE, driver.said
    assert len(plot.sprung()) == 3
    artifact = resolve(str(room.store), "impute/default", "impute")
    (failure,) = artifact.failures().to_pylist()
    assert failure["slide"] == "B"
    assert failure["reason"].startswith("predicting slide 'B' has ended 3 processes")
    assert artifact.manifest.notes["slides"] == [slide for slide in SLIDES if slide != "B"]
