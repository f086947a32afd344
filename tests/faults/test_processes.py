"""Processes that end in the middle of `embed`: workers, nodes, drivers; the rows are those of an undisturbed run."""

import signal
import time
from collections import Counter

import numpy as np
import pytest

from tests.faults.cohort import EMBEDDING, SLIDES, UNITS, ids, left, shown
from tests.faults.conftest import Room
from tests.faults.drivers import BUSY_S, DONE, INCOMPLETE, Driver, alive
from tests.faults.traps import Plot, Trap

pytestmark = [pytest.mark.ray, pytest.mark.slow]

faults = pytest.mark.faults
STAGES = ("read", "commit", "aside", "record", "committed")
SLOW = Trap("slow", times=1000, seconds=0.1)
"""Leaves time for a fault from outside: 0.2 s a unit."""
ALL = len(SLIDES) * UNITS
REFUSED = "crashed 3 workers"
FULL = "File too large"


def check_same(room: Room, plot: Plot) -> None:
    """Every row is there once, byte for byte; nothing else is seen, and no process of the work is left."""
    found, oracle = room.found(), room.oracle
    assert left(found) == left(oracle)
    assert Counter(ids(found.path.local_path)) == Counter(ids(oracle.path.local_path))
    assert shown(found.path.local_path) == shown(oracle.path.local_path)
    assert not alive(plot.noted("process"))


def begun(plot: Plot) -> int:
    """How often a unit was begun, by whichever process."""
    log = (plot.folder / "log.txt").read_text().splitlines()
    return sum(line.startswith("begin ") for line in log)


def wait_for_units(room: Room, share: float, driver: Driver, timeout_s: float = BUSY_S) -> None:
    """Wait until a share of all units is committed."""
    until = time.monotonic() + timeout_s
    while len(list(room.store.glob("embed/*/commits/*.json"))) < share * ALL:
        assert driver.process.is_alive(), driver.said
        assert time.monotonic() < until, driver.said
        time.sleep(0.02)


def one_death(seed: int) -> Trap:
    """SIGKILL at a unit and a stage that a seed picks."""
    rng = np.random.default_rng(seed)
    slide, unit = rng.choice(SLIDES), int(rng.integers(UNITS))
    return Trap("kill", str(rng.choice(STAGES)), unit=f"{slide}.{unit:05d}", start=int(rng.integers(4)))


# ---- P1, P2, P6: a worker ends


@faults
@pytest.mark.parametrize("seed", range(20))
def test_an_encoder_that_is_killed_at_any_unit_costs_that_unit_at_most(seed: int, room: Room) -> None:
    plot = room.plot(one_death(seed))
    driver = room.drivers.run("embed", room.config(), plot)
    assert driver.process.exitcode == DONE, driver.said
    assert len(plot.sprung()) == 1
    assert begun(plot) <= ALL + 1
    check_same(room, plot)


@faults
@pytest.mark.parametrize("readers", [0, 1], ids=["inside", "apart"])
@pytest.mark.parametrize("how", ["kill", "exit", "abort", "segfault", "leave"])
def test_however_a_process_ends_its_unit_is_there_once(how: str, readers: int, room: Room) -> None:
    plot = room.plot(Trap(how, slide="C", start=3), Trap(how, "record", slide="D"))
    driver = room.drivers.run("embed", room.config(readers=readers), plot)
    assert driver.process.exitcode == DONE, driver.said
    assert len(plot.sprung()) == 2
    check_same(room, plot)


@faults
@pytest.mark.parametrize("at", ["commit", "aside", "record", "committed"])
def test_a_writer_that_ends_before_between_or_after_leaves_a_unit_whole_or_not_at_all(at: str, room: Room) -> None:
    plot = room.plot(Trap("kill", at, times=3))
    driver = room.drivers.run("embed", room.config(), plot)
    assert driver.process.exitcode == DONE, driver.said
    assert len(plot.sprung()) == 3
    assert begun(plot) <= ALL + 3
    check_same(room, plot)


# ---- P3: a slide that ends every process, or holds it for ever


@faults
@pytest.mark.parametrize("how", ["kill", "segfault", "hang", "hold"])
def test_a_slide_that_ends_or_holds_every_process_is_left_out_by_name_and_the_others_are_there(
    how: str, room: Room
) -> None:
    plot = room.plot(Trap(how, unit="B.00001", times=100))
    config = room.config(deadline_s=3)
    driver = room.drivers.run("embed", config, plot, BUSY_S)
    assert driver.process.exitcode == INCOMPLETE, driver.said
    check_lacks(room, {"B": REFUSED})
    assert len(plot.sprung()) == 3
    again = room.drivers.run("embed", {**config, "run.retry_failed": "true"})
    assert again.process.exitcode == DONE, again.said
    check_same(room, plot)


