"""Crashes and kills during `embed`: workers, nodes, drivers; the rows equal those of a run without faults."""

import signal
import time
from collections import Counter

import numpy as np
import pytest

from tests.faults.cohort import EMBEDDING, SLIDES, UNITS, ids, snapshot, visible_files
from tests.faults.conftest import EmbedCase
from tests.faults.drivers import DONE, DRIVER_TIMEOUT_S, INCOMPLETE, Driver, alive
from tests.faults.traps import FaultPlan, Trap

pytestmark = [pytest.mark.ray, pytest.mark.slow]

faults = pytest.mark.faults
STAGES = ("read", "commit", "writing", "record", "committed")
SLOW = Trap("slow", times=1000, seconds=0.1)
"""Slows a unit to 0.2 s, which leaves time for kills."""
ALL = len(SLIDES) * UNITS
CRASHED = "crashed 3 workers"
FULL = "File too large"


def check_same(case: EmbedCase, plan: FaultPlan) -> None:
    """Every row exists once, with equal bytes; no other files are visible, and no process of the work runs."""
    found, oracle = case.found(), case.oracle
    assert snapshot(found) == snapshot(oracle)
    assert Counter(ids(found.path.local_path)) == Counter(ids(oracle.path.local_path))
    assert visible_files(found.path.local_path) == visible_files(oracle.path.local_path)
    assert not alive(plan.logged("process"))


def count_starts(plan: FaultPlan) -> int:
    """Return how often any process started a unit."""
    log = (plan.folder / "log.txt").read_text().splitlines()
    return sum(line.startswith("start ") for line in log)


def wait_for_units(case: EmbedCase, share: float, driver: Driver, timeout_s: float = DRIVER_TIMEOUT_S) -> None:
    """Wait until a share of all units is committed."""
    until = time.monotonic() + timeout_s
    while len(list(case.store.glob("embed/*/commits/*.json"))) < share * ALL:
        assert driver.process.is_alive(), driver.output
        assert time.monotonic() < until, driver.output
        time.sleep(0.02)


def random_kill(seed: int) -> Trap:
    """Return a SIGKILL at a random unit and stage."""
    rng = np.random.default_rng(seed)
    slide, unit = rng.choice(SLIDES), int(rng.integers(UNITS))
    return Trap("kill", str(rng.choice(STAGES)), unit=f"{slide}.{unit:05d}", start=int(rng.integers(4)))


# ---- P1, P2, P6: a worker crashes


@faults
@pytest.mark.parametrize("seed", range(20))
def test_killing_an_encoder_repeats_at_most_one_unit(seed: int, case: EmbedCase) -> None:
    plan = case.plan(random_kill(seed))
    driver = case.drivers.run("embed", case.config(), plan)
    assert driver.process.exitcode == DONE, driver.output
    assert len(plan.triggered()) == 1
    assert count_starts(plan) <= ALL + 1
    check_same(case, plan)


@faults
@pytest.mark.parametrize("seed", range(5))
def test_a_hundred_kills_in_five_runs_lose_no_row_and_repeat_at_most_a_unit_each(seed: int, case: EmbedCase) -> None:
    rng, kills = np.random.default_rng([100, seed]), 20
    units = rng.permutation([f"{slide}.{unit:05d}" for slide in SLIDES for unit in range(UNITS)])[:kills]
    traps = [Trap("kill", str(rng.choice(STAGES)), unit=unit, start=int(rng.integers(4))) for unit in units.tolist()]
    plan = case.plan(*traps)
    driver = case.drivers.run("embed", case.config(), plan)
    assert driver.process.exitcode == DONE, driver.output
    assert len(plan.triggered()) == kills
    assert count_starts(plan) <= ALL + kills
    check_same(case, plan)


@faults
@pytest.mark.parametrize("readers", [0, 1], ids=["inside", "separate"])
@pytest.mark.parametrize("how", ["kill", "exit", "abort", "segfault", "leave"])
def test_after_any_kind_of_crash_the_unit_is_committed_once(how: str, readers: int, case: EmbedCase) -> None:
    plan = case.plan(Trap(how, slide="C", start=3), Trap(how, "record", slide="D"))
    driver = case.drivers.run("embed", case.config(readers=readers), plan)
    assert driver.process.exitcode == DONE, driver.output
    assert len(plan.triggered()) == 2
    check_same(case, plan)


@faults
@pytest.mark.parametrize("at", ["commit", "writing", "record", "committed"])
def test_a_crash_before_during_or_after_the_commit_leaves_a_complete_unit_or_none(at: str, case: EmbedCase) -> None:
    plan = case.plan(Trap("kill", at, times=3))
    driver = case.drivers.run("embed", case.config(), plan)
    assert driver.process.exitcode == DONE, driver.output
    assert len(plan.triggered()) == 3
    assert count_starts(plan) <= ALL + 3
    check_same(case, plan)


# ---- P3: a slide that crashes or hangs every worker


@faults
@pytest.mark.parametrize("how", ["kill", "segfault", "hang", "hold"])
def test_a_slide_that_crashes_or_hangs_every_worker_is_skipped_by_name_and_the_others_are_embedded(
    how: str, case: EmbedCase
) -> None:
    plan = case.plan(Trap(how, unit="B.00001", times=100))
    config = case.config(deadline_s=3)
    driver = case.drivers.run("embed", config, plan, DRIVER_TIMEOUT_S)
    assert driver.process.exitcode == INCOMPLETE, driver.output
    check_failed(case, {"B": CRASHED})
    assert len(plan.triggered()) == 3
    again = case.drivers.run("embed", {**config, "run.retry_failed": "true"})
    assert again.process.exitcode == DONE, again.output
    check_same(case, plan)


def check_failed(case: EmbedCase, reasons: dict[str, str]) -> None:
    """These slides are in the failures table, and all others equal those of a run without faults."""
    found, oracle = case.found(), case.oracle
    rows = found.failures().to_pylist()
    assert [(row["slide"], row["stage"]) for row in rows] == [(slide, "embed") for slide in sorted(reasons)]
    for row in rows:
        assert reasons[row["slide"]] in row["reason"]
    others = [slide for slide in SLIDES if slide not in reasons]
    assert snapshot(found, others).content == snapshot(oracle, others).content
    assert list(found.manifest.notes["units"]) == others
    assert found.manifest.rows["tiles"] == sum(slide in others for slide, _ in ids(oracle.path.local_path))


# ---- P4: a node is lost


@faults
@pytest.mark.parametrize("share", [0.0, 0.3, 0.8])
def test_losing_a_node_and_adding_one_changes_no_row(share: float, case: EmbedCase) -> None:
    plan = case.plan(SLOW)
    driver = case.drivers.start("embed", case.config(), plan)
    wait_for_units(case, share, driver)
    while len(set(plan.logged("process"))) < EMBEDDING["run.encoders"]:
        time.sleep(0.1)
    case.nodes.kill(plan.logged("process"))
    case.nodes.add()
    assert driver.wait() == DONE, driver.output
    check_same(case, plan)


# ---- P5: the driver is killed


@faults
def test_a_driver_killed_repeatedly_resumes_from_the_committed_units(case: EmbedCase) -> None:
    plan, config = case.plan(SLOW), case.config()
    for share in (0.1, 0.5, 0.9):
        driver = case.drivers.start("embed", config, plan)
        wait_for_units(case, share, driver)
        driver.send(signal.SIGKILL)
        driver.wait()
    last = case.drivers.run("embed", config, plan)
    assert last.process.exitcode == DONE, last.output
    assert count_starts(plan) <= ALL + 3 * EMBEDDING["run.encoders"]
    check_same(case, plan)


@faults
@pytest.mark.parametrize("seed", range(3))
def test_two_concurrent_drivers_give_the_result_of_one(seed: int, case: EmbedCase) -> None:
    plan = case.plan(Trap("slow", times=1000, seconds=0.05 * seed))
    config = case.config(encoders=1)
    both = [case.drivers.start("embed", config, plan) for _ in range(2)]
    for driver in both:
        assert driver.wait() == DONE, driver.output
    check_same(case, plan)


# ---- P7: the driver is stopped by a signal


@faults
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_driver_soon_and_a_later_run_resumes(number: signal.Signals, case: EmbedCase) -> None:
    plan, config = case.plan(SLOW), case.config()
    driver = case.drivers.start("embed", config, plan)
    wait_for_units(case, 0.3, driver)
    started = time.monotonic()
    driver.send(number)
    assert driver.wait() not in {DONE, INCOMPLETE}
    assert time.monotonic() - started < 10
    assert not alive(plan.logged("process"))
    again = case.drivers.run("embed", config, plan)
    assert again.process.exitcode == DONE, again.output
    assert count_starts(plan) <= ALL + EMBEDDING["run.encoders"]
    check_same(case, plan)


# ---- one of each


@faults
def test_many_kinds_of_crashes_in_one_run_skip_only_the_slide_that_always_fails(case: EmbedCase) -> None:
    crashes = [random_kill(0), Trap("segfault", slide="D", start=3), Trap("kill", "record", slide="F")]
    plan = case.plan(Trap("hang", unit="B.00001", times=100), Trap("full", "writing", slide="E"), *crashes)
    config = case.config(deadline_s=3)
    driver = case.drivers.run("embed", config, plan)
    assert driver.process.exitcode == INCOMPLETE, driver.output
    assert len(plan.triggered()) == 3 + 1 + len(crashes)
    check_failed(case, {"B": CRASHED, "E": FULL})


@faults
def test_a_kill_a_stop_and_a_lost_node_in_turn_change_no_row(case: EmbedCase) -> None:
    plan, config = case.plan(SLOW), case.config()
    for share, number in ((0.2, signal.SIGKILL), (0.5, signal.SIGTERM)):
        driver = case.drivers.start("embed", {**config, "run.encoders": 1}, plan)
        wait_for_units(case, share, driver)
        driver.send(number)
        assert driver.wait(10) not in {DONE, INCOMPLETE}
    driver = case.drivers.start("embed", config, plan)
    wait_for_units(case, 0.7, driver)
    case.nodes.kill(plan.logged("process"))
    assert driver.wait() == DONE, driver.output
    case.nodes.add()
    check_same(case, plan)