def check_lacks(room: Room, reasons: dict[str, str]) -> None:
    """These slides are named with stage and reason, and all others are those of an undisturbed run."""
    found, oracle = room.found(), room.oracle
    rows = found.failures().to_pylist()
    assert [(row["slide"], row["stage"]) for row in rows] == [(slide, "embed") for slide in sorted(reasons)]
    for row in rows:
        assert reasons[row["slide"]] in row["reason"]
    others = [slide for slide in SLIDES if slide not in reasons]
    assert left(found, others).content == left(oracle, others).content
    assert list(found.manifest.notes["units"]) == others
    assert found.manifest.rows["tiles"] == sum(slide in others for slide, _ in ids(oracle.path.local_path))


# ---- P4: a node goes


@faults
@pytest.mark.parametrize("share", [0.0, 0.3, 0.8])
def test_a_node_that_goes_and_one_that_comes_change_no_row(share: float, room: Room) -> None:
    plot = room.plot(SLOW)
    driver = room.drivers.start("embed", room.config(), plot)
    wait_for_units(room, share, driver)
    while len(set(plot.noted("process"))) < EMBEDDING["run.encoders"]:
        time.sleep(0.1)
    room.nodes.kill(plot.noted("process"))
    room.nodes.add()
    assert driver.end() == DONE, driver.said
    check_same(room, plot)


# ---- P5: the driver is killed


@faults
def test_a_driver_that_is_killed_again_and_again_goes_on_from_what_was_committed(room: Room) -> None:
    plot, config = room.plot(SLOW), room.config()
    for share in (0.1, 0.5, 0.9):
        driver = room.drivers.start("embed", config, plot)
        wait_for_units(room, share, driver)
        driver.send(signal.SIGKILL)
        driver.end()
    last = room.drivers.run("embed", config, plot)
    assert last.process.exitcode == DONE, last.said
    assert begun(plot) <= ALL + 3 * EMBEDDING["run.encoders"]
    check_same(room, plot)


@faults
@pytest.mark.parametrize("seed", range(3))
def test_two_drivers_at_once_leave_what_one_leaves(seed: int, room: Room) -> None:
    plot = room.plot(Trap("slow", times=1000, seconds=0.05 * seed))
    config = room.config(encoders=1)
    both = [room.drivers.start("embed", config, plot) for _ in range(2)]
    for driver in both:
        assert driver.end() == DONE, driver.said
    check_same(room, plot)


# ---- P7: the driver is asked to stop


@faults
@pytest.mark.parametrize("what", [signal.SIGTERM, signal.SIGINT])
def test_a_driver_that_is_told_to_stop_ends_soon_and_goes_on_later(what: signal.Signals, room: Room) -> None:
    plot, config = room.plot(SLOW), room.config()
    driver = room.drivers.start("embed", config, plot)
    wait_for_units(room, 0.3, driver)
    started = time.monotonic()
    driver.send(what)
    assert driver.end() not in {DONE, INCOMPLETE}
    assert time.monotonic() - started < 10
    assert not alive(plot.noted("process"))
    again = room.drivers.run("embed", config, plot)
    assert again.process.exitcode == DONE, again.said
    assert begun(plot) <= ALL + EMBEDDING["run.encoders"]
    check_same(room, plot)


# ---- one of each


@faults
def test_processes_end_in_every_way_in_one_run_and_only_the_deadly_slide_is_left_out(room: Room) -> None:
    deaths = [one_death(0), Trap("segfault", slide="D", start=3), Trap("kill", "record", slide="F")]
    plot = room.plot(Trap("hang", unit="B.00001", times=100), Trap("full", "aside", slide="E"), *deaths)
    config = room.config(deadline_s=3)
    driver = room.drivers.run("embed", config, plot)
    assert driver.process.exitcode == INCOMPLETE, driver.said
    assert len(plot.sprung()) == 3 + 1 + len(deaths)
    check_lacks(room, {"B": REFUSED, "E": FULL})


@faults
def test_a_driver_that_is_killed_then_stopped_and_then_loses_a_node_leaves_the_same(room: Room) -> None:
    plot, config = room.plot(SLOW), room.config()
    for share, what in ((0.2, signal.SIGKILL), (0.5, signal.SIGTERM)):
        driver = room.drivers.start("embed", {**config, "run.encoders": 1}, plot)
        wait_for_units(room, share, driver)
        driver.send(what)
        assert driver.end(10) not in {DONE, INCOMPLETE}
    driver = room.drivers.start("embed", config, plot)
    wait_for_units(room, 0.7, driver)
    room.nodes.kill(plot.noted("process"))
    assert driver.end() == DONE, driver.said
    room.nodes.add()
    check_same(room, plot)
